//! Documents that didn't get to the target: how a job collects them, where they are kept, how they go.
//!
//! A document that its target refuses, or that its source announces and can't give, is passed over, so that the others
//! may go on; for that it must not be forgotten. So a job collects them ([`FailureLog`]) and keeps them
//! ([`FailureList::keep`]) before each checkpoint, and whenever many have been collected. What a crash takes was not
//! passed by a checkpoint, and is met again.
//!
//! **Where.** In `_local` documents of the source, beside the checkpoint: they outlive this process and this machine,
//! whoever replicates the same thing finds them, and whoever may read them may read the source. If the source takes none
//! (a read-only user, a proxy) or is to get none (`use_checkpoints:false`), in files under the data dir, or under the state
//! dir of a command. If nothing takes them, no checkpoint passes them: the replication fails, and its next life meets
//! them again. Without checkpoints nothing is passed: then they are counted, and the newest are shown.
//!
//! **In what form.** A list is a set of pages ([`page`]), each smaller than any limit for documents. CouchDB from 2 on checks
//! no revision of `_local` documents: the last writer wins. So a page has a name that nobody else makes, is
//! written once and never changed; an entry goes when a page without it has been written and the old page is removed.
//! Two processes that work on one list can bring an entry back, which the next review sees; they can't lose one. Which
//! pages there are is told by an index, `_local/{base id}-failures`, and by `_local_docs`: two processes may write the
//! index at the same time, and a node that was down may not know a page; both at once is what it takes to overlook one.
//! Sources without `_local_docs` (CouchDB 1, PouchDB) do check revisions, so that the index alone suffices there.
//!
//! **How they go.** A [`Review`] reads page after page. A [`sweep`] asks the target which of the revisions it lacks by now;
//! that happens after every one-shot, and now and then in a continuous replication. `retry_failures` copies them
//! ([`super::documents::copy_failed`]). Nothing is struck out before the target has made durable what it got.
//!
//! An entry may be there twice: a job that was killed meets its failures again. Reviews make it one. Memory is bounded:
//! a log by [`log::FULL_BYTES`] and the batches under way, everything else by a page or two.
//!
//! [`sweep`]: sweep::sweep

pub mod log;
pub mod page;
pub mod storage;
pub mod list;
pub mod review;
pub mod sweep;
pub mod files;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::{DocId, Rev, Seq};
use crate::peer::{Change, Failure, Why};

pub use self::files::FailureFiles;
pub use self::list::FailureList;
pub use self::log::FailureLog;
pub use self::review::Review;

/// A failure as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedFailure {
    /// What failed; the peer's words are shortened.
    #[serde(flatten)]
    pub failure: Failure,
    /// When, as RFC 3339 in UTC.
    pub time: String,
}

/// Characters kept of a peer's words.
const MAX_WORDS: usize = 500;

/// The first of these words.
fn short(mut words: String) -> String {
    if let Some((end, _)) = words.char_indices().nth(MAX_WORDS) {
        words.truncate(end);
        words.shrink_to_fit();
    }
    words
}

impl RecordedFailure {
    /// The same, in few words: a peer's may be long, and a page is what others wrote.
    fn shortened(self) -> Self {
        let Failure { id, rev, why: Why { error, reason } } = self.failure;
        let why = Why { error: short(error), reason: short(reason) };
        Self { failure: Failure { id, rev, why }, time: short(self.time) }
    }

    /// Bytes that it takes, about.
    fn size(&self) -> usize {
        const AROUND: usize = 128;
        let Failure { id, rev, why } = &self.failure;
        let rev = rev.as_ref().map_or(0, |rev| rev.hash.as_bytes().len());
        id.as_str().len() + rev + why.error.len() + why.reason.len() + AROUND
    }
}

/// Failed revisions, those of one document together, and documents of which nobody named the revision.
pub fn by_document(failed: &[RecordedFailure]) -> (Vec<Change>, Vec<DocId>) {
    let mut named: BTreeMap<&DocId, Vec<Rev>> = BTreeMap::new();
    let mut unnamed = Vec::new();
    for RecordedFailure { failure, .. } in failed {
        match &failure.rev {
            Some(rev) => named.entry(&failure.id).or_default().push(rev.clone()),
            None => unnamed.push(failure.id.clone()),
        }
    }
    let change = |(id, revs): (&DocId, Vec<Rev>)| Change { seq: Seq::zero(), id: id.clone(), revs };
    (named.into_iter().map(change).collect(), unnamed)
}

#[cfg(test)]
mod tests;
