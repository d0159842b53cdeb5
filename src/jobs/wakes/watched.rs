//! Which jobs are told of which databases.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::jobs::schedule::Number;
use crate::store::DbName;

/// What a feed tells of a job's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// There is, or may be, a change.
    Changed,
    /// It may be another database by now.
    MadeAnew,
}

/// Who is told, of all that is known at once.
pub type Woken = Arc<dyn Fn(Vec<(Number, Wake)>) + Send + Sync>;

/// A database that jobs are told of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchedDatabase {
    /// One of the store.
    Local(DbName),
    /// One of another server, as it is reached with certain credentials.
    Remote(HubKey, Box<str>),
}

/// A server, credentials and a way to it; and whether that is a user's, who may be redirected to less than an admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HubKey {
    /// Of the server as it is reached.
    pub endpoint: [u8; 16],
    /// Whether the policy is that of users, and another one than that of admins.
    pub is_narrow: bool,
    /// Whether it is the CouchDB beside which this server stands, which no rule keeps from anybody.
    pub is_beside: bool,
}

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

    /// Tells the jobs of databases, each once: a server may say the same very often.
    pub fn wake(&self, databases: impl IntoIterator<Item = (WatchedDatabase, Wake)>) {
        let mut strongest: HashMap<WatchedDatabase, Wake> = HashMap::new();
        for (database, wake) in databases {
            let told = strongest.entry(database).or_insert(wake);
            *told = wake.max(*told);
        }
        let woken: Vec<_> = {
            let jobs = self.jobs();
            let of_database = |(database, wake)| jobs.get(&database).into_iter().flatten().map(move |job| (*job, wake));
            strongest.into_iter().flat_map(of_database).collect()
        };
        if !woken.is_empty() {
            (self.woken)(woken);
        }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<WatchedDatabase, HashSet<Number>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_often_something_is_told_each_job_is_woken_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hearing = told.clone();
        let watched = Watched::new(Arc::new(move |mut woken| {
            woken.sort();
            hearing.lock().unwrap().push(woken);
        }));
        let key = HubKey { endpoint: [0; 16], is_narrow: false, is_beside: false };
        let database = |name: &str| WatchedDatabase::Remote(key, name.into());
        for (job, name) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            watched.add(job, database(name));
        }
        let mut rows = vec![(database("a"), Wake::Changed); 1000];
        rows.push((database("b"), Wake::MadeAnew));
        rows.extend(vec![(database("b"), Wake::Changed); 1000]);
        rows.push((database("nobody's"), Wake::MadeAnew));
        watched.wake(rows);
        watched.wake([(database("nobody's"), Wake::Changed)]);
        let expected = vec![(1, Wake::Changed), (2, Wake::Changed), (3, Wake::MadeAnew)];
        assert_eq!(*told.lock().unwrap(), [expected]);
    }
}
