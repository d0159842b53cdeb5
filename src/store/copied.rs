//! What a compaction and the writer hand to each other (`compaction.rs`).

use std::fmt;
use std::path::{Path, PathBuf};

use redb::{ReadTransaction, ReadableDatabase};

use super::StoreError;
use super::changed::Changed;

/// What the writer hands over: what was changed, and a snapshot that shows it.
pub(super) struct Round {
    pub(super) changed: Changed,
    pub(super) snapshot: ReadTransaction,
}

impl Round {
    /// A round of an engine's newest state.
    pub(super) fn new(changed: Changed, engine: &redb::Database) -> Result<Self, StoreError> {
        Ok(Self { changed, snapshot: engine.begin_read()? })
    }
}

impl fmt::Debug for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round").field("changed", &self.changed.len()).finish_non_exhaustive()
    }
}

/// A copy that has caught up but for the last bit.
#[derive(Debug)]
pub(super) struct FileCopy {
    pub(super) engine: redb::Database,
    /// Of the file that it is to stand for.
    pub(super) path: PathBuf,
}

/// Where a file's copy is made.
pub(super) fn copy_path(path: &Path) -> PathBuf {
    path.with_extension("compact")
}
