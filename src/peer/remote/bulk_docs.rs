//! Writes a batch of documents.
//!
//! `POST {db}/_bulk_docs` with `new_edits:false` answers the failures alone, as CouchDB does, or a row for every document,
//! as others do: a row without `error` is a success. What a row says is judged (`judgement.rs`): a refusal, the target's
//! own trouble, or neither for certain. `forbidden` counts if the target took another document of the same request,
//! else if it lets us read it and write to it at that moment. A request that is too large, or that the target's own words
//! refuse for one of its documents, is halved. Any other answer to a request as a whole is the caller's: it writes fewer
//! documents at once to find out whether one of them is why.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use super::answer::malformed;
use super::call::Call;
use super::judgement::Words;
use super::shown::beginning;
use super::*;
use crate::document::DocSpan;
use crate::json::Cursor;
use crate::peer::Doubt;

const EXPECTED: &str = "an array of documents that weren't written";

/// What a request was answered.
enum Answered {
    /// What wasn't written.
    Failed(Vec<Failure>),
    /// The request is refused as a whole, for its size or for one of its documents; fewer at once may do.
    Refused(Why, Blame),
}

/// Documents that something called too large alone, before any was taken, after which it isn't theirs.
const MOST_TOO_LARGE: usize = 3;

impl RemotePeer {
    /// Writes the batch and answers what the target didn't take.
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Written, PeerError> {
        self.written(Operation::BulkDocs, batch).await
    }

    /// The same of documents with attachments in them.
    pub async fn bulk_docs_inline(&self, batch: DocBatch) -> Result<Written, PeerError> {
        self.written(Operation::BulkDocsInline, batch).await
    }

    async fn written(&self, operation: Operation, batch: DocBatch) -> Result<Written, PeerError> {
        let mut written = Written::default();
        let (mut taken, mut too_large) = (false, 0);
        let mut left = vec![batch];
        while let Some(batch) = left.pop().filter(|batch| !batch.is_empty()) {
            let (body, docs) = batch.into_request();
            let call = Call::post(operation, "_bulk_docs", body.clone());
            match (self.ask(&call, |reply| self.not_written(&call, reply, &docs)).await?, docs.as_slice()) {
                (Answered::Failed(rows), docs) => {
                    taken |= rows.len() < docs.len();
                    let Written { refused, doubtful } = self.judged(rows, taken).await?;
                    written.refused.extend(refused);
                    written.doubtful.extend(doubtful);
                }
                (Answered::Refused(why, blame), [doc]) => {
                    let failure = Failure { id: doc.id.clone(), rev: Some(doc.rev.clone()), why };
                    match blame {
                        Blame::Document => written.refused.push(failure),
                        blame if taken || too_large + 1 < MOST_TOO_LARGE => {
                            too_large += 1;
                            written.doubtful.push(Doubt { failure, blame });
                        }
                        blame => {
                            let (request, why) = (self.request_name(&call), failure.why);
                            return Err(PeerError::Answered { request, status: None, why, blame });
                        }
                    }
                }
                (Answered::Refused(..), docs) => {
                    let mut batch = DocBatch::default();
                    docs.iter().for_each(|doc| batch.push(doc.id.clone(), doc.rev.clone(), &body[doc.span.clone()]));
                    let (first, second) = batch.halve();
                    left.extend([second, first]);
                }
            }
        }
        Ok(written)
    }

    /// Makes sure that documents get through this way, without leaving one: a `_local` document, which no feed names and no
    /// validation function sees.
    pub async fn takes_documents(&self) -> Result<(), PeerError> {
        let body = r#"{"new_edits":false,"docs":[{"_id":"_local/couchrep-may-write","_rev":"0-1"}]}"#;
        let call = Call::post(Operation::BulkDocs, "_bulk_docs", body);
        let told = self.ask(&call, |reply| first_failure(&self.expected(reply)?, EXPECTED)).await?;
        let found = match told {
            None => return Ok(()),
            Some(Ok(failure)) => failure.why.to_string(),
            Some(Err(NoRow)) => "a row that tells nothing".into(),
        };
        Err(malformed(&self.request_name(&call), EXPECTED, found))
    }

    fn not_written(&self, call: &Call, reply: Reply, docs: &[DocSpan]) -> Result<Answered, PeerError> {
        match reply.meaning() {
            Meaning::TooLarge => {
                let blame = reply.said().map_or(Blame::Unclear { worded: false }, |why| judgement::of_written(&why));
                let why = reply.said().unwrap_or_else(|| Why::new("too_large", "the request is too large"));
                return Ok(Answered::Refused(why, blame));
            }
            Meaning::Failed(Blame::Document) => return Ok(Answered::Refused(reply.why(), Blame::Document)),
            _ => {}
        }
        // A cluster whose nodes are down answers 500 with a row for each document, and no ids.
        if !reply.is_success()
            && let Ok(Some(Ok(failure))) = first_failure(&reply, EXPECTED)
        {
            let blame = match judgement::of_written(&failure.why) {
                Blame::Passing => Blame::Passing,
                _ => Blame::Unclear { worded: true },
            };
            let (request, why) = (self.request_name(call), failure.why);
            return Err(PeerError::Answered { request, status: None, why, blame });
        }
        let unnamed =
            || malformed(&self.request_name(call), EXPECTED, "a row that isn't about a document that was sent".into());
        let mut sent = HashMap::<&DocId, Vec<&Rev>>::with_capacity(docs.len());
        docs.iter().for_each(|doc| sent.entry(&doc.id).or_default().push(&doc.rev));
        let (mut failed, mut all_named) = (Vec::new(), true);
        failures(&self.expected(reply)?, EXPECTED, |told| {
            let failure = told.ok().and_then(|failure| named(failure, &sent));
            all_named &= failure.is_some() && failed.len() < docs.len();
            failed.extend(failure);
            if all_named { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if all_named { Ok(Answered::Failed(failed)) } else { Err(unnamed()) }
    }

    /// Judges rows; `taken` says that the target took another document.
    async fn judged(&self, rows: Vec<Failure>, taken: bool) -> Result<Written, PeerError> {
        if !taken && rows.iter().any(|row| judgement::is_about_rights(&row.why)) {
            self.let_in_to_write().await?;
        }
        let mut written = Written::default();
        for failure in rows {
            match judgement::of_written(&failure.why) {
                Blame::Document => written.refused.push(failure),
                Blame::Unclear { .. } if judgement::is_about_rights(&failure.why) => written.refused.push(failure),
                blame => written.doubtful.push(Doubt { failure, blame }),
            }
        }
        Ok(written)
    }
}

/// A row of a document that was sent, with its revision if that is certain. A target may tell which one it has instead.
fn named(failure: Failure, sent: &HashMap<&DocId, Vec<&Rev>>) -> Option<Failure> {
    let revs = sent.get(&failure.id)?;
    let only = if let [only] = revs.as_slice() { Some((*only).clone()) } else { None };
    Some(Failure { rev: failure.rev.filter(|rev| revs.contains(&rev)).or(only), ..failure })
}

#[derive(Deserialize)]
struct Row<'a> {
    ok: Option<bool>,
    id: Option<DocId>,
    #[serde(borrow)]
    rev: Option<Cow<'a, str>>,
}

/// What a row says of its document: why it wasn't written, or that it was; an error where it tells nothing.
type RowOutcome = Result<Option<Failure>, NoRow>;

/// An object that tells nothing of a document.
#[derive(Debug)]
pub(super) struct NoRow;

impl Row<'_> {
    /// Why its document wasn't written; `None` if it was. A row that names no document has an empty id.
    ///
    /// # Errors
    /// If it says neither.
    fn failure(self, words: Words<'_>) -> RowOutcome {
        let Some(why) = words.why() else {
            let is_written = self.ok.unwrap_or(self.id.is_some() && self.rev.is_some());
            return if is_written { Ok(None) } else { Err(NoRow) };
        };
        let id = self.id.unwrap_or_else(|| DocId::from(""));
        Ok(Some(Failure { id, rev: self.rev.as_deref().and_then(Rev::parse), why }))
    }
}

/// What the rows say that aren't successes, one at a time: an array of millions takes no more than its text.
pub(super) fn failures(
    reply: &Reply,
    expected: &'static str,
    mut each: impl FnMut(Result<Failure, NoRow>) -> ControlFlow<()>,
) -> Result<(), PeerError> {
    let rows: &RawValue = reply.json(expected)?;
    let wrong = |found: String| malformed(reply.request(), expected, found);
    if !rows.get().starts_with('[') {
        return Err(wrong(format!("`{}`", beginning(rows.get().as_bytes()))));
    }
    let mut cursor = Cursor::default();
    while let Some(row) = cursor.element(rows.get().as_bytes()) {
        let unreadable = |error| wrong(format!("`{}` ({error})", beginning(row)));
        // Read twice, since no text of flattened members could be borrowed.
        let words: Words<'_> = serde_json::from_slice(row).map_err(unreadable)?;
        let told: Row<'_> = serde_json::from_slice(row).map_err(unreadable)?;
        if let Some(told) = told.failure(words).transpose()
            && each(told).is_break()
        {
            break;
        }
    }
    Ok(())
}

/// The first of them.
pub(super) fn first_failure(
    reply: &Reply,
    expected: &'static str,
) -> Result<Option<Result<Failure, NoRow>>, PeerError> {
    let mut first = None;
    failures(reply, expected, |told| {
        first = Some(told);
        ControlFlow::Break(())
    })?;
    Ok(first)
}
