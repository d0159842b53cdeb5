//! Pauses between tries of what broke off halfway.
//!
//! A peer repeats single requests by itself (`retry`); an answer that breaks off while it is being read can
//! only be asked for again by whoever knows what of it is still needed. These are the pauses for that.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Pauses for so many tries, the first try included: growing, jittered.
pub fn pauses(tries: u32) -> ExponentialBackoff {
    let times = tries.saturating_sub(1) as usize;
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(times)
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_one_pause_less_than_tries() {
        assert_eq!(super::pauses(10).count(), 9);
        assert_eq!(super::pauses(0).count(), 0);
    }
}
