//! Calls that can't be stopped: QuickJS asks its interrupt handler in every loop of a script, but not in all loops of its own
//! library (`[].reverse.call({length: 2 ** 53 - 1})`, a search for a long text in a longer one, huge `BigInt`s).
//!
//! Such a call keeps its thread and a core for as long as it lasts; nothing within the process can change that. What it doesn't
//! keep is its permits: whoever waits for one gives up calls that are [`GRACE`] over their time, and others have their permits.
//! While one lasts, no other call of its design document begins, and none of its database if [`MOST_OF_DATABASE`] of it last. There
//! are [`MOST`] at most: further ones keep their permits, since threads are needed for other things too. A call that ends after
//! all is the last one of its admission, and comes too late to count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How long a call may go on after its time: QuickJS cleans up, and the machine may be busy.
const GRACE: Duration = Duration::from_secs(5);

/// Calls of one database that are given up before none of it begins any more.
const MOST_OF_DATABASE: usize = 4;

/// Calls that are given up, all together.
const MOST: usize = 32;

/// Of which design document a function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The database.
    pub database: Arc<str>,
    /// A hash of the design document.
    pub design: u64,
}

/// What an admission holds, until it ends or a call of it is given up.
pub type Permits = Arc<Mutex<Vec<OwnedSemaphorePermit>>>;

/// The calls that are under way.
#[derive(Debug)]
pub struct Calls {
    grace: Duration,
    /// Never held across an await.
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    /// The number of the next call.
    next: u64,
    calls: HashMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    origin: Origin,
    overdue: Instant,
    permits: Permits,
    given_up: bool,
}

/// A call that is under way, until this is dropped.
pub struct RunningCall<'a> {
    calls: &'a Calls,
    number: u64,
}

impl Calls {
    /// None yet.
    pub fn new() -> Self {
        Self::with_grace(GRACE)
    }

    /// The same, where they are given up so long after their time.
    pub fn with_grace(grace: Duration) -> Self {
        Self { grace, running: Mutex::default() }
    }

    /// A call begins that may take so long; `None` if its admission has lost its permits, or too much of its origin can't be
    /// stopped.
    pub fn begin(&self, origin: &Origin, time: Duration, permits: &Permits) -> Option<RunningCall<'_>> {
        let mut running = self.running();
        let lost = permits.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if lost || running.bars(origin) {
            return None;
        }
        let number = running.next;
        running.next += 1;
        let (origin, permits) = (origin.clone(), permits.clone());
        let overdue = Instant::now() + time + self.grace;
        running.calls.insert(number, Call { origin, overdue, permits, given_up: false });
        Some(RunningCall { calls: self, number })
    }

    /// Takes their permits from calls that should have ended.
    pub fn give_up_overdue(&self) {
        let now = Instant::now();
        let mut running = self.running();
        let room = MOST.saturating_sub(running.calls.values().filter(|call| call.given_up).count());
        let overdue = running.calls.values_mut().filter(|call| !call.given_up && call.overdue <= now);
        for call in overdue.take(room) {
            tracing::error!(
                database = &*call.origin.database,
                "a design document's function can't be stopped: it keeps a thread until it ends or the server does"
            );
            call.given_up = true;
            call.permits.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn bars(&self, origin: &Origin) -> bool {
        let of_database = self.calls.values().filter(|call| call.given_up && call.origin.database == origin.database);
        let (all, same) = of_database.fold((0, false), |(all, same), call| (all + 1, same || call.origin == *origin));
        same || all >= MOST_OF_DATABASE
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.calls.running().calls.remove(&self.number);
    }
}
