//! Compares the databases of a job, for whoever may manage it, with the rights of the job's owner.
//!
//! A comparison reads both databases whole, so only few go on at once ([`comparisons`](super::comparisons)), and one ends with its job and when nobody
//! waits for it any more.

use super::Jobs;
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::replicate::ReplicateError;
use crate::verify::{self, Report};

const BUSY: &str = "you have databases compared already; another comparison may begin when that one has ended";

impl Jobs {
    /// Compares what a job copies: has its target all that its source has? `seen` is shown the report as it grows.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`] if there is no such job for the caller, and why the databases can't be compared.
    pub async fn verify(&self, id: &str, caller: &Caller, seen: impl FnMut(&Report)) -> Result<Report, ReplicateError> {
        self.manageable(id, caller)?;
        let _one =
            self.comparing.begin(caller.name.as_deref()).ok_or_else(|| ReplicateError::BadRequest(BUSY.into()))?;
        let _place = self.comparing.place().await;
        // It may have ended meanwhile, and its owner's rights may have changed since it began.
        let job = self.manageable(id, caller)?;
        let owner = self.scheduler.caller(&job).await?;
        let (pulse, limit) = (Pulse::default(), self.context.settings.stall_limit);
        let databases = &self.context.databases;
        let compare = async {
            let source = databases.open(&job.request.source, &owner, &pulse).await?;
            let target = databases.open(&job.request.target, &owner, &pulse).await?;
            Ok(verify::compare((&source, job.request.feed_filter()), &target, false, seen).await?)
        };
        tokio::select! {
            biased;
            () = job.stop.cancelled() => Err(self.why(ReplicateError::Cancelled)),
            compared = compare => compared,
            () = pulse.failed(limit) => Err(ReplicateError::Stalled(limit)),
        }
    }
}
