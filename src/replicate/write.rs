//! Stage 4: writes what was fetched to the target, as it is (`new_edits:false`).
//!
//! Writing a revision that is there already changes nothing, so every write may be repeated. A write that has begun
//! isn't stopped: it ends within the peer's own limits. A document that the target refuses is passed over; the rest of its
//! batch is written. To note what was refused, and to settle what is in doubt, is the caller's: it may have seen either before.

use std::collections::HashSet;

use super::ReplicateError;
use super::life::Life;
use super::progress::Counts;
use crate::document::{DocBatch, DocId, Rev};
use crate::peer::{Blame, Doubt, Failure, Opened, PeerError, Put, Why, Written};

/// Writes documents without attachments; answers those that the target didn't take.
pub async fn docs(life: &Life, docs: DocBatch) -> Result<Written, ReplicateError> {
    if docs.is_empty() {
        return Ok(Written::default());
    }
    let names = names(&docs);
    Ok(taken(life, names, life.target.bulk_docs(docs)).await?.1)
}

/// Writes documents with small attachments within them; answers those that the target took. Why it didn't take another, it
/// is asked in the other way ([`attached`]).
pub async fn inline(life: &Life, docs: DocBatch) -> Result<Vec<(DocId, Rev)>, ReplicateError> {
    if docs.is_empty() {
        return Ok(Vec::new());
    }
    let names = names(&docs);
    Ok(taken(life, names, life.target.bulk_docs_inline(docs)).await?.0)
}

fn names(docs: &DocBatch) -> Vec<(DocId, Rev)> {
    docs.docs().iter().map(|doc| (doc.id.clone(), doc.rev.clone())).collect()
}

/// Writes and counts; answers what the target took, and what it said of the rest.
async fn taken(
    life: &Life,
    mut names: Vec<(DocId, Rev)>,
    writing: impl Future<Output = Result<Written, PeerError>>,
) -> Result<(Vec<(DocId, Rev)>, Written), ReplicateError> {
    let written = writing.await?;
    let lacking = written.refused.iter().chain(written.doubtful.iter().map(|doubt| &doubt.failure));
    let lacking: HashSet<_> = lacking.map(|failure| (&failure.id, failure.rev.as_ref())).collect();
    names.retain(|(id, rev)| !lacking.contains(&(id, Some(rev))) && !lacking.contains(&(id, None)));
    let copied = names.len() as u64;
    life.progress.copied(copied, names.last().cloned());
    life.progress.count(Counts { docs_read: copied, docs_written: copied, ..Counts::default() });
    Ok((names, written))
}

/// What became of a document with attachments.
pub enum Attached {
    /// The target has it.
    Written,
    /// It won't get there.
    Refused {
        /// Why.
        failure: Failure,
        /// The source gave it.
        read: bool,
    },
    /// It didn't get there this time.
    Doubtful(Doubt),
}

/// Fetches one document with its attachments and writes it, streaming.
///
/// Attachments that the target has, by its own word (`atts_since`), travel as stubs; if it misses one after all,
/// everything is sent again. A side that says that we may not is asked once more, since our rights may be back by now.
pub async fn attached(life: &Life, id: DocId, rev: Rev, atts_since: &[Rev]) -> Result<Attached, ReplicateError> {
    let _work = life.progress.pulse().work();
    let _place = life.unless_stopped(life.places.stream()).await?;
    let mut atts_since = atts_since;
    let mut forbidden_before = false;
    loop {
        let opened = life.source.open_rev(&id, &rev, atts_since, life.budget.nothing(life.progress.pulse()));
        let put = match life.unless_stopped(opened).await? {
            Ok(Opened::Doc(doc)) => life.target.put_doc(doc).await,
            Ok(Opened::Missing) => return Ok(Attached::Doubtful(Doubt::missing(id, rev))),
            Ok(Opened::Forbidden(why)) => return Ok(refused(id, rev, why, false)),
            Err(PeerError::TooLong { limit, .. }) => {
                return Ok(Attached::Refused { failure: Failure::too_large(id, Some(rev), limit), read: false });
            }
            Err(error) => Err(error),
        };
        match put {
            Ok(Put::Written) => {
                life.progress.copied_attached(id, rev);
                life.progress.count(Counts { docs_read: 1, docs_written: 1, ..Counts::default() });
                return Ok(Attached::Written);
            }
            Ok(Put::Refused(why)) => return Ok(refused(id, rev, why, true)),
            Ok(Put::Forbidden(why)) if forbidden_before => return Ok(refused(id, rev, why, true)),
            Ok(Put::Forbidden(_)) => forbidden_before = true,
            Err(PeerError::MissingStub { .. }) if !atts_since.is_empty() => atts_since = &[],
            Err(error) => return in_doubt(id, rev, error),
        }
    }
}

fn refused(id: DocId, rev: Rev, why: Why, read: bool) -> Attached {
    Attached::Refused { failure: Failure { id, rev: Some(rev), why }, read }
}

/// Leaves an error to be settled, unless it is the whole peer's for certain.
fn in_doubt(id: DocId, rev: Rev, error: PeerError) -> Result<Attached, ReplicateError> {
    match error.blame() {
        Blame::Lasting => Err(error.into()),
        blame => {
            let why = Why::new("not_copied", error.without_address());
            Ok(Attached::Doubtful(Doubt { failure: Failure { id, rev: Some(rev), why }, blame }))
        }
    }
}
