//! Compares the databases of a job, and copies again what it couldn't copy: what somebody may want of a job besides its going on.
//!
//! Both are done with the rights of the job's owner, for whoever may manage it. A comparison reads both databases whole, so only
//! [`AT_ONCE`] go on at once, and one ends when nobody waits for it any more.

use std::sync::Arc;

use super::{Answer, Jobs};
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::replicate::ReplicateError;
use crate::replicate::request::Request;
use crate::verify::{self, Report};

use super::replication::Replication;

/// Comparisons that go on at once; others wait.
pub const AT_ONCE: usize = 2;

impl Jobs {
    /// Compares what a job copies: has its target all that its source has? `seen` is shown the report as it grows.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`] if there is no such job for the caller, and why the databases can't be compared.
    pub async fn verify(
        &self,
        id: &str,
        caller: &Caller,
        seen: impl FnMut(&Report),
    ) -> Result<Report, ReplicateError> {
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

    /// Copies again what a job couldn't copy, and waits until that is done.
    ///
    /// # Errors
    /// As [`Jobs::verify`].
    pub async fn retry_failures(&self, id: &str, caller: &Caller) -> Result<Answer, ReplicateError> {
        let job = self.manageable(id, caller)?;
        let request = Request { retry_failures: true, continuous: false, keep: false, ..Request::clone(&job.request) };
        self.run(request, &job.caller).await
    }

    fn manageable(&self, id: &str, caller: &Caller) -> Result<Arc<Replication>, ReplicateError> {
        let job = self.running.get(id).filter(|job| caller.may_manage(job.owner()));
        job.ok_or_else(|| ReplicateError::NotFound("missing".into()))
    }
}
