//! What the page shows of one job.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::snapshot::{JobOrDocument, JobSummary};
use crate::jobs::Jobs;
use crate::jobs::documents::{DocumentStage, DocumentStatus};
use crate::jobs::history::rfc3339_text;
use crate::jobs::replication::{JobDocument, Replication, State};
use crate::jobs::trends::{Trend, rounded};

/// A job, or a document that has none.
#[derive(Debug, Serialize)]
pub struct JobRow {
    /// The replication's id; `None` of a document that has no job.
    id: Option<String>,
    database: Option<String>,
    doc_id: Option<String>,
    source: String,
    target: String,
    owner: Option<String>,
    continuous: bool,
    state: State,
    paused: bool,
    caught_up: bool,
    reason: Option<String>,
    /// Since when it fails; else when what happened last happened.
    since: Option<String>,
    error_count: u32,
    next_try: Option<String>,
    docs_read: u64,
    docs_written: u64,
    doc_write_failures: u64,
    changes_pending: Option<u64>,
    docs_per_second: Option<f32>,
    lag_seconds: Option<u64>,
    last_success: Option<String>,
    trend: Option<Trend>,
}

impl Jobs {
    pub(super) fn row(&self, summary: &JobSummary) -> JobRow {
        match &summary.job {
            JobOrDocument::Job(job) => self.job_row(job),
            JobOrDocument::Document(place, status) => self.document_row(place, status, summary),
        }
    }

    pub(super) fn job_row(&self, job: &Replication) -> JobRow {
        let (_, next_try) = self.scheduler.waits(job.number);
        let (counts, lag) = (job.progress.counts(), job.progress.lag());
        let (address, state, caught_up) = (&self.context.identity.address, job.state(), job.has_caught_up());
        let status = job.status();
        let recorded = job.progress.succeeded_on().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        JobRow {
            id: Some(job.id.to_string()),
            database: job.document.as_ref().map(|place| place.database.to_string()),
            doc_id: job.document.as_ref().map(|place| place.id.to_string()),
            source: job.request.source.display(address),
            target: job.request.target.display(address),
            owner: job.owner().map(str::to_owned),
            continuous: job.request.continuous,
            state,
            paused: status.paused,
            caught_up,
            reason: status.reason.as_deref().map(str::to_owned),
            since: status.failing_since.or(status.history.newest().map(|event| event.timestamp)).map(rfc3339_text),
            error_count: status.error_count,
            next_try: next_try.filter(|_| !status.paused).map(rfc3339_text),
            docs_read: counts.docs_read,
            docs_written: counts.docs_written,
            doc_write_failures: counts.doc_write_failures,
            changes_pending: job.progress.changes_pending(),
            docs_per_second: job.progress.docs_per_second().map(rounded),
            lag_seconds: lag.seconds(),
            last_success: status.last_success.max(recorded).map(rfc3339_text),
            trend: self.trends.of(job.number),
        }
    }

    fn document_row(&self, place: &JobDocument, status: &DocumentStatus, summary: &JobSummary) -> JobRow {
        let (address, description) = (&self.context.identity.address, &status.description);
        let (reason, error_count, next_try) = match &status.stage {
            DocumentStage::Error { count, reason, next_try } => (Some(reason), *count, Some(*next_try)),
            DocumentStage::Duplicate { reason, .. } => (Some(reason), 1, None),
            DocumentStage::Initializing | DocumentStage::Job(_) => (None, 0, None),
        };
        JobRow {
            id: None,
            database: Some(place.database.to_string()),
            doc_id: Some(place.id.to_string()),
            source: description.request.source.display(address),
            target: description.request.target.display(address),
            owner: description.owner.clone(),
            continuous: description.request.continuous,
            state: summary.state,
            paused: description.paused,
            caught_up: false,
            reason: reason.map(|reason| reason.to_string()),
            since: Some(rfc3339_text(status.since)),
            error_count,
            next_try: next_try.map(rfc3339_text),
            docs_read: 0,
            docs_written: 0,
            doc_write_failures: 0,
            changes_pending: None,
            docs_per_second: None,
            lag_seconds: None,
            last_success: None,
            trend: None,
        }
    }
}
