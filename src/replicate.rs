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

use std::time::Duration;

use futures::future::try_join;
use serde_json::Value;

use self::changes::FeedEnd;
pub use self::changes::Linger;
pub use self::checkpoint::CaughtUp;
pub use self::error::ReplicateError;
use self::failures::{FailureList, sweep};
pub use self::job::{Context, Job, Outcome, Stage};
use self::loss::MAX_LOSSES;
use self::session::Ended;
use crate::document::Seq;
use crate::effort::budget::PAGE_BYTES;
use crate::peer::{ChangesQuery, DatabaseInfo, Filter, Peer, PeerError};

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
    if let Some(caught_up) = nothing_since(job, &source).await? {
        let (answer, committed_seq, failures) = (Value::Null, caught_up.since.clone(), job.failure_list(&source));
        return Ok(Outcome {
            answer,
            source,
            committed_seq,
            caught_up: Some(caught_up),
            failures,
            failures_standing: None,
        });
    }
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
    job.stage.send_replace(Stage::Copying);
    let failures = job.failure_list(&source);
    if request.retry_failures {
        let life = job.life(&source, &target);
        let (answer, standing) = documents::copy_failed(&life, &failures, target_info.instance_start_time).await?;
        let committed_seq = source_info.update_seq;
        let failures_standing = Some(standing);
        return Ok(Outcome { answer, source, committed_seq, caught_up: None, failures, failures_standing });
    }
    let copied = copied(job, (&source, source_info), (&target, target_info), &failures).await;
    // What has failed is kept even if the rest failed. What isn't kept wasn't passed by a checkpoint.
    let kept = failures.keep(&job.failures).await.map_err(ReplicateError::from);
    let Copied { answer, committed_seq, caught_up } = copied?;
    kept?;
    // A continuous job has looked at them after its checkpoints.
    let failures_standing = match caught_up {
        Some(_) => None,
        None => job.stop.run_until_cancelled(sweep::standing(&failures, &target)).await.flatten(),
    };
    Ok(Outcome { answer, source, committed_seq, caught_up, failures, failures_standing })
}

/// How long a place in the feed may be known without a checkpoint, if a filter let nothing through.
const UNRECORDED: Duration = Duration::from_secs(600);

/// Whether a job that had caught up finds nothing new: then, up to where its feed has gone on. This is all that a life costs that
/// was given in vain: one request.
async fn nothing_since(job: &Job, source: &Peer) -> Result<Option<CaughtUp>, ReplicateError> {
    // Else a change that comes after this would be told to nobody.
    if !job.linger.as_ref().is_some_and(Linger::is_told) {
        return Ok(None);
    }
    let Some(CaughtUp { since, recorded, run, met }) = job.caught_up.clone() else { return Ok(None) };
    // What a filter let nothing through of is recorded some time, too.
    if since != recorded && met.elapsed() >= UNRECORDED {
        return Ok(None);
    }
    let winners_only = job.request.winning_revs_only;
    let query = ChangesQuery { since, limit: 1, max_bytes: PAGE_BYTES, filter: job.filter(), winners_only };
    let page = match job.opening(&job.request.source, source.changes(&query)).await {
        // It may be a row that is too long for a page.
        Err(ReplicateError::Peer(error)) if matches!(*error, PeerError::TooLong { .. }) => return Ok(None),
        page => page?,
    };
    let ends = FeedEnd::is_at_end(&page, query.filter.is_counted());
    // Without a filter the feed goes on only with a change: another place is that of another database.
    let stands = query.filter != Filter::None || page.last_seq == query.since;
    if !page.changes.is_empty() || !ends || !stands {
        return Ok(None);
    }
    job.progress.read(&page.last_seq);
    let rows = (query.filter == Filter::None).then_some(0);
    job.progress.finished(&page.last_seq, rows, page.pending.rows());
    job.progress.reached_end();
    Ok(Some(CaughtUp { since: page.last_seq, recorded, run, met }))
}

/// What came of copying.
struct Copied {
    answer: Value,
    committed_seq: Seq,
    caught_up: Option<CaughtUp>,
}

/// Copies what is asked for.
async fn copied(
    job: &Job,
    (source, source_info): (&Peer, DatabaseInfo),
    (target, target_info): (&Peer, DatabaseInfo),
    failures: &FailureList,
) -> Result<Copied, ReplicateError> {
    if let Some(ids) = job.request.fetched_directly() {
        let answer = documents::copy(&job.life(source, target), ids, failures, target_info.instance_start_time).await?;
        return Ok(Copied { answer, committed_seq: source_info.update_seq, caught_up: None });
    }
    let mut told = (source_info, target_info);
    let (mut losses, mut reached) = (0, None);
    loop {
        let loss = match session::run(job, (source, told.0), (target, told.1), failures).await {
            Err(Ended::Lost(loss)) => loss,
            Err(Ended::Failed(error)) => return Err(error),
            Ok(session) => {
                let committed_seq = session.recorded_seq().clone();
                let since = job.progress.position().through_seq;
                let caught_up = job.request.continuous.then(|| session.caught_up(since));
                return Ok(Copied { answer: session.answer(), committed_seq, caught_up });
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
