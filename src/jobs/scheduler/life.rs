//! A job's life: one run of the replicator under the rights that its owner has now, and what comes after it.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::Fuse;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inner, Scheduler};
use crate::access::Caller;
use crate::effort::pauses::jittered;
use crate::jobs::history::EventKind;
use crate::jobs::replication::{Replication, shared};
use crate::jobs::running::Finished;
use crate::jobs::schedule::Failed;
use crate::replicate::error::Shared;
use crate::replicate::{self, Context, Job, Linger, Outcome, ReplicateError, Stage};

/// A life that lasted so long was a good one, as in CouchDB (`[replicator] health_threshold`).
const HEALTHY: Duration = Duration::from_secs(120);

/// A life that still copies after this long ends if another job waits for its turn, and goes on later; not before it has got somewhere,
/// or it might begin with the same for ever. As often its owner's roles are read again: a life whose owner's roles have changed ends too.
const TURN: Duration = Duration::from_secs(60);

impl Scheduler {
    /// One life of a job, `after` the last one of the job that had its id before, and what comes after it.
    pub(super) async fn live(self, job: Arc<Replication>, after: Option<CancellationToken>, lingers: bool) {
        let led = AssertUnwindSafe(self.lead(&job, after, lingers)).catch_unwind().await;
        if led.is_err() {
            // Whatever it had got to: what it holds of the schedule is given back.
            self.ended(&job, Err(ReplicateError::Crashed), (false, 0)).await;
        }
    }

    async fn lead(&self, job: &Arc<Replication>, after: Option<CancellationToken>, lingers: bool) {
        if let Some(before) = after {
            before.cancelled().await;
        }
        let begun = Instant::now();
        let through = job.progress.position().through_seq;
        let made_anew = job.status().made_anew;
        {
            let mut status = job.status();
            status.next_try = None;
            // One that was paused meanwhile has been told as stopped.
            if !status.paused && !status.history.is_newest(EventKind::Started) {
                status.history.add(EventKind::Started, None);
                tracing::info!("replication started");
            }
        }
        let result = match self.caller(job).await {
            Ok(caller) => self.life(job, caller, lingers).await,
            Err(error) => Err(error),
        };
        let healthy = begun.elapsed() >= HEALTHY || job.progress.position().through_seq != through;
        self.ended(job, result, (healthy, made_anew)).await;
    }

    async fn life(
        &self,
        job: &Arc<Replication>,
        caller: Arc<Caller>,
        lingers: bool,
    ) -> Result<Outcome, ReplicateError> {
        let context = &self.inner.context;
        let time = if lingers { job.checkpoint_interval(context) } else { Duration::ZERO };
        let linger = self.inner.wakes.told(&job.request.source, &job.caller).map(|told| Linger { time, told });
        let life: Job = job.job(context, caller.clone(), linger);
        let mut stages = life.stage.subscribe();
        let mut running = pin!(AssertUnwindSafe(replicate::run(&life)).catch_unwind());
        let mut too_late = pin!(async {
            life.stop.cancelled().await;
            tokio::time::sleep(context.settings.stop_deadline).await;
        });
        let through = || job.progress.position().through_seq;
        let mut asked = pin!(Fuse::terminated());
        let (mut turn, mut before) = (pin!(tokio::time::sleep(TURN)), through());
        loop {
            tokio::select! {
                biased;
                ended = &mut running => return ended.unwrap_or(Err(ReplicateError::Crashed)),
                () = &mut too_late => return Err(ReplicateError::Cancelled),
                () = &mut turn => {
                    turn.set(tokio::time::sleep(TURN));
                    let may_end = std::mem::replace(&mut before, through()) != before && job.outlives_failures();
                    let is_wanted = may_end && self.scheduled().schedule.is_wanted(job.number, Instant::now());
                    if is_wanted {
                        life.stop.cancel();
                    }
                    // Copying goes on meanwhile: it may be a question to a server.
                    asked.set(self.caller(job).fuse());
                }
                now = &mut asked => if now.is_ok_and(|now| now.roles != caller.roles) {
                    life.stop.cancel();
                },
                Ok(()) = stages.changed() => {
                    let stage = *stages.borrow_and_update();
                    self.reached(job, stage);
                }
            }
        }
    }

    /// The rights that a job has now: those of who asked for it, or of its document's owner.
    pub async fn caller(&self, job: &Replication) -> Result<Arc<Caller>, ReplicateError> {
        let Some((owners, place)) = self.inner.owners.as_ref().zip(job.document.as_ref()) else {
            return Ok(job.caller.clone());
        };
        owners.find(&place.database, job.owner()).await.map(Arc::new)
    }

    fn reached(&self, job: &Arc<Replication>, stage: Stage) {
        self.scheduled().schedule.reached(job.number, stage);
        if stage == Stage::Copying {
            job.status().waits = false;
        }
        if job.request.continuous {
            self.inner.wakes.opened(&job.request.source, &job.caller);
        }
        if stage == Stage::CaughtUp {
            self.is_well(job);
        }
        self.start_lives();
    }

    /// Notes that a job has copied all that there was.
    fn is_well(&self, job: &Arc<Replication>) {
        let was_ill = {
            let mut status = job.status();
            (status.last_success, status.waits) = (Some(SystemTime::now()), true);
            (status.error_count, status.failing_since) = (0, None);
            std::mem::take(&mut status.stated) | status.reason.take().is_some()
        };
        if was_ill {
            self.note(job);
        }
    }

    async fn ended(
        &self,
        job: &Arc<Replication>,
        result: Result<Outcome, ReplicateError>,
        (healthy, made_anew): (bool, u64),
    ) {
        let Inner { context, running, .. } = &*self.inner;
        let id = job.id.to_string();
        match result {
            Ok(outcome) if job.request.continuous && outcome.caught_up.is_some() => {
                {
                    let mut status = job.status();
                    // Else it is of a database that isn't there any more.
                    if status.made_anew == made_anew {
                        status.caught_up = outcome.caught_up;
                    }
                }
                self.is_well(job);
                self.scheduled().schedule.caught_up(job.number, Instant::now());
                self.settle(job).await;
            }
            Ok(outcome) => {
                tracing::info!(seq = %outcome.committed_seq, "replication finished");
                self.is_well(job);
                job.status().completed = true;
                running.end(&id, job.number, Ok(outcome.into())).await;
                self.note(job);
                self.forget(job);
            }
            Err(error) if job.stop.is_cancelled() => {
                tracing::info!("replication stopped");
                let error = if context.tasks.stopping().is_cancelled() { ReplicateError::ShuttingDown } else { error };
                running.end(&id, job.number, Err(error)).await;
                self.forget(job);
            }
            // Somebody has paused it, or others waited for its turn.
            Err(ReplicateError::Cancelled) => {
                tracing::info!("the replication's life was ended");
                {
                    let mut status = job.status();
                    if status.history.is_newest(EventKind::Started) {
                        self.counters().jobs_stopped.increment();
                        status.history.add(EventKind::Stopped, None);
                    }
                }
                self.scheduled().schedule.stopped(job.number);
                self.settle(job).await;
            }
            Err(error) if !job.outlives_failures() => {
                tracing::warn!(error = %error.chain(), "replication failed");
                // What it met, others needn't meet.
                let failed = failed(job, &error, healthy, context);
                self.scheduled().schedule.failed(job.number, &failed, Instant::now());
                running.end(&id, job.number, Err(error)).await;
                self.forget(job);
            }
            Err(error) => {
                self.crashed(job, error, healthy);
                self.settle(job).await;
            }
        }
    }

    /// Forgets a job that was taken off the map while its life ended; else others may start, or it itself, which forgets it then.
    async fn settle(&self, job: &Replication) {
        if job.stop.is_cancelled() {
            self.inner.running.end(&job.id.to_string(), job.number, Err(ReplicateError::Cancelled)).await;
            self.removed(job);
        }
        self.start_lives();
    }

    fn crashed(&self, job: &Arc<Replication>, error: ReplicateError, healthy: bool) {
        let Inner { context, running, .. } = &*self.inner;
        self.counters().jobs_crashed.increment();
        let now = Instant::now();
        let failed = failed(job, &error, healthy, context);
        let until = self.scheduled().schedule.failed(job.number, &failed, now);
        let pause = until.map(|until| until - now);
        let reason: Arc<str> = reason(&error).into();
        let pause_ms = pause.map(|pause| pause.as_millis() as u64);
        tracing::warn!(error = &*reason, pause_ms, "replication failed; it is tried again");
        {
            let mut status = job.status();
            status.history.add(EventKind::Crashed, Some(reason.clone()));
            status.waits = false;
            status.error_count = if healthy { 1 } else { status.error_count + 1 };
            if status.error_count == 1 {
                status.failing_since = Some(SystemTime::now());
            }
            status.reason = Some(reason);
            status.next_try = pause.map(|pause| SystemTime::now() + pause);
        }
        self.note(job);
        running.tell(&job.id.to_string(), job.number, &error);
    }
}

/// Why a replication fails, with the word that CouchDB has before its reason.
pub fn reason(error: &ReplicateError) -> String {
    let word = match error {
        ReplicateError::DatabaseNotFound(_) => "db_not_found: ",
        ReplicateError::Unresolved(_) => "nxdomain: ",
        ReplicateError::Forbidden(_) => "forbidden: ",
        _ => "",
    };
    format!("{word}{}", error.chain())
}

/// What a failure means for the schedule.
fn failed(job: &Replication, error: &ReplicateError, healthy: bool, context: &Context) -> Failed {
    let at = shared(&job.endpoints(), job.owner(), error);
    // A server may say for how long, and an account bears few refused logins.
    let asked = job.endpoints().map(|endpoint| context.databases.left_alone(endpoint));
    let refused = match error.shared() {
        // The rules stay; what a name stands for, where a server redirects to and the owner's roles may change.
        _ if matches!(error, ReplicateError::Forbidden(_)) => jittered(context.settings.max_restart_pause),
        Some(Shared::Login(_)) => jittered(context.settings.refused_pause),
        _ => Duration::ZERO,
    };
    let at_least = asked.into_iter().fold(refused, Duration::max);
    Failed { at, healthy, at_least }
}

impl From<Outcome> for Finished {
    fn from(outcome: Outcome) -> Self {
        // A source that can't be asked any more has nothing new to copy.
        let up_to_date = async move { outcome.source.up_to_date(&outcome.committed_seq).await.unwrap_or(true) };
        Self { answer: outcome.answer, up_to_date: up_to_date.boxed() }
    }
}
