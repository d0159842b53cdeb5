//! The engine under an open database, which compaction changes for another.
//!
//! Whoever reads or writes takes the engine of that moment and stays with it to the end of what he does. A file that was
//! changed for another has no name any more; it goes with the last who reads it.

use std::sync::{Arc, PoisonError, RwLock};

/// Where a database's engine is found. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Engine(Arc<RwLock<Arc<redb::Database>>>);

impl Engine {
    /// Over this file.
    pub(super) fn new(engine: redb::Database) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(engine))))
    }

    /// The engine of now.
    pub(super) fn now(&self) -> Arc<redb::Database> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it for another; answers the one that was there, whose end may block.
    pub(super) fn change(&self, engine: redb::Database) -> Arc<redb::Database> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(engine))
    }

    /// Whether nobody reads or writes it right now.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&*self.0.read().unwrap_or_else(PoisonError::into_inner)) == 1
    }
}
