//! Tells parked jobs of changes at their sources.
//!
//! One feed tells of all databases of a server: the store's own ([`local`]), or `_db_updates` over HTTP. A job
//! is watched for from before its first life until it is gone, whether it is parked or not: so there is no moment at which a
//! change could be told to nobody. What a wake means for a job, [`super::schedule`] decides.
//!
//! Whoever writes here promises: after a change of a watched database its jobs are woken, some time; and if the database was made
//! anew, they are told to forget where they were.

mod watched;
mod local;

use self::watched::{Watched, WatchedDatabase, Woken};
use super::schedule::Number;
use crate::databases::Databases;
use crate::endpoint::Endpoint;
use crate::tasks::Tasks;

pub use self::watched::Wake;

/// Watches databases for jobs. Cheap to clone.
#[derive(Clone)]
pub struct Wakes {
    watched: Watched,
}

impl Wakes {
    /// Nothing is watched yet.
    pub fn new(woken: Woken) -> Self {
        Self { watched: Watched::new(woken) }
    }

    /// Begins to listen to the store.
    pub fn listen(&self, databases: &Databases, tasks: &Tasks) {
        if let Some(updates) = databases.updates() {
            let (watched, stop) = (self.watched.clone(), tasks.stopping().clone());
            // Jobs come later, and read what is there.
            let since = updates.seq();
            drop(tasks.spawn("wake jobs of local databases", local::listen(watched, (updates, since), stop)));
        }
    }

    /// From now on a job is told of its source.
    pub fn watch(&self, job: Number, source: &Endpoint) {
        if let Endpoint::Local(name) = source {
            self.watched.add(job, WatchedDatabase::Local(name.clone()));
        }
    }

    /// Whether jobs of this source are told of its changes.
    pub fn tells(&self, source: &Endpoint) -> bool {
        matches!(source, Endpoint::Local(_))
    }

    /// A job is gone.
    pub fn unwatch(&self, job: Number, source: &Endpoint) {
        if let Endpoint::Local(name) = source {
            self.watched.remove(job, &WatchedDatabase::Local(name.clone()));
        }
    }
}
