//! Calls that can't be stopped: QuickJS asks its interrupt handler in every loop of a script, but not in all loops of its own
//! library (`[].reverse.call({length: 2 ** 53 - 1})`, a search for a long text in a longer one, huge `BigInt`s).
//!
//! Such a call keeps its thread and a core for as long as it lasts; nothing within the process can change that. What it doesn't
//! keep is its place: whoever waits for one gives up calls that are [`GRACE`] over their time, and their places are free again.
//! While one lasts, no function of its database runs, so that whoever may write one database's design documents takes as many
//! threads as there are places, once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How long a call may go on after its time: QuickJS cleans up, and the machine may be busy.
const GRACE: Duration = Duration::from_secs(5);

/// Places that a call gives back when it ends, or that are taken from it.
pub type Places = Arc<Mutex<Vec<OwnedSemaphorePermit>>>;

/// The calls that are under way.
#[derive(Debug)]
pub struct Calls {
    grace: Duration,
    /// Never held across an await.
    calls: Mutex<HashMap<u64, Call>>,
}

#[derive(Debug)]
struct Call {
    database: Arc<str>,
    overdue: Instant,
    places: Places,
    given_up: bool,
}

/// A call that is under way, until this is dropped.
pub struct Started<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Self { grace: GRACE, calls: Mutex::default() }
    }
}

impl Calls {
    /// Calls that are given up after so long.
    #[cfg(test)]
    pub fn with_grace(grace: Duration) -> Self {
        Self { grace, ..Self::default() }
    }

    /// A call begins that may take so long.
    pub fn begin(&self, database: &Arc<str>, time: Duration, places: &Places) -> Started<'_> {
        let mut calls = self.calls();
        let id = calls.keys().max().map_or(0, |id| id + 1);
        let overdue = Instant::now() + time + self.grace;
        calls.insert(id, Call { database: database.clone(), overdue, places: places.clone(), given_up: false });
        Started { calls: self, id }
    }

    /// Takes their places from calls that should have ended.
    pub fn give_up_overdue(&self) {
        let now = Instant::now();
        for call in self.calls().values_mut().filter(|call| !call.given_up && call.overdue <= now) {
            tracing::error!(
                database = &*call.database,
                "a design document's function can't be stopped: it keeps a thread until it ends or the server does"
            );
            call.given_up = true;
            call.places.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Whether a call of this database goes on that can't be stopped.
    pub fn is_barred(&self, database: &str) -> bool {
        self.calls().values().any(|call| call.given_up && *call.database == *database)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        self.calls.calls().remove(&self.id);
    }
}
