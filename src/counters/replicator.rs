//! What all replications of a server count together, as CouchDB's `couch_replicator` counts it.
//!
//! Names and meanings are those of CouchDB 3.5's `[couch_replicator, …]` statistics. What it counts of its own processes
//! (workers, readers, queues and their deaths) has no counterpart here and isn't counted.

use super::Counter;

/// Counted by `peer/remote` and `replicate`; the jobs' by `jobs`.
#[derive(Debug, Default)]
pub struct ReplicatorCounters {
    /// Requests sent to peers, each try for itself.
    pub requests: Counter,
    /// Answers that say something: from 200 to 499, without redirects, 408 and 429.
    pub responses: Counter,
    /// Answers that tell of trouble: 408, and 500 and above.
    pub response_failures: Counter,
    /// Requests that got no answer: no connection, or it broke, or silence. CouchDB doesn't count them.
    pub unanswered: Counter,
    /// Connections made to peers.
    pub connections: Counter,
    /// Requests for a feed that failed with all their tries.
    pub changes_read_failures: Counter,
    /// Checkpoints that were recorded.
    pub checkpoints: Counter,
    /// Checkpoints that couldn't be.
    pub checkpoint_failures: Counter,
    /// Jobs that were added.
    pub jobs_added: Counter,
    /// Jobs that were asked for while they were there.
    pub jobs_added_again: Counter,
    /// Jobs that were removed, or have ended.
    pub jobs_removed: Counter,
    /// Lives of jobs that began.
    pub jobs_started: Counter,
    /// Jobs that somebody paused.
    pub jobs_stopped: Counter,
    /// Lives that ended in an error.
    pub jobs_crashed: Counter,
    /// Documents that were told that their replication is done.
    pub docs_completed: Counter,
    /// Documents that were told that theirs has failed for good.
    pub docs_failed: Counter,
}

impl ReplicatorCounters {
    /// A peer answered with this status.
    pub fn answered(&self, status: u16) {
        match status {
            408 | 500.. => self.response_failures.increment(),
            429 | 300..=399 => {}
            _ => self.responses.increment(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_as_couchdb_counts_them() {
        let counters = ReplicatorCounters::default();
        for status in [200, 201, 404, 413, 302, 429, 408, 500, 503] {
            counters.answered(status);
        }
        assert_eq!((counters.responses.get(), counters.response_failures.get()), (4, 3));
    }
}
