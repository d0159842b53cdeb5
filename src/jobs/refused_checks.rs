//! Logins that were refused to whoever checked a replication: servers lock accounts after some, so they aren't tried for ever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gates::Gate;

/// Refusals of a login within [`REFUSED_TIME`] after which it isn't tried any more. CouchDB locks an account after five in five minutes.
const MAX_REFUSED: usize = 3;
const REFUSED_TIME: Duration = Duration::from_secs(300);
/// Logins that are remembered before old ones are forgotten.
const MANY: usize = 1000;

/// When which logins were refused. Guarded by its lock.
#[derive(Default)]
pub struct RefusedChecks(Mutex<HashMap<Gate, Vec<Instant>>>);

impl RefusedChecks {
    /// Whether it may be tried now.
    pub fn may_try(&self, login: &Gate, now: Instant) -> bool {
        self.refusals(login, now).is_none_or(|refusals| refusals < MAX_REFUSED)
    }

    /// It was refused.
    pub fn note(&self, login: Gate, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MANY {
            all.retain(|_, times| times.iter().any(|time| now < *time + REFUSED_TIME));
        }
        all.entry(login).or_default().push(now);
    }

    /// How many there were lately, if there were any.
    fn refusals(&self, login: &Gate, now: Instant) -> Option<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = all.get_mut(login)?;
        times.retain(|time| now < *time + REFUSED_TIME);
        Some(times.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_was_refused_three_times_is_left_alone_for_a_while() {
        let (refused, now, second) = (RefusedChecks::default(), Instant::now(), Duration::from_secs(1));
        let [ann, bob] = ["ann", "bob"].map(|user| Gate::login("http://h", None, user, None));
        for n in 0..3 {
            assert!(refused.may_try(&ann, now + n * second));
            refused.note(ann, now + n * second);
        }
        assert!(!refused.may_try(&ann, now + 299 * second) && refused.may_try(&bob, now));
        assert!(refused.may_try(&ann, now + 300 * second));
    }
}
