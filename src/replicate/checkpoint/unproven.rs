//! Checkpoints that were written, and not yet seen to be in the database that they vouch for.
//!
//! A database that was made anew just before the write has a checkpoint that it doesn't deserve, and one that can't be asked after the
//! write may be such a one. So from before the write until that is settled, in whichever life of whichever job, it is remembered when the
//! database was made that the checkpoint vouches for: one that was made at another time isn't believed. Goes with this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::replicate::loss::same_life;

/// So many are remembered: each is of a peer that took a checkpoint and couldn't be asked after it.
const MOST: usize = 10_000;

/// All of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct UnprovenLogs {
    /// `instance_start_time`s, by the log's id and whether it is the source's.
    times: Arc<Mutex<HashMap<(String, bool), String>>>,
}

impl UnprovenLogs {
    /// A log is about to be written to a database that was made then. What isn't settled stays: the log that it is about may still be there.
    pub(super) fn add(&self, id: &str, is_source: bool, time: &str) {
        let mut times = self.times();
        if times.len() < MOST {
            times.entry((id.to_owned(), is_source)).or_insert_with(|| time.to_owned());
        }
    }

    /// It has been seen to be in the right one, or was taken back.
    pub(super) fn settle(&self, id: &str, is_source: bool) {
        self.times().remove(&(id.to_owned(), is_source));
    }

    /// Whether a log may be in a database that doesn't deserve it, if this is when that was made.
    pub(super) fn is_unproven(&self, id: &str, is_source: bool, time: &str) -> bool {
        let times = self.times();
        times.get(&(id.to_owned(), is_source)).is_some_and(|vouched_for| !same_life(vouched_for, time))
    }

    fn times(&self) -> MutexGuard<'_, HashMap<(String, bool), String>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next try to record a checkpoint made the log of an earlier one look as if it were where it belongs.
    #[test]
    fn a_log_stays_unproven_until_it_is_settled_however_often_one_is_written() {
        let unproven = UnprovenLogs::default();
        assert!(!unproven.is_unproven("id", false, "2"));
        for time in ["1", "2"] {
            unproven.add("id", false, time);
        }
        assert!(unproven.is_unproven("id", false, "2") && !unproven.is_unproven("id", false, "1"));
        assert!(!unproven.is_unproven("id", true, "2") && !unproven.is_unproven("other", false, "2"));
        assert!(!unproven.is_unproven("id", false, "0"), "it doesn't tell");
        unproven.settle("id", false);
        assert!(!unproven.is_unproven("id", false, "2"));
    }
}
