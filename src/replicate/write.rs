//! Stage 4: writes what was fetched to the target, as it is (`new_edits:false`).
//!
//! Writing a revision that is there already changes nothing, so every write may be repeated. A write that has begun
//! isn't stopped: it ends within the peer's own limits. A document that the target refuses is counted, noted
//! ([`super::failures`]) and passed over; the rest of its batch is written.

use super::ReplicateError;
use super::batch::Route;
use super::pauses::Pauses;
use super::progress::Counts;
use crate::document::{DocBatch, DocId, Rev};
use crate::peer::{Failure, PeerError, Why};

/// Writes documents without attachments; answers those that the target refused.
pub async fn docs(route: &Route, docs: DocBatch) -> Result<Vec<Failure>, ReplicateError> {
    if docs.is_empty() {
        return Ok(Vec::new());
    }
    let sent = docs.docs().len() as u64;
    let refused = route.target.bulk_docs(docs).await?;
    refused.iter().cloned().for_each(|refused| route.failures.add(refused));
    let failures = refused.len() as u64;
    route.progress.count(Counts {
        docs_written: sent.saturating_sub(failures),
        doc_write_failures: failures,
        ..Counts::default()
    });
    Ok(refused)
}

/// Notes a document that the target isn't even asked to take.
pub fn refused_here(route: &Route, refused: &Failure) {
    route.failures.add(refused.clone());
    route.progress.count(Counts { doc_write_failures: 1, ..Counts::default() });
}

/// What became of a document with attachments.
pub enum Attached {
    /// The target has it.
    Written,
    /// The target doesn't take it.
    Refused(DocId, Rev),
    /// The source doesn't have it any more.
    Unavailable(DocId, Rev),
}

/// Fetches one document with its attachments and writes it, streaming.
///
/// Attachments that the target has, by its own word (`atts_since`), travel as stubs; if it misses one after all (412),
/// everything is sent again. What breaks off on the way is repeated some times.
pub async fn attached(route: &Route, id: DocId, rev: Rev, atts_since: &[Rev]) -> Result<Attached, ReplicateError> {
    let _work = route.progress.pulse().work();
    let _place = route.unless_stopped(route.places.stream()).await?;
    let mut atts_since = atts_since;
    let mut pauses = Pauses::between_tries(route.tries);
    loop {
        let opened = route.source.open_rev(&id, &rev, atts_since, route.budget.nothing(route.progress.pulse()));
        let written = match route.unless_stopped(opened).await? {
            Ok(None) => return Ok(Attached::Unavailable(id, rev)),
            Err(PeerError::TooLong { limit, .. }) => {
                refused_here(route, &Failure::too_large(id.clone(), Some(rev.clone()), limit));
                return Ok(Attached::Refused(id, rev));
            }
            Ok(Some(doc)) => route.target.put_doc(doc).await,
            Err(PeerError::Status { status: 401 | 403, error, reason, .. }) => {
                refused_here(route, &Failure { id: id.clone(), rev: Some(rev.clone()), why: Why { error, reason } });
                return Ok(Attached::Refused(id, rev));
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(None) => {
                route.progress.count(Counts { docs_read: 1, docs_written: 1, ..Counts::default() });
                return Ok(Attached::Written);
            }
            Ok(Some(refused)) => {
                route.failures.add(refused);
                route.progress.count(Counts { docs_read: 1, doc_write_failures: 1, ..Counts::default() });
                return Ok(Attached::Refused(id, rev));
            }
            Err(PeerError::Status { status: 412, .. }) if !atts_since.is_empty() => atts_since = &[],
            Err(error) => route.repeat_after(error.into(), &mut pauses).await?,
        }
    }
}
