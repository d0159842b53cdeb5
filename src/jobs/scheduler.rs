//! Gives jobs their lives, as [`super::schedule`] decides, and writes down what came of them.
//!
//! A job has a task only while it lives ([`life`]). Between two lives it is an entry in two maps and no more; one timer waits for all.
//! Each life goes on from the last checkpoint. Whoever stops a job lets the life that it has record what is done, for so long as
//! `stop_deadline` says; then it is dropped where it stands, which loses nothing but work.
//!
//! Whoever has to learn of a job's state ([`Scheduler::changed`]) is told which jobs to look at, not what happened: so what happened
//! twice is looked at once, and nothing queues up.

pub mod life;
mod questions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::gates::{Gate, GatePauses};
use super::history::EventKind;
use super::owners::Owners;
use super::replication::{Replication, needs};
use super::running::{RunningJobs, Span};
use super::schedule::{Limits, Number, Schedule, Start};
use super::wakes::{Wake, Wakes};
use crate::config::Replicator;
use crate::counters::ReplicatorCounters;
use crate::replicate::{Context, ReplicateError};

/// Gives jobs their lives. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    running: RunningJobs,
    /// Looks up the roles that owners of documents have; absent where none are followed, as beside a CouchDB without an admin.
    owners: Option<Owners>,
    /// Of locks, this one comes after documents' and the registry's, and before a job's own; it is held across no await.
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
    /// Dropped after its last life.
    span: Span,
}

impl Scheduled {
    fn forget(&mut self, job: Number) -> Option<Known> {
        self.schedule.remove(job);
        self.jobs.remove(&job)
    }
}

impl Scheduler {
    /// No job yet.
    pub fn new(context: Context, running: RunningJobs, owners: Option<Owners>) -> Self {
        let schedule = Schedule::new(limits(&context.settings));
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let inner = inner.clone();
            let woken = move |woken| {
                if let Some(inner) = inner.upgrade() {
                    Self { inner }.woken(woken);
                }
            };
            Inner {
                context: context.clone(),
                running,
                owners,
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
        let scheduler = self.clone();
        context.tasks.keep("scheduler", move || scheduler.clone().keep_time());
    }

    /// Adds a job. `at_once`: somebody waits for it.
    pub fn add(&self, job: Arc<Replication>, at_once: bool, span: Span) {
        self.counters().jobs_added.increment();
        // From before its first life on.
        if job.request.continuous {
            self.inner.wakes.watch(job.number, &job.request.source, &job.caller);
        }
        let paused = job.status().paused;
        {
            let mut scheduled = self.scheduled();
            scheduled.schedule.add(job.number, needs(&job.endpoints(), job.owner()), (at_once, paused));
            scheduled.jobs.insert(job.number, Known { job, span });
        }
        self.start_lives();
    }

    /// Somebody pauses a job, or lets it go on. Tells whether that is news.
    pub fn set_paused(&self, job: &Arc<Replication>, paused: bool) -> bool {
        let (is_news, life) = {
            let mut scheduled = self.scheduled();
            // In one step: two who want different things mustn't leave one of them here and the other one there.
            let mut status = job.status();
            status.paused = paused;
            match paused {
                false => (scheduled.schedule.resume(job.number), None),
                true if !scheduled.schedule.pause(job.number) => (false, None),
                true => {
                    status.history.add(EventKind::Stopped, None);
                    (status.waits, status.next_try) = (false, None);
                    (status.error_count, status.failing_since) = (0, None);
                    status.stated |= status.reason.take().is_some();
                    (true, status.take_life())
                }
            }
        };
        if let Some(life) = life {
            life.cancel();
        }
        if is_news && paused {
            self.counters().jobs_stopped.increment();
            self.note(job);
            self.inner.running.tell(&job.id.to_string(), job.number, &ReplicateError::Paused);
        }
        self.start_lives();
        is_news
    }

    /// Somebody wants a job tried now, if it isn't paused.
    pub fn retry(&self, job: Number) {
        self.scheduled().schedule.retry(job);
        self.start_lives();
    }

    /// A job that was taken off the map ends; if it has no life, at once.
    pub fn removed(&self, job: &Replication) {
        let forgotten = {
            let mut scheduled = self.scheduled();
            if scheduled.schedule.lives(job.number) {
                return;
            }
            scheduled.forget(job.number)
        };
        self.forgotten(job, forgotten);
    }

    /// Whether a job waits because of what it shares with others; and when it is tried next, as far as that is known.
    pub fn waits(&self, job: Number) -> (bool, Option<SystemTime>) {
        let scheduled = self.scheduled();
        let next = scheduled.schedule.next_try(job);
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        (scheduled.schedule.waits_at_gate(job), left.map(|left| SystemTime::now() + left))
    }

    /// Whether something that jobs share is shut, and for how long, unless somebody tries it now or may.
    pub fn shut(&self, gate: &Gate) -> Option<Option<Duration>> {
        let until = self.scheduled().schedule.shut_until(gate)?;
        Some(until.checked_duration_since(Instant::now()))
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

    /// A job's last life has ended.
    fn forget(&self, job: &Replication) {
        let forgotten = self.scheduled().forget(job.number);
        self.forgotten(job, forgotten);
    }

    fn forgotten(&self, job: &Replication, forgotten: Option<Known>) {
        self.inner.wakes.unwatch(job.number, &job.request.source, &job.caller);
        if forgotten.is_some() {
            self.counters().jobs_removed.increment();
        }
        // Whoever waits for its end may act at once.
        drop(forgotten);
        self.inner.running.ended(&job.id.to_string(), job.number);
        self.start_lives();
    }

    /// Notes that something happened to a job.
    pub fn note(&self, job: &Arc<Replication>) {
        if job.document.is_some() {
            self.inner.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(job.number, job.clone());
            self.inner.change.send_modify(|changes| *changes += 1);
        }
    }

    fn woken(&self, woken: Vec<(Number, Wake)>) {
        {
            let mut scheduled = self.scheduled();
            let now = Instant::now();
            for (job, wake) in woken {
                if wake == Wake::MadeAnew
                    && let Some(known) = scheduled.jobs.get(&job)
                {
                    let mut status = known.job.status();
                    status.caught_up = None;
                    status.made_anew += 1;
                }
                scheduled.schedule.woken(job, now);
            }
        }
        self.start_lives();
    }

    async fn keep_time(self) {
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
            let (job, after, lingers) = {
                let mut scheduled = self.scheduled();
                let Some(Start { job, lingers }) = scheduled.schedule.start(Instant::now()) else { break };
                let Some(known) = scheduled.jobs.get(&job) else { continue };
                (known.job.clone(), known.span.after.clone(), lingers)
            };
            self.counters().jobs_started.increment();
            let address = &self.inner.context.identity.address;
            // Whoever gave it its turn has nothing to do with it.
            let span = tracing::info_span!(
                parent: None,
                "replication",
                replication.id = job.id.to_string(),
                source = job.request.source.display(address),
                target = job.request.target.display(address),
            );
            let life = self.clone().live(job, after, lingers).instrument(span);
            drop(self.inner.context.tasks.spawn("replication", life.boxed()));
        }
        self.inner.timer.notify_one();
    }
}

fn limits(settings: &Replicator) -> Limits {
    Limits {
        lives_per_server: settings.copying_jobs_per_server,
        lives: settings.copying_jobs,
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
