//! Pauses before something is tried again.
//!
//! Each is twice as long as the one before, up to a longest, and jittered by a quarter either way: what failed together
//! isn't tried again together. What is tried again, and how often, others decide: a remote peer for single requests,
//! whoever knows what is still needed for an answer that broke off while it was being read.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Before the second try of what broke off.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Growing, jittered pauses.
#[derive(Debug)]
pub struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Pauses without end.
    pub fn growing(first: Duration, longest: Duration) -> Self {
        Self(growing(first, longest).without_max_times().build())
    }

    /// Those between so many tries of what broke off, the first try included.
    pub fn between_tries(tries: u32) -> Self {
        Self(growing(FIRST_PAUSE, LONGEST_PAUSE).with_max_times(tries.saturating_sub(1) as usize).build())
    }
}

fn growing(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).with_factor(2.0)
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(jittered)
    }
}

/// The pause, a quarter longer or shorter.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_pause_less_than_tries() {
        assert_eq!(Pauses::between_tries(10).count(), 9);
        assert_eq!(Pauses::between_tries(0).count(), 0);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(5), Duration::from_secs(600));
        for (pause, doubled) in Pauses::growing(first, longest).zip(0..20) {
            let even = (first * 2u32.pow(doubled)).min(longest);
            assert!((even.mul_f64(0.75)..=even.mul_f64(1.25)).contains(&pause), "{pause:?} for {even:?}");
        }
    }
}
