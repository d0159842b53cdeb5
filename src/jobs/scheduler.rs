//! Gives jobs their lives, as [`super::schedule`] decides, and writes down what came of them.
//!
//! A job has a task only while it lives. Between two lives it is an entry in two maps and no more; one timer waits for all.
//! Each life goes on from the last checkpoint. Whoever stops a job lets the life that it has record what is done, for so long as
//! `stop_deadline` says; then it is dropped where it stands, which loses nothing but work.
//!
//! Whoever has to learn of a job's state ([`Scheduler::changed`]) is told which jobs to look at, not what happened: so what happened
//! twice is looked at once, and nothing queues up.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::Instrument as _;

use super::gates::{Gate, GatePauses};
use super::history::EventKind;
use super::replication::{Replication, needs, shared};
use super::running::{Finished, RunningJobs};
use super::schedule::{Failed, Limits, Number, Schedule, Start};
use super::wakes::{Wake, Wakes};
use crate::access::Caller;
use crate::accounts::Accounts;
use crate::config::Replicator;
use crate::counters::ReplicatorCounters;
use crate::effort::pauses::jittered;
use crate::endpoint::Endpoint;
use crate::replicate::error::Shared;
use crate::replicate::{self, Context, Job, Linger, Outcome, ReplicateError, Stage};

/// A life that lasted so long was a good one, as in CouchDB (`[replicator] health_threshold`).
const HEALTHY: Duration = Duration::from_secs(120);

/// After so long a life that still copies makes room, if others wait for its turn: it goes on when they have had theirs.
const TURN: Duration = Duration::from_secs(60);

/// Gives jobs their lives. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    running: RunningJobs,
    /// Looks up the roles that owners of documents have; absent in tests.
    accounts: Option<Accounts>,
    /// Never held while anything else is locked, nor across an await.
    scheduled: Mutex<Scheduled>,
    /// The timer is to look again.
    timer: Notify,
    wakes: Wakes,
    /// Jobs of documents that something happened to.
    changed: Mutex<HashMap<Number, Arc<Replication>>>,
    /// Counts how often something was put there.
    change: watch::Sender<u64>,
}

struct Scheduled {
    schedule: Schedule,
    jobs: HashMap<Number, Known>,
}

struct Known {
    job: Arc<Replication>,
    /// Dropped with its last life.
    _ended: DropGuard,
}

impl Scheduler {
    /// No job yet.
    pub fn new(context: Context, running: RunningJobs, accounts: Option<Accounts>) -> Self {
        let schedule = Schedule::new(limits(&context.settings));
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let inner = inner.clone();
            let woken = move |job, wake| {
                if let Some(inner) = inner.upgrade() {
                    Self { inner }.woken(job, wake);
                }
            };
            Inner {
                context: context.clone(),
                running,
                accounts,
                scheduled: Mutex::new(Scheduled { schedule, jobs: HashMap::new() }),
                timer: Notify::new(),
                wakes: Wakes::new(context.clone(), Arc::new(woken)),
                changed: Mutex::default(),
                change: watch::Sender::new(0),
            }
        });
        Self { inner }
    }

    /// Begins to listen to what happens at sources, and to give jobs their next lives when their pauses are over.
    pub fn begin(&self) {
        let Inner { context, wakes, .. } = &*self.inner;
        wakes.listen();
        let (scheduler, stop) = (self.clone(), context.tasks.stopping().clone());
        let timing = async move { _ = stop.run_until_cancelled(scheduler.keep_time()).await };
        drop(context.tasks.spawn("scheduler", timing));
    }

    /// Adds a job. `at_once`: somebody waits for it. `ended` is dropped with its last life.
    pub fn add(&self, job: Arc<Replication>, at_once: bool, ended: DropGuard) {
        self.counters().jobs_added.increment();
        // From before its first life on.
        if job.request.continuous {
            self.inner.wakes.watch(job.number, &job.request.source);
        }
        let paused = job.status().paused;
        {
            let mut scheduled = self.scheduled();
            scheduled.schedule.add(job.number, needs(&job.endpoints()), (at_once, paused));
            scheduled.jobs.insert(job.number, Known { job, _ended: ended });
        }
        self.start_lives();
    }

    /// Somebody pauses a job, or lets it go on. Tells whether that is news.
    pub fn set_paused(&self, job: &Arc<Replication>, paused: bool) -> bool {
        let is_news = {
            let mut scheduled = self.scheduled();
            let schedule = &mut scheduled.schedule;
            if paused { schedule.pause(job.number) } else { schedule.resume(job.number) }
        };
        job.status().paused = paused;
        if is_news && paused {
            self.counters().jobs_stopped.increment();
            let mut status = job.status();
            status.history.add(EventKind::Stopped, None);
            (status.waits, status.next_try, status.error_count) = (false, None, 0);
            status.stated |= status.reason.take().is_some();
            drop(status);
            job.end_life();
            self.note(job);
            self.inner.running.tell(&job.id.to_string(), job.number, &ReplicateError::Paused);
        }
        self.start_lives();
        is_news
    }

    /// Somebody wants a job tried now.
    pub fn retry(&self, job: Number) {
        self.scheduled().schedule.retry(job);
        self.start_lives();
    }

    /// A job that was taken off the map ends; if it has no life, at once.
    pub fn removed(&self, job: &Replication) {
        if !self.scheduled().schedule.lives(job.number) {
            self.forget(job);
        }
    }

    /// Whether a job waits because of what it shares with others; and when it is tried next, as far as that is known.
    pub fn waits(&self, job: Number) -> (bool, Option<SystemTime>) {
        let scheduled = self.scheduled();
        let next = scheduled.schedule.next_try(job);
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        (scheduled.schedule.waits_at_gate(job), left.map(|left| SystemTime::now() + left))
    }

    /// Asks a server something that is asked for before there is a job, when what jobs share allows it.
    ///
    /// # Errors
    /// The answer's, or when it may be asked, if that is known: its server is down, or refuses its login.
    pub async fn ask<T>(
        &self,
        endpoint: &Endpoint,
        question: impl Future<Output = Result<T, ReplicateError>>,
    ) -> Result<Result<T, ReplicateError>, Option<Instant>> {
        let needs = needs(&[endpoint]);
        let tried = self.scheduled().schedule.enter(&needs, Instant::now())?;
        let mut leaving = Leaving { scheduler: self, needs, tried, failed: Err(None) };
        let answer = question.await;
        leaving.failed = match &answer {
            Ok(_) | Err(ReplicateError::NotFound(_) | ReplicateError::DatabaseNotFound(_)) => Ok(()),
            Err(error) => Err(shared(&[endpoint], error)),
        };
        drop(leaving);
        Ok(answer)
    }

    /// Jobs of documents that something happened to since this was asked last.
    pub fn take_changed(&self) -> Vec<Arc<Replication>> {
        let mut changed = self.inner.changed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *changed).into_values().collect()
    }

    /// Tells that there are some.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.change.subscribe()
    }

    fn counters(&self) -> &ReplicatorCounters {
        self.inner.context.databases.counters()
    }

    fn scheduled(&self) -> MutexGuard<'_, Scheduled> {
        self.inner.scheduled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, job: &Replication) {
        self.inner.wakes.unwatch(job.number, &job.request.source);
        let forgotten = {
            let mut scheduled = self.scheduled();
            scheduled.schedule.remove(job.number);
            scheduled.jobs.remove(&job.number)
        };
        if forgotten.is_some() {
            self.counters().jobs_removed.increment();
        }
        // Whoever waits for its end may act at once.
        drop(forgotten);
        self.start_lives();
    }

    /// Notes that something happened to a job.
    pub fn note(&self, job: &Arc<Replication>) {
        if job.document.is_some() {
            self.inner.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(job.number, job.clone());
            self.inner.change.send_modify(|changes| *changes += 1);
        }
    }

    fn woken(&self, job: Number, wake: Wake) {
        {
            let mut scheduled = self.scheduled();
            if wake == Wake::MadeAnew
                && let Some(known) = scheduled.jobs.get(&job)
            {
                let mut status = known.job.status();
                status.caught_up = None;
                status.made_anew += 1;
            }
            scheduled.schedule.woken(job, Instant::now());
        }
        self.start_lives();
    }

    async fn keep_time(&self) {
        loop {
            let next = self.scheduled().schedule.next_start();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.inner.timer.notified() => {}
                () = due => self.start_lives(),
            }
        }
    }

    /// Starts all lives that may begin now.
    fn start_lives(&self) {
        if self.inner.context.tasks.stopping().is_cancelled() {
            return;
        }
        loop {
            let (job, lingers) = {
                let mut scheduled = self.scheduled();
                let Some(Start { job, lingers }) = scheduled.schedule.start(Instant::now()) else { break };
                let Some(known) = scheduled.jobs.get(&job) else { continue };
                (known.job.clone(), lingers)
            };
            self.counters().jobs_started.increment();
            let address = &self.inner.context.identity.address;
            let span = tracing::info_span!(
                "replication",
                replication.id = job.id.to_string(),
                source = job.request.source.display(address),
                target = job.request.target.display(address),
            );
            let life = self.clone().live(job, lingers).instrument(span);
            drop(self.inner.context.tasks.spawn("replication", life.boxed()));
        }
        self.inner.timer.notify_one();
    }

    /// One life of a job, and what comes after it.
    async fn live(self, job: Arc<Replication>, lingers: bool) {
        let begun = Instant::now();
        let through = job.progress.position().through_seq;
        let made_anew = job.status().made_anew;
        {
            let mut status = job.status();
            status.next_try = None;
            if status.history.newest().is_none_or(|event| event.kind != EventKind::Started) {
                status.history.add(EventKind::Started, None);
                tracing::info!("replication started");
            }
        }
        let result = match self.caller(&job).await {
            Ok(caller) => self.life(&job, caller, lingers).await,
            Err(error) => Err(error),
        };
        let healthy = begun.elapsed() >= HEALTHY || job.progress.position().through_seq != through;
        self.ended(&job, result, (healthy, made_anew)).await;
    }

    async fn life(
        &self,
        job: &Arc<Replication>,
        caller: Arc<Caller>,
        lingers: bool,
    ) -> Result<Outcome, ReplicateError> {
        let context = &self.inner.context;
        let time = if lingers { job.checkpoint_interval(context) } else { Duration::ZERO };
        let linger = self.inner.wakes.told(&job.request.source).map(|told| Linger { time, told });
        let life: Job = job.job(context, caller, linger);
        let mut stages = life.stage.subscribe();
        let mut running = pin!(AssertUnwindSafe(replicate::run(&life)).catch_unwind());
        let mut too_late = pin!(async {
            life.stop.cancelled().await;
            tokio::time::sleep(context.settings.stop_deadline).await;
        });
        let mut turn = pin!(tokio::time::sleep(TURN));
        loop {
            tokio::select! {
                biased;
                ended = &mut running => return ended.unwrap_or(Err(ReplicateError::Crashed)),
                () = &mut too_late => return Err(ReplicateError::Cancelled),
                () = &mut turn => {
                    turn.set(tokio::time::sleep(TURN));
                    if job.outlives_failures() && self.scheduled().schedule.is_wanted(job.number) {
                        life.stop.cancel();
                    }
                }
                Ok(()) = stages.changed() => {
                    let stage = *stages.borrow_and_update();
                    self.reached(job, stage);
                }
            }
        }
    }

    /// The rights that a job has now: those of who asked for it, or of its document's owner.
    async fn caller(&self, job: &Replication) -> Result<Arc<Caller>, ReplicateError> {
        let Some(accounts) = self.inner.accounts.as_ref().filter(|_| job.document.is_some()) else {
            return Ok(job.caller.clone());
        };
        owner(accounts, job.owner()).await.map(Arc::new)
    }

    fn reached(&self, job: &Arc<Replication>, stage: Stage) {
        self.scheduled().schedule.reached(job.number, stage);
        if stage == Stage::Copying {
            job.status().waits = false;
        }
        if job.request.continuous {
            self.inner.wakes.opened(&job.request.source);
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
            status.error_count = 0;
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
                self.scheduled().schedule.stopped(job.number);
                self.settle(job).await;
            }
            Err(error) if !job.outlives_failures() => {
                tracing::warn!(error = %error.chain(), "replication failed");
                // What it met, others needn't meet.
                self.scheduled().schedule.failed(job.number, &failed(job, &error, healthy, context), Instant::now());
                running.end(&id, job.number, Err(error)).await;
                self.forget(job);
            }
            Err(error) => {
                self.crashed(job, error, healthy);
                self.settle(job).await;
            }
        }
    }

    /// Forgets a job that was taken off the map while its life ended; else others may start.
    async fn settle(&self, job: &Replication) {
        if job.stop.is_cancelled() {
            self.inner.running.end(&job.id.to_string(), job.number, Err(ReplicateError::Cancelled)).await;
            self.forget(job);
        }
        self.start_lives();
    }

    fn crashed(&self, job: &Arc<Replication>, error: ReplicateError, healthy: bool) {
        let Inner { context, running, .. } = &*self.inner;
        self.counters().jobs_crashed.increment();
        let now = Instant::now();
        let until = self.scheduled().schedule.failed(job.number, &failed(job, &error, healthy, context), now);
        let pause = until.map(|until| until - now);
        let reason: Arc<str> = reason(&error).into();
        let pause_ms = pause.map(|pause| pause.as_millis() as u64);
        tracing::warn!(error = &*reason, pause_ms, "replication failed; it is tried again");
        {
            let mut status = job.status();
            status.history.add(EventKind::Crashed, Some(reason.clone()));
            status.waits = false;
            status.error_count = if healthy { 1 } else { status.error_count + 1 };
            status.reason = Some(reason);
            status.next_try = pause.map(|pause| SystemTime::now() + pause);
        }
        self.note(job);
        running.tell(&job.id.to_string(), job.number, &error);
    }
}

/// Tells the schedule what became of a question, even if nobody waits for it any more.
struct Leaving<'a> {
    scheduler: &'a Scheduler,
    needs: Vec<Gate>,
    tried: Vec<Gate>,
    failed: Result<(), Option<Gate>>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let failed = match &self.failed {
            Ok(()) => Ok(()),
            Err(gate) => Err(gate.as_ref()),
        };
        self.scheduler.scheduled().schedule.leave((&self.needs, &self.tried), failed, Instant::now());
        self.scheduler.start_lives();
    }
}

/// Why a replication fails, with the word that CouchDB has before its reason.
pub fn reason(error: &ReplicateError) -> String {
    let word = match error {
        ReplicateError::DatabaseNotFound(_) => "db_not_found: ",
        ReplicateError::Unresolved(_) => "nxdomain: ",
        _ => "",
    };
    format!("{word}{}", error.chain())
}

/// Who the owner of a document is now. Where there are no admins, everyone is one.
pub async fn owner(accounts: &Accounts, name: Option<&str>) -> Result<Caller, ReplicateError> {
    if !accounts.has_admins() {
        return Ok(Caller { name: name.map(str::to_owned), ..Caller::server_admin() });
    }
    let Some(name) = name else { return Ok(Caller::default()) };
    let known = accounts.caller(name).await.map_err(|refused| ReplicateError::Unauthorized(refused.to_string()))?;
    Ok(known.unwrap_or_else(|| Caller { name: Some(name.to_owned()), ..Caller::default() }))
}

/// What a failure means for the schedule.
fn failed(job: &Replication, error: &ReplicateError, healthy: bool, context: &Context) -> Failed {
    let at = shared(&job.endpoints(), error);
    // A server may say for how long, and an account bears few refused logins.
    let asked = job.endpoints().map(|endpoint| context.databases.left_alone(endpoint));
    let refused = match error.shared() {
        Some(Shared::Login(_)) => jittered(context.settings.refused_pause),
        _ => Duration::ZERO,
    };
    let at_least = asked.into_iter().fold(refused, Duration::max);
    Failed { at, healthy, at_least }
}

fn limits(settings: &Replicator) -> Limits {
    Limits {
        lives_per_server: settings.lives_per_server,
        lives: settings.lives,
        pause: settings.restart_pause,
        max_pause: settings.max_restart_pause,
        gates: GatePauses {
            origin: settings.restart_pause,
            max_origin: settings.max_probe_pause,
            login: settings.refused_pause,
            max_login: settings.max_refused_pause,
        },
    }
}

impl From<Outcome> for Finished {
    fn from(outcome: Outcome) -> Self {
        // A source that can't be asked any more has nothing new to copy.
        let up_to_date = async move { outcome.source.up_to_date(&outcome.committed_seq).await.unwrap_or(true) };
        Self { answer: outcome.answer, up_to_date: up_to_date.boxed() }
    }
}
