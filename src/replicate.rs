//! One life of a replication, top to bottom.
//!
//! ```text
//! checkpoint::Session ─► changes ─► batches ─► [ missing ─► fetch ─► write ] × in flight, in order ─► checkpoint
//!     (both peers)       (source)               (target)   (source)  (target)                       (both peers)
//! ```
//!
//! Batches overlap but finish in order, so everything up to the last finished batch's `last_seq` is on the target, and
//! a checkpoint records no more than that. Whatever fails ends this life; the next one, of which nothing is known here, goes
//! on from the last checkpoint; what was written twice changes nothing. So a replication may be stopped, cut or killed
//! anywhere and loses no document.

pub mod request;
pub mod id;
pub mod filter_code;
pub mod job;
pub mod life;
pub mod loss;
pub mod session;
pub mod checkpoint;
pub mod changes;
pub mod batch;
pub mod missing;
pub mod seen;
pub mod fetch;
pub mod write;
pub mod doubt;
pub mod documents;
pub mod failures;
pub mod progress;
pub mod rate;
pub mod error;

use futures::future::try_join;
use serde_json::Value;

pub use self::error::ReplicateError;
use self::failures::{FailureList, sweep};
pub use self::job::{Context, Job, Outcome};
use self::loss::MAX_LOSSES;
use self::session::Ended;
use crate::document::Seq;
use crate::peer::{DatabaseInfo, Peer};

/// One life of a job: from opening the databases to the answer. Ended where it stands still; what is under way then is dropped.
///
/// # Errors
/// [`ReplicateError::Cancelled`] if `job.stop` was cancelled: what had been written then is recorded.
pub async fn run(job: &Job) -> Result<Outcome, ReplicateError> {
    let limit = job.stall_limit();
    tokio::select! {
        biased;
        ended = live(job) => ended,
        () = job.progress.pulse().failed(limit) => Err(ReplicateError::Stalled(limit)),
    }
}

async fn live(job: &Job) -> Result<Outcome, ReplicateError> {
    let request = &job.request;
    let pulse = job.progress.pulse();
    let source = job.context.databases.open(&request.source, &job.caller, pulse).await?;
    let target = job.context.databases.open(&request.target, &job.caller, pulse).await?;
    if !request.use_bulk_get {
        source.avoid_bulk_get();
    }
    let (source_info, target_info) = if request.create_target {
        // A target isn't made for a source that isn't there.
        let source_info = job.opening(&request.source, source.info()).await?;
        job.opening(&request.target, target.create_with(&request.create_target_params)).await?;
        (source_info, job.opening(&request.target, target.info()).await?)
    } else {
        infos(job, &source, &target).await?
    };
    let failures = job.failure_list(&source);
    if request.retry_failures {
        let life = job.life(&source, &target);
        let (answer, standing) = documents::copy_failed(&life, &failures, target_info.instance_start_time).await?;
        let committed_seq = source_info.update_seq;
        return Ok(Outcome { answer, source, committed_seq, failures, failures_standing: Some(standing) });
    }
    let copied = copied(job, (&source, source_info), (&target, target_info), &failures).await;
    // What has failed is kept even if the rest failed. What isn't kept wasn't passed by a checkpoint.
    let kept = failures.keep(&job.failures).await.map_err(ReplicateError::from);
    let (answer, committed_seq) = copied?;
    kept?;
    let failures_standing = job.stop.run_until_cancelled(sweep::standing(&failures, &target)).await.flatten();
    Ok(Outcome { answer, source, committed_seq, failures, failures_standing })
}

/// Copies what is asked for: the answer, and up to where.
async fn copied(
    job: &Job,
    (source, source_info): (&Peer, DatabaseInfo),
    (target, target_info): (&Peer, DatabaseInfo),
    failures: &FailureList,
) -> Result<(Value, Seq), ReplicateError> {
    if let Some(ids) = job.request.fetched_directly() {
        let answer = documents::copy(&job.life(source, target), ids, failures, target_info.instance_start_time).await?;
        return Ok((answer, source_info.update_seq));
    }
    let mut told = (source_info, target_info);
    let (mut losses, mut reached) = (0, None);
    loop {
        let loss = match session::run(job, (source, told.0), (target, told.1), failures).await {
            Err(Ended::Lost(loss)) => loss,
            Err(Ended::Failed(error)) => return Err(error),
            Ok(session) => {
                let committed_seq = session.recorded_seq().clone();
                return Ok((session.answer(), committed_seq));
            }
        };
        // Two replications under one id take turns; that of the two which is later goes on from the other's checkpoint.
        let checkpoint = Some(job.progress.position().checkpointed_source_seq);
        losses = if checkpoint == reached { losses + 1 } else { 1 };
        reached = checkpoint;
        if losses == MAX_LOSSES {
            return Err(loss.again_and_again());
        }
        tracing::warn!(%loss, "starting again from the last checkpoint");
        told = infos(job, source, target).await?;
    }
}

/// Asks both databases how they are.
async fn infos(job: &Job, source: &Peer, target: &Peer) -> Result<(DatabaseInfo, DatabaseInfo), ReplicateError> {
    let (source, target) =
        (job.opening(&job.request.source, source.info()), job.opening(&job.request.target, target.info()));
    try_join(source, target).await
}
