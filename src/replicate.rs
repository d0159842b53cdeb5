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

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{join, try_join};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use self::checkpoint::Session;
pub use self::error::ReplicateError;
use self::failures::FailureList;
pub use self::job::{Context, Job, Outcome};
use self::life::Life;
use self::loss::{MAX_LOSSES, RecordError};
use self::seen::Seen;
use crate::document::Seq;
use crate::peer::{DatabaseInfo, Filter, Peer, PeerError};

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
    let failures_standing = job.stop.run_until_cancelled(standing(&failures, &target)).await.flatten();
    Ok(Outcome { answer, source, committed_seq, failures, failures_standing })
}

/// Looks which failures still stand after a one-shot. That it can't be found out changes nothing about what was copied.
async fn standing(failures: &FailureList, target: &Peer) -> Option<u64> {
    let swept = failures::sweep::sweep(failures, target).await;
    swept.inspect_err(|error| tracing::warn!(%error, "it could not be found out which failures still stand")).ok()
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
        let loss = match session(job, (source, told.0), (target, told.1), failures).await {
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

/// Why a session ended early.
enum Ended {
    /// A database, or its checkpoint, isn't what it was: to be started again ([`RecordError::is_loss`]).
    Lost(RecordError),
    /// Anything else.
    Failed(ReplicateError),
}

impl From<RecordError> for Ended {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Peer(error) => Self::Failed(error.into()),
            loss => Self::Lost(loss),
        }
    }
}

impl From<PeerError> for Ended {
    fn from(error: PeerError) -> Self {
        Self::Failed(error.into())
    }
}

/// From the last checkpoint to the feed's end, recording checkpoints on the way and at the end.
///
/// Returns only when no batch is under way any more, whatever failed.
async fn session(
    job: &Job,
    source: (&Peer, DatabaseInfo),
    target: (&Peer, DatabaseInfo),
    failures: &FailureList,
) -> Result<Session, Ended> {
    let log_ids = if job.request.use_checkpoints { &job.log_ids[..] } else { &[] };
    let peers = (source.0, target.0);
    let first_copy = target.1.documents == Some(0);
    let seen = first_copy.then(|| Arc::new(Seen::of(source.1.documents.unwrap_or(u64::MAX))));
    let starting = Session::start(source, target, log_ids, job.request.since_seq.clone(), &job.progress);
    let starting = job.stop.run_until_cancelled(starting).await;
    let session = starting.ok_or(Ended::Failed(ReplicateError::Cancelled))??;
    let (finished, progress) = watch::channel(session.start_seq().clone());
    let since = session.start_seq().clone();
    // Cancelled, batches under way finish what they write and begin nothing new.
    let scope = job.stop.child_token();
    let copying = copy(job, peers, (since, seen), finished, failures, &scope);
    let recording = async {
        let recorded = record(job, session, progress, (failures, peers.1)).await;
        // Nothing that is copied now could be recorded.
        recorded.inspect_err(|_| scope.cancel())
    };
    match join(copying, recording).await {
        (_, Err(loss)) if loss.is_loss() => Err(Ended::Lost(loss)),
        // Copying that was ended because recording failed isn't why.
        (Err(ReplicateError::Cancelled), Err(error)) if !job.stop.is_cancelled() => Err(error.into()),
        (Err(error), _) => Err(Ended::Failed(error)),
        (Ok(()), recorded) => recorded.map_err(Ended::from),
    }
}

/// Copies batch after batch, several at once, and tells of each that is finished, in order.
///
/// Returns only when no batch is under way any more; dropped, it ends them where they stand.
async fn copy(
    job: &Job,
    (source, target): (&Peer, &Peer),
    (since, seen): (Seq, Option<Arc<Seen>>),
    finished: watch::Sender<Seq>,
    failures: &FailureList,
    scope: &CancellationToken,
) -> Result<(), ReplicateError> {
    let life = Life { stop: scope.clone(), seen, ..job.life(source, target) };
    let reading = changes::Reading {
        source: source.clone(),
        since,
        limit: life.batch_size,
        filter: job.filter(),
        winners_only: job.request.winning_revs_only,
        continuous: job.request.continuous,
    };
    let filtered = reading.filter != Filter::None;
    let pages = changes::pages(reading, job.context.tasks.clone(), job.places.clone(), scope.clone());
    let batches = pages.map(|page| {
        let batch = page.map(|(page, place)| {
            job.progress.read(&page.last_seq);
            let span = tracing::info_span!("batch", seq = %page.last_seq);
            let rows = (!filtered).then_some(page.changes.len() as u64);
            let copying = batch::copy(life.clone(), page.changes).instrument(span);
            let copying = AbortOnDropHandle::new(job.context.tasks.spawn("batch", copying));
            (page.last_seq, rows, page.pending.rows(), copying, place)
        });
        async move {
            let (seq, rows, pending, copying, _place) = batch?;
            copying.await.unwrap_or(Err(ReplicateError::Crashed))?;
            Ok((seq, rows, pending))
        }
    });
    let mut batches = std::pin::pin!(batches.buffered(life.batches));
    while let Some(batch) = batches.next().await {
        // No batch is begun meanwhile, so that what isn't kept yet stays within bounds.
        let kept = if job.failures.is_full() { failures.keep(&job.failures).await } else { Ok(()) };
        match kept.map_err(ReplicateError::from).and(batch) {
            Ok((seq, rows, pending)) => {
                job.progress.finished(&seq, rows, pending);
                finished.send_replace(seq);
            }
            Err(error) => {
                drain(scope, batches).await;
                return Err(error);
            }
        }
    }
    if scope.is_cancelled() { Err(ReplicateError::Cancelled) } else { Ok(()) }
}

/// Lets batches under way finish their writes.
async fn drain<T>(scope: &CancellationToken, mut batches: impl futures::Stream<Item = T> + Unpin) {
    scope.cancel();
    while batches.next().await.is_some() {}
}

/// Records checkpoints: some time after progress, and when there will be no more of it.
///
/// No checkpoint passes a document whose failure isn't kept. A continuous replication looks now and then which still stand.
async fn record(
    job: &Job,
    mut session: Session,
    mut finished: watch::Receiver<Seq>,
    (failures, target): (&FailureList, &Peer),
) -> Result<Session, RecordError> {
    let (mut next_sweep, mut unswept) = (Instant::now(), false);
    loop {
        let due = unswept && Instant::now() >= next_sweep;
        let more = tokio::select! {
            biased;
            () = std::future::ready(()), if due => None,
            more = finished.changed() => Some(more.is_ok()),
            () = tokio::time::sleep_until(next_sweep), if unswept => None,
        };
        let Some(more) = more else {
            let begun = Instant::now();
            job.stop.run_until_cancelled(standing(failures, target)).await;
            (next_sweep, unswept) = (Instant::now() + begun.elapsed() * SWEEP_PART, false);
            continue;
        };
        if !more {
            return Ok(session);
        }
        wait_or_end(job.checkpoint_interval(), &mut finished).await;
        let seq = finished.borrow_and_update().clone();
        let _work = job.progress.pulse().work();
        failures.keep(&job.failures).await?;
        session.record(&seq, &job.progress).await?;
        unswept = job.request.continuous && failures.may_hold();
    }
}

/// How many times as long as a sweep of the failures a continuous replication waits before the next one.
const SWEEP_PART: u32 = 100;

/// Waits for the interval, or until copying ends.
async fn wait_or_end(interval: Duration, finished: &mut watch::Receiver<Seq>) {
    // Both ends of this wait are good: the time is over, or the sender is gone.
    _ = tokio::time::timeout(interval, finished.wait_for(|_| false)).await;
}
