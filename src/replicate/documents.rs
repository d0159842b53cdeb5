//! A one-shot of chosen documents: fetched by id, without feed, sessions or checkpoints.
//!
//! Exactly these documents are read, whatever the target has (the seed's `do_terminate/1` for `doc_ids`); ids that the
//! source doesn't know are passed over. Where many are chosen, they travel in batches, some at once.
//!
//! What failed before ([`super::failures`]) is tried again likewise, except that what the target has got meanwhile isn't
//! sent. A failure is struck out only after the target has made what it got durable.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::batch::{self, Route};
use super::checkpoint::same_life;
use super::failures::Kept;
use super::job::Job;
use super::progress::Counts;
use super::{MAX_LOSSES, ReplicateError, never_the_same};
use crate::document::{DocId, Rev, Seq};
use crate::peer::{Change, PeerError};

/// Copies the documents and answers as FACTS 7 says. Copies them again where the target, whose `instance_start_time` was
/// `started`, may have lost some before they were durable.
pub async fn copy(job: &Job, route: Route, ids: &[DocId], mut started: String) -> Result<Value, ReplicateError> {
    let start_time = httpdate::fmt_http_date(SystemTime::now());
    let before = route.progress.counts();
    for _ in 0..MAX_LOSSES {
        let batches: Vec<_> =
            ids.chunks(job.batch_size()).map(|ids| batch::copy_docs(route.clone(), ids.to_vec())).collect();
        stream::iter(batches).buffer_unordered(job.batches()).try_collect::<()>().await?;
        let committed = route.target.ensure_full_commit().await?;
        if same_life(&started, &committed) {
            let end_time = httpdate::fmt_http_date(SystemTime::now());
            return Ok(answer(&start_time, &end_time, route.progress.counts().since(&before)));
        }
        tracing::warn!(database = route.target.name(), "a database was restarted: copying the documents again");
        started = committed;
    }
    Err(never_the_same())
}

/// Tries again what is kept as failed, and answers as above; what fails again is kept again. Nothing is struck out that
/// the target, whose `instance_start_time` was `started`, may have lost before it was durable.
pub async fn copy_failed(job: &Job, route: Route, mut started: String) -> Result<Value, ReplicateError> {
    let start_time = httpdate::fmt_http_date(SystemTime::now());
    let before = route.progress.counts();
    let failed = job.context.failures.kept(&job.id.base).await.map_err(PeerError::from)?.failures;
    for tried in Vec::from(failed).chunks(job.batch_size()) {
        let (changes, unnamed) = by_document(tried);
        batch::copy(route.clone(), changes).await?;
        batch::copy_docs(route.clone(), unnamed).await?;
        let committed = route.target.ensure_full_commit().await?;
        let durable = same_life(&started, &committed);
        job.keep_failures(if durable { tried.to_vec() } else { Vec::new() }).await?;
        started = committed;
    }
    let end_time = httpdate::fmt_http_date(SystemTime::now());
    Ok(answer(&start_time, &end_time, route.progress.counts().since(&before)))
}

/// Failed revisions, those of one document together, and documents of which the target didn't name the revision.
fn by_document(failed: &[Kept]) -> (Vec<Change>, Vec<DocId>) {
    let mut named: BTreeMap<&DocId, Vec<Rev>> = BTreeMap::new();
    let mut unnamed = Vec::new();
    for Kept { failure, .. } in failed {
        match &failure.rev {
            Some(rev) => named.entry(&failure.id).or_default().push(rev.clone()),
            None => unnamed.push(failure.id.clone()),
        }
    }
    let change = |(id, revs): (&DocId, Vec<Rev>)| Change { seq: Seq::zero(), id: id.clone(), revs };
    (named.into_iter().map(change).collect(), unnamed)
}

fn answer(start_time: &str, end_time: &str, counts: Counts) -> Value {
    let session_id = hex::encode(rand::random::<[u8; 16]>());
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
