//! What is told of jobs to whoever watches the server.

use std::time::UNIX_EPOCH;

use super::Jobs;
use super::replication::Replication;
use crate::counters::JobFigures;

impl Jobs {
    /// The numbers of every job, parked ones too.
    pub fn figures(&self) -> Vec<JobFigures> {
        let address = &self.context.identity.address;
        self.running.list().iter().map(|job| figures(job, address)).collect()
    }
}

fn figures(job: &Replication, address: &str) -> JobFigures {
    let (counts, position) = (job.progress.counts(), job.progress.position());
    let (failures, caught_up) = {
        let status = job.status();
        (status.error_count, status.last_success)
    };
    let caught_up = caught_up.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|time| time.as_secs());
    JobFigures {
        id: job.id.to_string(),
        database: job.document.as_ref().map(|document| document.database.to_string()),
        doc_id: job.document.as_ref().map(|document| document.id.to_string()),
        source: job.request.source.display(address),
        target: job.request.target.display(address),
        state: job.state().word().to_owned(),
        docs_read: counts.docs_read,
        docs_written: counts.docs_written,
        doc_write_failures: counts.doc_write_failures,
        revisions_checked: counts.missing_checked,
        missing_revisions_found: counts.missing_found,
        bytes: Some(job.progress.pulse().bytes()),
        changes_pending: position.changes_pending,
        lag_seconds: position.lag.seconds(),
        last_success: caught_up.max(job.progress.succeeded_on()),
        failures: failures.into(),
    }
}
