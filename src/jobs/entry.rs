//! A job's entry in `_active_tasks`: CouchDB's fields in CouchDB's order, and after them what CouchDB doesn't tell.
//!
//! `task` and `status` are words that CouchDB 1.0 told: the status page of Futon 1.0 shows nothing else, and nothing at all without them.

use serde::Serialize;

use super::replication::{Replication, State};
use crate::document::Seq;
use crate::replicate::Context;

/// An entry of `_active_tasks`.
#[derive(Debug, Serialize)]
pub struct TaskEntry {
    node: String,
    pid: String,
    process_status: &'static str,
    bulk_get_attempts: u64,
    bulk_get_docs: u64,
    changes_pending: Option<u64>,
    checkpoint_interval: u64,
    checkpointed_source_seq: Seq,
    continuous: bool,
    database: Option<String>,
    doc_id: Option<String>,
    doc_write_failures: u64,
    docs_read: u64,
    docs_written: u64,
    missing_revisions_found: u64,
    replication_id: String,
    revisions_checked: u64,
    source: String,
    source_seq: Seq,
    started_on: u64,
    target: String,
    through_seq: Seq,
    #[serde(rename = "type")]
    kind: &'static str,
    updated_on: u64,
    user: Option<String>,
    /// Left out where it isn't known: Fauxton would say "null%".
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u64>,
    docs_per_second: Option<u64>,
    state: State,
    error: Option<String>,
    task: String,
    status: String,
}

impl TaskEntry {
    /// The entry of a job, as it is now.
    pub fn of(job: &Replication, context: &Context) -> Self {
        let (counts, position) = (job.progress.counts(), job.progress.position());
        let address = &context.identity.address;
        let state = job.state();
        let status = job.status();
        let (source, target) = (job.request.source.display(address), job.request.target.display(address));
        let process_status = if state == State::Running && !status.waits { "running" } else { "waiting" };
        Self {
            node: context.identity.node(),
            pid: format!("<0.{}.0>", job.number),
            process_status,
            bulk_get_attempts: counts.bulk_get_attempts,
            bulk_get_docs: counts.bulk_get_docs,
            changes_pending: position.changes_pending,
            checkpoint_interval: job.checkpoint_interval(context).as_millis() as u64,
            progress: position.percent(),
            checkpointed_source_seq: position.checkpointed_source_seq,
            continuous: job.request.continuous,
            database: job.document.as_ref().map(|document| document.database.to_string()),
            doc_id: job.document.as_ref().map(|document| document.id.to_string()),
            doc_write_failures: counts.doc_write_failures,
            docs_read: counts.docs_read,
            docs_written: counts.docs_written,
            missing_revisions_found: counts.missing_found,
            task: format!("{source} to {target}"),
            status: in_words(state, status.reason.as_deref(), counts.docs_written, position.changes_pending),
            source,
            target,
            replication_id: job.id.to_string(),
            revisions_checked: counts.missing_checked,
            source_seq: position.source_seq,
            started_on: job.progress.started_on(),
            through_seq: position.through_seq,
            kind: "replication",
            updated_on: job.progress.updated_on(),
            user: job.owner().map(str::to_owned),
            docs_per_second: job.progress.docs_per_second().map(|rate| rate.round() as u64),
            state,
            error: status.reason.as_deref().map(str::to_owned),
        }
    }
}

/// How a replication is, in a line.
fn in_words(state: State, error: Option<&str>, docs_written: u64, changes_pending: Option<u64>) -> String {
    let state = state.word();
    if let Some(error) = error {
        return format!("{state}: {error}");
    }
    let pending = changes_pending.map(|pending| format!(", {pending} changes pending"));
    format!("{state}: {docs_written} documents written{}", pending.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, job};
    use super::*;
    use crate::replicate::progress::Counts;

    #[test]
    fn a_task_entry_has_couchdbs_fields_in_couchdbs_order() {
        let job = job("0123+continuous");
        job.progress.count(Counts { docs_read: 2, ..Counts::default() });
        job.progress.finished(&serde_json::from_str(r#""9-x""#).unwrap(), Some(2), Some(4));
        let entry = serde_json::to_value(TaskEntry::of(&job, &context())).unwrap();
        let keys: Vec<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "node pid process_status bulk_get_attempts bulk_get_docs changes_pending checkpoint_interval \
            checkpointed_source_seq continuous database doc_id doc_write_failures docs_read docs_written \
            missing_revisions_found replication_id revisions_checked source source_seq started_on target through_seq \
            type updated_on user progress docs_per_second state error task status";
        assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
        assert_eq!((&entry["node"], &entry["pid"]), (&"couchrep@h".into(), &"<0.0.0>".into()));
        assert_eq!(entry["replication_id"], "0123+continuous");
        assert_eq!((&entry["source"], &entry["target"]), (&"http://h/a/".into(), &"http://h/b/".into()));
        assert_eq!(entry["through_seq"], "9-x");
        assert_eq!(entry["changes_pending"], 4);
        assert_eq!(entry["docs_read"], 2);
        assert_eq!(entry["progress"], 33);
        assert_eq!(entry["task"], "http://h/a/ to http://h/b/");
        assert_eq!(entry["status"], "pending: 0 documents written, 4 changes pending");
        assert_eq!(entry["docs_per_second"], serde_json::Value::Null);
    }

    #[test]
    fn a_status_in_words_tells_why_a_job_fails() {
        let words = |error, pending| in_words(State::Crashing, error, 7, pending);
        assert_eq!(words(Some("no such host"), Some(4)), "crashing: no such host");
        assert_eq!(words(None, None), "crashing: 7 documents written");
    }

    #[test]
    fn progress_that_isnt_known_is_left_out() {
        let entry = serde_json::to_value(TaskEntry::of(&job("0123"), &context())).unwrap();
        assert_eq!(entry.get("progress"), None);
    }
}
