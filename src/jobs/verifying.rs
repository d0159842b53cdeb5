//! Compares the databases of a job, for whoever may manage it, with the rights of the job's owner.
//!
//! A comparison reads both databases whole, so only few go on at once, and one ends when nobody waits for it any more.

use super::Jobs;
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::replicate::ReplicateError;
use crate::verify::{self, Report};

impl Jobs {
    /// Compares what a job copies: has its target all that its source has? `seen` is shown the report as it grows.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`] if there is no such job for the caller, and why the databases can't be compared.
    pub async fn verify(&self, id: &str, caller: &Caller, seen: impl FnMut(&Report)) -> Result<Report, ReplicateError> {
        let job = self.manageable(id, caller)?;
        // The semaphore is never closed.
        let _place = self.comparisons.acquire().await;
        let (pulse, limit) = (Pulse::default(), self.context.settings.stall_limit);
        let databases = &self.context.databases;
        let compare = async {
            let source = databases.open(&job.request.source, &job.caller, &pulse).await?;
            let target = databases.open(&job.request.target, &job.caller, &pulse).await?;
            Ok(verify::compare((&source, job.request.feed_filter()), &target, false, seen).await?)
        };
        tokio::select! {
            biased;
            () = self.context.tasks.stopping().cancelled() => Err(ReplicateError::ShuttingDown),
            compared = compare => compared,
            () = pulse.failed(limit) => Err(ReplicateError::Stalled(limit)),
        }
    }
}
