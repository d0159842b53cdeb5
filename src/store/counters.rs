//! What all databases of a store count together.

use super::work::Done;
use crate::counters::Counter;

/// Counted since the store was opened.
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Transactions that were synced when they were answered.
    pub synced_commits: Counter,
    /// Transactions that weren't yet.
    pub unsynced_commits: Counter,
    /// Documents that were written, deletions among them.
    pub document_writes: Counter,
    /// The same of `_local` documents.
    pub local_document_writes: Counter,
}

impl StoreCounters {
    /// A transaction was committed.
    pub(super) fn committed(&self, synced: bool) {
        if synced { self.synced_commits.increment() } else { self.unsynced_commits.increment() }
    }

    /// This was done in it.
    pub(super) fn wrote(&self, done: &Done) {
        match done {
            Done::Written(documents) => {
                self.document_writes.add(documents.iter().filter(|written| written.is_ok()).count() as u64);
            }
            Done::Local(Ok(_)) => self.local_document_writes.increment(),
            _ => {}
        }
    }
}
