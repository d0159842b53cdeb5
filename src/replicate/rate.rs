//! How fast a counter grows: its growth over the last seconds.
//!
//! Needs no timer: samples are taken where the counter grows, at most one every [`STEP`], and the question compares now
//! with the last sample before the window, so a counter that stands still is seen to.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(500);

/// Samples of one counter.
#[derive(Debug)]
pub struct Rate {
    /// The oldest first: one from before the window, the others within it.
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { samples: Mutex::new(VecDeque::from([(Instant::now(), 0)])) }
    }
}

impl Rate {
    /// Takes note of the counter as it is `now`, unless that was done just before.
    pub fn sample(&self, now: Instant, count: u64) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_some_and(|(time, _)| now.duration_since(*time) < STEP) {
            return;
        }
        samples.push_back((now, count));
        while samples.get(1).is_some_and(|(time, _)| now.duration_since(*time) >= WINDOW) {
            samples.pop_front();
        }
    }

    /// Growth a second; `None` in the first second, of which nothing can be said yet.
    pub fn per_second(&self, now: Instant, count: u64) -> Option<f64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let before_window = samples.iter().rev().find(|(time, _)| now.duration_since(*time) >= WINDOW);
        let (time, then) = before_window.or(samples.front())?;
        let elapsed = now.duration_since(*time).as_secs_f64();
        (elapsed >= 1.0).then(|| count.saturating_sub(*then) as f64 / elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.per_second(start, 100), None);
        (1..=60).for_each(|second| rate.sample(at(second), 200 * second));
        assert_eq!(rate.per_second(at(60), 12_000), Some(200.0));
        assert_eq!(rate.per_second(at(65), 12_000), Some(100.0));
        assert_eq!(rate.per_second(at(75), 12_000), Some(0.0));
    }
}
