//! Which jobs are told of which databases.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::jobs::schedule::Number;
use crate::store::DbName;

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

/// A database that jobs are told of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchedDatabase {
    /// One of the store.
    Local(DbName),
    /// One of another server, as it is reached with certain credentials.
    Remote(HubKey, Box<str>),
}

/// A server, credentials and a way to it.
pub type HubKey = [u8; 16];

/// Which jobs are told of which databases. Cheap to clone.
#[derive(Clone)]
pub struct Watched {
    /// Held for a look at it only.
    jobs: Arc<Mutex<HashMap<WatchedDatabase, HashSet<Number>>>>,
    woken: Woken,
}

impl Watched {
    /// None yet.
    pub fn new(woken: Woken) -> Self {
        Self { jobs: Arc::default(), woken }
    }

    /// A job is told of this database from now on.
    pub fn add(&self, job: Number, database: WatchedDatabase) {
        self.jobs().entry(database).or_default().insert(job);
    }

    /// It isn't any more; answers whether it was.
    pub fn remove(&self, job: Number, database: &WatchedDatabase) -> bool {
        let mut jobs = self.jobs();
        let Some(of_database) = jobs.get_mut(database) else { return false };
        let was = of_database.remove(&job);
        if of_database.is_empty() {
            jobs.remove(database);
        }
        was
    }

    /// The databases of a server that jobs are told of.
    pub fn names(&self, key: HubKey) -> Vec<String> {
        let of_server = |database: &WatchedDatabase| match database {
            WatchedDatabase::Remote(hub, name) if *hub == key => Some(name.to_string()),
            _ => None,
        };
        self.jobs().keys().filter_map(of_server).collect()
    }

    /// Tells the jobs of a database.
    pub fn wake(&self, database: &WatchedDatabase, wake: Wake) {
        let jobs: Vec<_> = self.jobs().get(database).into_iter().flatten().copied().collect();
        jobs.into_iter().for_each(|job| (self.woken)(job, wake));
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<WatchedDatabase, HashSet<Number>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
