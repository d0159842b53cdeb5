//! A one-shot of chosen documents: fetched by id, without feed, sessions or checkpoints.
//!
//! Exactly these documents are read, whatever the target has (the seed's `do_terminate/1` for `doc_ids`); ids that the
//! source doesn't know are passed over. Where many are chosen, they travel in batches, some at once.
//!
//! What failed before ([`super::failures`]) is tried again likewise, page by page of its list, except that what the target has
//! got meanwhile isn't sent. A failure is struck out only after the target has made durable what it got. A document
//! that was edited since is tried as it is now; what fails again is listed again. A revision that the source doesn't know any
//! more (purged) will never come, and goes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::ReplicateError;
use super::batch;
use super::failures::{FailureList, FailureLog, RecordedFailure, by_document};
use super::life::Life;
use super::loss::{MAX_LOSSES, RecordError, same_life};
use super::progress::Counts;
use crate::document::DocId;
use crate::peer::{Peer, PeerError};
use crate::uuids;

/// Copies the documents and answers as a CouchDB does. Copies them again where the target, whose `instance_start_time` was
/// `started`, may have lost some before they were durable.
pub async fn copy(
    life: &Life,
    ids: &[DocId],
    list: &FailureList,
    mut started: String,
) -> Result<Value, ReplicateError> {
    let start_time = httpdate::fmt_http_date(SystemTime::now());
    let before = life.progress.counts();
    for _ in 0..MAX_LOSSES {
        copy_once(life, ids, list).await?;
        let committed = life.target.ensure_full_commit().await?;
        if same_life(&started, &committed) {
            let end_time = httpdate::fmt_http_date(SystemTime::now());
            return Ok(answer(&start_time, &end_time, life.progress.counts().since(&before)));
        }
        tracing::warn!(database = life.target.name(), "a database was restarted: copying the documents again");
        started = committed;
    }
    Err(RecordError::Restarted { database: life.target.name().to_owned() }.again_and_again())
}

/// Copies them in batches, some at once. After the first error none is begun, yet those under way finish what they write.
async fn copy_once(life: &Life, ids: &[DocId], list: &FailureList) -> Result<(), ReplicateError> {
    let stop = life.stop.child_token();
    let scoped = Life { stop: stop.clone(), ..life.clone() };
    let batches: Vec<_> =
        ids.chunks(life.batch_size).map(|ids| batch::copy_docs(scoped.clone(), ids.to_vec())).collect();
    let mut copying = stream::iter(batches).buffer_unordered(life.batches);
    let mut failure = None;
    while let Some(mut copied) = copying.next().await {
        if copied.is_ok() && life.failures.is_full() {
            copied = list.keep(&life.failures).await.map_err(ReplicateError::from);
        }
        if let Err(error) = copied {
            stop.cancel();
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Tries again what is kept as failed, and answers as above, and how many still stand. Nothing is struck out that
/// the target, whose `instance_start_time` was `started`, may have lost before it was durable: then all is tried again.
pub async fn copy_failed(life: &Life, list: &FailureList, mut started: String) -> Result<(Value, u64), ReplicateError> {
    let start_time = httpdate::fmt_http_date(SystemTime::now());
    let before = life.progress.counts();
    for _ in 0..MAX_LOSSES {
        let mut review = list.review().await?;
        let lost = loop {
            let Some(failed) = review.next().await? else { break None };
            review.stand(try_again(life, &failed).await?);
            if review.is_due() {
                let committed = life.target.ensure_full_commit().await?;
                if !same_life(&started, &committed) {
                    break Some(committed);
                }
                review.settle().await?;
            }
        };
        let Some(committed) = lost else {
            let end_time = httpdate::fmt_http_date(SystemTime::now());
            let answer = answer(&start_time, &end_time, life.progress.counts().since(&before));
            return Ok((answer, review.standing()));
        };
        tracing::warn!(database = life.target.name(), "a database was restarted: copying the documents again");
        started = committed;
    }
    Err(RecordError::Restarted { database: life.target.name().to_owned() }.again_and_again())
}

/// Copies a page's failures; answers what failed again.
async fn try_again(life: &Life, failed: &[RecordedFailure]) -> Result<Vec<RecordedFailure>, ReplicateError> {
    let again = Arc::new(FailureLog::default());
    let life = Life { failures: again.clone(), ..life.clone() };
    for failed in failed.chunks(life.batch_size) {
        let (changes, unnamed) = by_document(failed);
        batch::copy(life.clone(), changes).await?;
        batch::copy_docs(life.clone(), unnamed).await?;
    }
    let mut again = again.take();
    again.reverse();
    Ok(still_known(&life.source, again).await?)
}

/// Without those that the source says to be missing, and doesn't know of when it is asked in another way.
async fn still_known(source: &Peer, mut failed: Vec<RecordedFailure>) -> Result<Vec<RecordedFailure>, PeerError> {
    let is_missing = |kept: &RecordedFailure| kept.failure.why.is_missing();
    let missing: Vec<_> = failed.iter().filter(|kept| is_missing(kept)).cloned().collect();
    let (changes, _) = by_document(&missing);
    if changes.is_empty() {
        return Ok(failed);
    }
    let unknown = source.revs_diff(&changes).await?;
    let unknown: HashSet<_> =
        unknown.into_iter().flat_map(|one| one.revs.into_iter().map(move |rev| (one.id.clone(), Some(rev)))).collect();
    failed.retain(|kept| {
        let gone = is_missing(kept) && unknown.contains(&(kept.failure.id.clone(), kept.failure.rev.clone()));
        if gone {
            tracing::info!(doc.id = kept.failure.id.as_str(), "a document that failed is no longer in the source");
        }
        !gone
    });
    Ok(failed)
}

fn answer(start_time: &str, end_time: &str, counts: Counts) -> Value {
    let session_id = uuids::random();
    json!({
        "ok": true,
        "session_id": session_id,
        "start_time": start_time,
        "end_time": end_time,
        "docs_read": counts.docs_read,
        "docs_written": counts.docs_written,
        "doc_write_failures": counts.doc_write_failures,
        "history": [{
            "session_id": session_id,
            "start_time": start_time,
            "end_time": end_time,
            "missing_checked": counts.missing_checked,
            "missing_found": counts.missing_found,
            "docs_read": counts.docs_read,
            "docs_written": counts.docs_written,
            "doc_write_failures": counts.doc_write_failures,
            "bulk_get_docs": counts.bulk_get_docs,
            "bulk_get_attempts": counts.bulk_get_attempts,
        }],
    })
}
