//! Signs of life of one job, by which getting on is told from standing still.
//!
//! Every wait for a peer has a limit of its own, but a peer that sends a byte within each of them keeps them all and
//! gets nowhere. So what counts here is an amount: the bytes that moved, and events, each worth [`EVENT`] bytes: an
//! answer's head, a heartbeat of the waiting feed, work done. A job that waits for a change in the embedded store
//! rests, which no limit ends.
//!
//! [`Pulse::failed`] is the watchdog: it notices a standstill within one to two limits, and costs one timer a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that an event counts for, and the least that a limit's time has to bring.
const EVENT: u64 = 64 << 10;

/// Signs of life of one job. Clones are the same pulse.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    signs: Arc<Signs>,
}

#[derive(Debug, Default)]
struct Signs {
    amount: AtomicU64,
    resting: AtomicUsize,
}

/// A job rests until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Rest(Pulse);

impl Pulse {
    /// Something happened that doesn't happen to a job that hangs.
    pub fn beat(&self) {
        self.signs.amount.fetch_add(EVENT, Ordering::Relaxed);
    }

    /// So many bytes came or went.
    pub fn moved(&self, bytes: usize) {
        self.signs.amount.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Nothing is to be done, and nothing stands between the job and its next change.
    pub fn rest(&self) -> Rest {
        self.signs.resting.fetch_add(1, Ordering::Relaxed);
        Rest(self.clone())
    }

    /// Ends when a whole `limit` has brought less than an event.
    pub async fn failed(&self, limit: Duration) {
        loop {
            let before = self.amount();
            tokio::time::sleep(limit).await;
            if self.stood_still_since(before) {
                return;
            }
        }
    }

    fn amount(&self) -> u64 {
        self.signs.amount.load(Ordering::Relaxed)
    }

    fn stood_still_since(&self, before: u64) -> bool {
        self.signs.resting.load(Ordering::Relaxed) == 0 && self.amount() - before < EVENT
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.beat();
        self.0.signs.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_standstill_is_noticed() {
        Pulse::default().failed(Duration::from_millis(1)).await;
    }

    #[test]
    fn a_drip_of_single_bytes_is_a_standstill_and_a_slow_line_is_not() {
        let pulse = Pulse::default();
        (0..900).for_each(|_| pulse.moved(1));
        assert!(pulse.stood_still_since(0));
        (0..900).for_each(|_| pulse.moved(100));
        assert!(!pulse.stood_still_since(0));
    }

    #[test]
    fn one_event_is_life_and_an_old_one_is_not() {
        let pulse = Pulse::default();
        pulse.beat();
        assert!(!pulse.stood_still_since(0));
        assert!(pulse.stood_still_since(pulse.amount()));
    }

    #[test]
    fn a_job_that_rests_lives_and_its_time_begins_when_it_wakes() {
        let pulse = Pulse::default();
        let rest = pulse.rest();
        assert!(!pulse.stood_still_since(0));
        drop(rest);
        assert!(!pulse.stood_still_since(0));
        assert!(pulse.stood_still_since(pulse.amount()));
    }
}
