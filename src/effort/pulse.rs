//! Signs of life of one job, by which getting on is told from standing still.
//!
//! Every wait for a peer has a limit of its own, but a peer that sends a byte within each of them keeps them all and
//! gets nowhere. So what counts here is an amount: the bytes that moved, and events, each worth [`EVENT`] bytes: an
//! answer's head, a heartbeat of the waiting feed, work done.
//!
//! A job does several things at once, and one that hangs mustn't hide behind one that may wait. So a waiting feed
//! ([`Pulse::idle`], [`Pulse::waits`]) is a sign of life only while nothing is at work ([`Pulse::work`]), and waiting for
//! memory, or for a place among our own requests ([`Pulse::rest`]), only while everything at work waits so.
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
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    amount: AtomicU64,
    at_work: AtomicUsize,
    resting: AtomicUsize,
    idle: AtomicUsize,
    /// Without events.
    bytes: AtomicU64,
}

/// Something is at work until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Work(Pulse);

/// What is at work rests until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Rest(Pulse);

/// The feed waits until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Idle(Pulse);

impl Pulse {
    /// Something happened that doesn't happen to a job that hangs.
    pub fn beat(&self) {
        self.counters.amount.fetch_add(EVENT, Ordering::Relaxed);
    }

    /// So many bytes came or went.
    pub fn moved(&self, bytes: usize) {
        self.counters.amount.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sent(bytes);
    }

    /// So many bytes are sent in one go, which is no sign of life before they are answered.
    pub fn sent(&self, bytes: usize) {
        self.counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes came and went so far.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }

    /// The source let the feed wait on, which says nothing of what is at work.
    pub fn waits(&self) {
        if self.counters.at_work.load(Ordering::Relaxed) == 0 {
            self.beat();
        }
    }

    /// Something is at work that does one thing after the other, and rests itself at most once at a time.
    pub fn work(&self) -> Work {
        self.counters.at_work.fetch_add(1, Ordering::Relaxed);
        Work(self.clone())
    }

    /// What is at work waits for memory, or for other requests of ours, which isn't its own doing.
    pub fn rest(&self) -> Rest {
        self.counters.resting.fetch_add(1, Ordering::Relaxed);
        Rest(self.clone())
    }

    /// The feed waits for a change in the embedded store, or for what is at work to need its next page.
    pub fn idle(&self) -> Idle {
        self.counters.idle.fetch_add(1, Ordering::Relaxed);
        Idle(self.clone())
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
        self.counters.amount.load(Ordering::Relaxed)
    }

    fn stood_still_since(&self, before: u64) -> bool {
        let [at_work, resting, idle] = [&self.counters.at_work, &self.counters.resting, &self.counters.idle]
            .map(|count| count.load(Ordering::Relaxed));
        let may_wait = resting + idle > 0 && at_work <= resting;
        !may_wait && self.amount() - before < EVENT
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.counters.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.beat();
        self.0.counters.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.beat();
        self.0.counters.idle.fetch_sub(1, Ordering::Relaxed);
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

    /// A batch whose target dripped was never ended once the feed had caught up: the feed's waiting counted as life. Nor
    /// where other batches of the same job waited for the memory that it held.
    #[test]
    fn what_hangs_does_not_hide_behind_what_waits() {
        let pulse = Pulse::default();
        let (_hangs, _idle) = (pulse.work(), pulse.idle());
        (0..9).for_each(|_| pulse.waits());
        assert!(pulse.stood_still_since(0));
        let (_other, _rest) = (pulse.work(), pulse.rest());
        assert!(pulse.stood_still_since(0));
    }

    #[test]
    fn a_job_lives_while_all_that_is_at_work_waits_for_memory() {
        let pulse = Pulse::default();
        let (_one, _rest) = (pulse.work(), pulse.rest());
        assert!(!pulse.stood_still_since(0));
        let other = pulse.work();
        assert!(pulse.stood_still_since(0));
        drop(other);
        assert!(!pulse.stood_still_since(0));
    }

    #[test]
    fn a_feed_that_waits_is_life_while_nothing_is_at_work() {
        let pulse = Pulse::default();
        pulse.waits();
        assert!(!pulse.stood_still_since(0));
        let _idle = pulse.idle();
        assert!(!pulse.stood_still_since(pulse.amount()));
    }
}
