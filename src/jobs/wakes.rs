//! Tells parked jobs of changes at their sources.
//!
//! One feed tells of all databases of a server: the store's own ([`local`]), or `_db_updates` over HTTP. A job
//! is watched for from before its first life until it is gone, whether it is parked or not: so there is no moment at which a
//! change could be told to nobody. What a wake means for a job, [`super::schedule`] decides.
//!
//! Whoever writes here promises: after a change of a watched database its jobs are woken, some time; and if the database was made
//! anew, they are told to forget where they were.

mod local;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::schedule::Number;
use crate::databases::Databases;
use crate::endpoint::Endpoint;
use crate::store::DbName;
use crate::tasks::Tasks;

/// What a feed tells of a job's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There is, or may be, a change.
    Changed,
    /// It may be another database by now.
    MadeAnew,
}

/// Who is told.
pub type Woken = Arc<dyn Fn(Number, Wake) + Send + Sync>;

/// Watches databases for jobs. Cheap to clone.
#[derive(Clone)]
pub struct Wakes {
    watched: Arc<Mutex<Watched>>,
    woken: Woken,
}

/// Which jobs are told of which databases.
#[derive(Default)]
struct Watched {
    local: HashMap<DbName, HashSet<Number>>,
}

impl Wakes {
    /// Nothing is watched yet.
    pub fn new(woken: Woken) -> Self {
        Self { watched: Arc::default(), woken }
    }

    /// Begins to listen to the store.
    pub fn listen(&self, databases: &Databases, tasks: &Tasks) {
        if let Some(updates) = databases.updates() {
            let (wakes, stop) = (self.clone(), tasks.stopping().clone());
            // Jobs come later, and read what is there.
            let since = updates.seq();
            drop(tasks.spawn("wake jobs of local databases", local::listen(wakes, (updates, since), stop)));
        }
    }

    /// From now on a job is told of its source.
    pub fn watch(&self, job: Number, source: &Endpoint) {
        if let Endpoint::Local(name) = source {
            self.watched().local.entry(name.clone()).or_default().insert(job);
        }
    }

    /// Whether jobs of this source are told of its changes.
    pub fn tells(&self, source: &Endpoint) -> bool {
        matches!(source, Endpoint::Local(_))
    }

    /// A job is gone.
    pub fn unwatch(&self, job: Number, source: &Endpoint) {
        if let Endpoint::Local(name) = source {
            let mut watched = self.watched();
            let Some(jobs) = watched.local.get_mut(name) else { return };
            jobs.remove(&job);
            if jobs.is_empty() {
                watched.local.remove(name);
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the jobs of a local database.
    fn wake_local(&self, name: &DbName, wake: Wake) {
        let jobs: Vec<_> = self.watched().local.get(name).into_iter().flatten().copied().collect();
        jobs.into_iter().for_each(|job| (self.woken)(job, wake));
    }
}
