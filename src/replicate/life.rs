//! One life of a job: what its stages share from the opening of the databases to the end, or to the first error that ends it.
//!
//! The stages know this and no more: neither the job, nor who asked for it, nor whether another life follows. Does no I/O.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio_util::sync::CancellationToken;

use super::ReplicateError;
use super::failures::FailureLog;
use super::progress::Progress;
use super::seen::Seen;
use crate::effort::budget::{Budget, JobBudget};
use crate::peer::Peer;

/// From where to where, and within what limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Life {
    /// From here.
    pub source: Peer,
    /// To here.
    pub target: Peer,
    /// What is counted.
    pub progress: Arc<Progress>,
    /// What didn't get there.
    pub failures: Arc<FailureLog>,
    /// Memory, all replications together.
    pub budget: Budget,
    /// The job's own part of it.
    pub places: JobBudget,
    /// Documents of a batch.
    pub batch_size: usize,
    /// Batches in flight.
    pub batches: usize,
    /// Bytes of documents gathered before they are written.
    pub batch_bytes: usize,
    /// Tries of what broke off.
    pub tries: u32,
    /// The revisions of this session's first copy, if the target had none when it began.
    pub seen: Option<Arc<Seen>>,
    /// Bulk requests with attachments in them that failed, one after the other.
    pub inline_failures: Arc<AtomicU32>,
    /// Cancelled: reads and pauses end at once, writes are finished.
    pub stop: CancellationToken,
}

impl Life {
    /// Waits for something that changes nothing, unless the life is ended.
    pub async fn unless_stopped<T>(&self, wait: impl Future<Output = T>) -> Result<T, ReplicateError> {
        self.stop.run_until_cancelled(wait).await.ok_or(ReplicateError::Cancelled)
    }
}
