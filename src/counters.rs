//! What is counted while a server works, for whoever watches it (`http/metrics.rs`).
//!
//! A number belongs to the room that counts it: logins to `accounts`, commits to `store`, requests to `http`. Those of
//! replications are counted by several rooms, so they stand here: [`ReplicatorCounters`]. A server has its own, and nothing
//! is global, since tests run many servers in one process. Counting is one atomic addition; nothing waits, and nothing here
//! knows in which form the numbers are shown.

mod replicator;
mod job;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::job::JobFigures;
pub use self::replicator::ReplicatorCounters;

/// How often something happened.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// It happened once more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// It happened so many times more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something now. Clones are the same gauge.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

/// One of them, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Counted(Gauge);

impl Gauge {
    /// There is one more.
    pub fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_counted_any_more() {
        let gauge = Gauge::default();
        let (one, other) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(other);
        assert_eq!(gauge.get(), 0);
    }
}
