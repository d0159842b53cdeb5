//! A one-shot of chosen documents: fetched by id, without feed, sessions or checkpoints.
//!
//! Exactly these documents are read, whatever the target has (the seed's `do_terminate/1` for `doc_ids`); ids that the
//! source doesn't know are passed over. Where many are chosen, they travel in batches, some at once.

use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::batch::{self, Route};
use super::checkpoint::same_life;
use super::job::Job;
use super::progress::Counts;
use super::{MAX_LOSSES, ReplicateError, never_the_same};
use crate::document::DocId;

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
