//! What handlers work with.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::answer::Answers;
use super::error::ApiError;
use super::open_requests::RequestPermits;
use super::question::QuestionMemory;
use super::traffic::Traffic;
use crate::accounts::Accounts;
use crate::beside::Callers;
use crate::effort::budget::Budget;
use crate::jobs::Jobs;
use crate::peer::remote::Clients;
use crate::settings::Settings;
use crate::store::Store;
use crate::tasks::Tasks;

/// The CouchDB release whose answers these are, for clients that look before they ask.
pub const COUCHDB_VERSION: &str = "3.5.0";

/// What handlers work with. Every layer of every request clones it, so that is one pointer.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// What stands in it.
pub struct Shared {
    /// Where local databases are, and who people are.
    pub backend: Backend,
    /// The running replications.
    pub jobs: Jobs,
    /// Bytes that request bodies may still take in memory, all together.
    pub bodies: Arc<Semaphore>,
    /// Memory of answers to slow readers.
    pub answers: Answers,
    /// All settings, which may change.
    pub settings: Settings,
    /// The server's uuid.
    pub uuid: String,
    /// Whether it is up.
    pub availability: Availability,
    /// When it was started.
    pub started: Instant,
    /// What is counted of requests and answers.
    pub traffic: Traffic,
    /// Places of open requests.
    pub permits: RequestPermits,
    /// The HTTP clients of replications.
    pub clients: Clients,
    /// The memory of replications.
    pub budget: Budget,
    /// The owner of the tasks that write long answers; they end feeds cleanly when it is told to stop.
    pub tasks: Tasks,
}

/// Where local databases are, and who knows people.
pub enum Backend {
    /// In the embedded store.
    Embedded {
        /// The databases.
        store: Store,
        /// Who may log in.
        accounts: Accounts,
    },
    /// In a CouchDB beside which this server stands.
    CouchDb(Callers),
}

/// Whether a server is up: whether others may send it work. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Availability(Arc<AtomicU8>);

/// What `/_up` says while it isn't.
const STATUSES: [&str; 3] = ["starting", "ok", "stopping"];

impl Availability {
    /// It is up, unless it was told to stop meanwhile.
    pub fn up(&self) {
        // An error says that it isn't starting any more.
        _ = self.0.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It stops, and won't be up again.
    pub fn stops(&self) {
        self.0.store(2, Ordering::Relaxed);
    }

    /// Whether it was told to stop.
    pub fn has_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 2
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }

    /// `starting`, `ok` or `stopping`.
    pub fn status(&self) -> &'static str {
        STATUSES[usize::from(self.0.load(Ordering::Relaxed)) % STATUSES.len()]
    }
}

impl From<Shared> for AppState {
    fn from(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// The databases. Routes that ask for them aren't there beside a CouchDB.
    pub fn store(&self) -> Result<&Store, ApiError> {
        match &self.backend {
            Backend::Embedded { store, .. } => Ok(store),
            Backend::CouchDb(_) => Err(ApiError::NotHere),
        }
    }

    /// Who may log in, likewise.
    pub fn accounts(&self) -> Result<&Accounts, ApiError> {
        match &self.backend {
            Backend::Embedded { accounts, .. } => Ok(accounts),
            Backend::CouchDb(_) => Err(ApiError::NotHere),
        }
    }

    /// The URL of the CouchDB beside which this server stands.
    pub fn couchdb_url(&self) -> Option<&str> {
        match &self.backend {
            Backend::Embedded { .. } => None,
            Backend::CouchDb(callers) => Some(callers.upstream().settings().url.as_str()),
        }
    }

    /// Memory for what is made of questions.
    pub fn question_memory(&self) -> QuestionMemory {
        QuestionMemory::new(Arc::clone(&self.bodies), self.settings.current().http.max_bodies_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_is_not_up_again() {
        let availability = Availability::default();
        assert_eq!((availability.is_up(), availability.status()), (false, "starting"));
        availability.up();
        assert_eq!((availability.is_up(), availability.status()), (true, "ok"));
        availability.stops();
        availability.up();
        assert_eq!((availability.is_up(), availability.status()), (false, "stopping"));
    }
}
