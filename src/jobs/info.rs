//! How far a job has come, as `_scheduler` and the documents of jobs tell it: CouchDB's members in CouchDB's order.

use serde::Serialize;

use super::history::rfc3339_of;
use crate::document::Seq;
use crate::replicate::progress::Progress;

/// The `info` of a job that runs.
#[derive(Debug, Serialize)]
pub struct RunningInfo {
    #[serde(flatten)]
    stats: Stats,
    source_seq: Seq,
    through_seq: Seq,
}

/// The counters, and how far it is safely.
#[derive(Debug, Serialize)]
pub struct Stats {
    revisions_checked: u64,
    missing_revisions_found: u64,
    docs_read: u64,
    docs_written: u64,
    changes_pending: Option<u64>,
    doc_write_failures: u64,
    bulk_get_docs: u64,
    bulk_get_attempts: u64,
    checkpointed_source_seq: Seq,
}

/// `_replication_stats` of a document whose replication has come to its end.
#[derive(Debug, Serialize)]
pub struct FinalStats {
    #[serde(flatten)]
    stats: Stats,
    start_time: String,
}

impl RunningInfo {
    /// As it is now.
    pub fn of(progress: &Progress) -> Self {
        let position = progress.position();
        Self { stats: Stats::of(progress), source_seq: position.source_seq, through_seq: position.through_seq }
    }
}

impl FinalStats {
    /// As it was in the end.
    pub fn of(progress: &Progress) -> Self {
        Self { stats: Stats::of(progress), start_time: rfc3339_of(progress.started_on()) }
    }
}

impl Stats {
    fn of(progress: &Progress) -> Self {
        let (counts, position) = (progress.counts(), progress.position());
        Self {
            revisions_checked: counts.missing_checked,
            missing_revisions_found: counts.missing_found,
            docs_read: counts.docs_read,
            docs_written: counts.docs_written,
            changes_pending: position.changes_pending,
            doc_write_failures: counts.doc_write_failures,
            bulk_get_docs: counts.bulk_get_docs,
            bulk_get_attempts: counts.bulk_get_attempts,
            checkpointed_source_seq: position.checkpointed_source_seq,
        }
    }
}
