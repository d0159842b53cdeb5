//! One session: from the last checkpoint to the feed's end, recording checkpoints on the way and at the end.
//!
//! Two things go on at once. Copying reads the feed and copies batch after batch, and tells of each that is finished, in order.
//! Recording keeps failures and records a checkpoint some time after progress. Either ends the other: when copying has come
//! to its end, the last checkpoint is recorded; when recording fails, nothing new is begun. A database that isn't what it was
//! ([`super::loss`]) ends the session, and the caller starts another.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::checkpoint::{Beginning, Session};
use super::failures::{FailureList, sweep};
use super::job::{Job, Stage};
use super::life::Life;
use super::loss::RecordError;
use super::seen::Seen;
use super::{ReplicateError, batch, changes};
use crate::document::Seq;
use crate::peer::{DatabaseInfo, Filter, Peer, PeerError};

/// Why a session ended early.
pub enum Ended {
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
pub async fn run(
    job: &Job,
    source: (&Peer, DatabaseInfo),
    target: (&Peer, DatabaseInfo),
    failures: &FailureList,
) -> Result<Session, Ended> {
    let log_ids = if job.request.use_checkpoints { &job.log_ids[..] } else { &[] };
    let peers = (source.0, target.0);
    let first_copy = target.1.documents == Some(0);
    let seen = first_copy.then(|| Arc::new(Seen::of(source.1.documents.unwrap_or(UNTOLD_DOCUMENTS))));
    let begin = Beginning {
        since: job.request.since_seq.clone(),
        caught_up: job.caught_up.clone(),
        unproven: job.context.unproven.clone(),
    };
    let starting = Session::start(source, target, log_ids, begin, &job.progress);
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
    let reading = changes::FeedOptions {
        source: source.clone(),
        since,
        limit: life.batch_size,
        filter: job.filter(),
        winners_only: job.request.winning_revs_only,
        continuous: job.request.continuous,
        linger: job.linger.clone(),
    };
    let filtered = reading.filter != Filter::None;
    let caught_up = || {
        job.progress.reached_end();
        job.stage.send_replace(Stage::CaughtUp);
    };
    let pages = changes::pages(reading, caught_up, job.context.tasks.clone(), job.places.clone(), scope.clone());
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
                if let (Some(seen), Some(0)) = (&life.seen, pending) {
                    seen.forget();
                }
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
/// No checkpoint passes a document whose failure isn't kept. A continuous replication looks now and then which still stand. And where its
/// feed doesn't go on, whether the source is still the same database: one that was made anew, and has come just as far, has nothing to say.
async fn record(
    job: &Job,
    mut session: Session,
    mut finished: watch::Receiver<Seq>,
    (failures, target): (&FailureList, &Peer),
) -> Result<Session, RecordError> {
    let (mut next_sweep, mut unswept) = (Instant::now(), false);
    let mut is_first = true;
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
            job.stop.run_until_cancelled(sweep::standing(failures, target)).await;
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
        let stands = *session.recorded_seq() == seq;
        if stands && !is_first && job.request.continuous {
            job.stop.run_until_cancelled(session.source_still_stands()).await.unwrap_or(Ok(()))?;
        }
        is_first = false;
        let is_new = job.request.use_checkpoints && !stands;
        let (recorded, counters) = (session.record(&seq, &job.progress).await, job.context.databases.counters());
        match &recorded {
            Ok(()) if is_new => counters.checkpoints.increment(),
            Ok(()) => {}
            Err(_) => counters.checkpoint_failures.increment(),
        }
        recorded?;
        unswept = job.request.continuous && failures.may_hold();
    }
}

/// Documents of a source that doesn't tell how many it has, for the memory of what came.
const UNTOLD_DOCUMENTS: u64 = 10_000;

/// How many times as long as a sweep of the failures a continuous replication waits before the next one.
const SWEEP_PART: u32 = 100;

/// Waits for the interval, or until copying ends.
async fn wait_or_end(interval: Duration, finished: &mut watch::Receiver<Seq>) {
    // Both ends of this wait are good: the time is over, or the sender is gone.
    _ = tokio::time::timeout(interval, finished.wait_for(|_| false)).await;
}
