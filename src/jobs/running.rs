//! Which jobs run, and who waits for them.
//!
//! The rules of the seed's `start_replication_server/1` and `get_result/3`, without its races: whoever starts or joins
//! does it while the id's place in the map is locked, and a job that ends takes its entry and everyone who waits out
//! of the map in one step, before anyone is answered. So nobody waits for a job that is gone, and whoever comes later
//! starts anew.
//!
//! A job that is cancelled is off the map at once, and winds down: the next one of its id is there at once too, and is told what its
//! lives have to wait for ([`Span::after`]). So no two lives of one id are led at once.
//!
//! Knows nothing of replicating, nor of lives: whoever starts a job says when it has come to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, VacantEntry};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::replication::Replication;
use super::schedule::Number;
use crate::replicate::ReplicateError;
use crate::replicate::id::ReplicationId;

/// What came of a job's work.
pub struct Finished {
    /// The answer.
    pub answer: Value,
    /// Tells, when asked, whether the answer still covers all that the source has.
    pub up_to_date: BoxFuture<'static, bool>,
}

/// How a job ends for someone who waits for it.
#[derive(Debug)]
pub enum Ending {
    /// The result.
    Result(Result<Value, ReplicateError>),
    /// The job began before the caller asked, and the source has changed since: run again.
    RunAgain,
}

/// A job that runs.
struct Running {
    job: Arc<Replication>,
    /// Cancelled when its last life has ended.
    ended: CancellationToken,
    /// Who waits; the first is who started it.
    listeners: Vec<oneshot::Sender<Ending>>,
}

/// The jobs that run, by id. Cheap to clone.
#[derive(Clone, Default)]
pub struct RunningJobs {
    running: Arc<DashMap<String, Running>>,
    /// What was cancelled and still winds down, by id: the newest. Locked after the other map.
    ending: Arc<DashMap<String, (Number, CancellationToken)>>,
    started: Arc<AtomicU64>,
}

/// Puts the lives of jobs with one id in order.
pub struct Span {
    /// Cancelled when the last life of the job that had the id before has ended.
    pub after: Option<CancellationToken>,
    /// To be dropped when its own last life has ended.
    pub ended: DropGuard,
}

/// A job that was cancelled.
pub struct Cancelled {
    /// The job.
    pub job: Arc<Replication>,
    /// Cancelled when its last life has ended.
    pub ended: CancellationToken,
}

impl RunningJobs {
    /// Starts a job, or joins the one that runs under this id; the receiver gets how it ends.
    ///
    /// `job` and `start` are only called to start; `job` gets its number.
    pub fn start_or_join(
        &self,
        id: &ReplicationId,
        job: impl FnOnce(Number) -> Replication,
        start: impl FnOnce(Arc<Replication>, Span),
    ) -> (Arc<Replication>, oneshot::Receiver<Ending>) {
        let (listener, ending) = oneshot::channel();
        let job = match self.running.entry(id.to_string()) {
            Entry::Occupied(mut running) => {
                let listeners = &mut running.get_mut().listeners;
                // The starter's place stays, so that nobody takes it over; others may have hung up.
                let mut index = 0;
                listeners.retain(|listener| {
                    index += 1;
                    index == 1 || !listener.is_closed()
                });
                listeners.push(listener);
                running.get().job.clone()
            }
            Entry::Vacant(place) => self.start(place, job, start, vec![listener]),
        };
        (job, ending)
    }

    /// The same, but nobody waits; a job that runs under this id is only told of, as an error.
    pub fn start_alone(
        &self,
        id: &ReplicationId,
        job: impl FnOnce(Number) -> Replication,
        start: impl FnOnce(Arc<Replication>, Span),
    ) -> Result<Arc<Replication>, Arc<Replication>> {
        match self.running.entry(id.to_string()) {
            Entry::Occupied(running) => Err(running.get().job.clone()),
            Entry::Vacant(place) => Ok(self.start(place, job, start, vec![nobody()])),
        }
    }

    /// Starts a job while its place is locked.
    fn start(
        &self,
        place: VacantEntry<'_, String, Running>,
        job: impl FnOnce(Number) -> Replication,
        start: impl FnOnce(Arc<Replication>, Span),
        listeners: Vec<oneshot::Sender<Ending>>,
    ) -> Arc<Replication> {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let (job, ended) = (Arc::new(job(number)), CancellationToken::new());
        let after = self.ending.get(place.key()).map(|before| before.1.clone());
        start(job.clone(), Span { after, ended: ended.clone().drop_guard() });
        place.insert(Running { job: job.clone(), ended, listeners });
        job
    }

    /// Answers everyone who waits for a job that will be tried again: they learn why it failed.
    pub fn tell(&self, id: &str, number: Number, error: &ReplicateError) {
        let Some(mut running) = self.running.get_mut(id).filter(|running| running.job.number == number) else { return };
        for listener in running.listeners.drain(..) {
            // A listener that hung up has no use for the answer.
            _ = listener.send(Ending::Result(Err(error.clone())));
        }
        // Whoever joins now didn't start it.
        running.listeners.push(nobody());
    }

    /// Takes the job off the map and answers everyone who waits; tells whether it was still there.
    pub async fn end(&self, id: &str, number: Number, result: Result<Finished, ReplicateError>) -> bool {
        // A job that was cancelled is off the map already; its id may belong to another one by now.
        let ended = self.running.remove_if(id, |_, running| running.job.number == number);
        let Some((_, ended)) = ended else { return false };
        let mut listeners = ended.listeners.into_iter();
        // A listener that hung up has no use for the answer.
        let tell = |listener: oneshot::Sender<Ending>, ending| _ = listener.send(ending);
        match result {
            Err(error) => listeners.for_each(|listener| tell(listener, Ending::Result(Err(error.clone())))),
            Ok(finished) => {
                if let Some(starter) = listeners.next() {
                    tell(starter, Ending::Result(Ok(finished.answer.clone())));
                }
                let up_to_date = listeners.len() == 0 || finished.up_to_date.await;
                listeners.for_each(|listener| match up_to_date {
                    true => tell(listener, Ending::Result(Ok(finished.answer.clone()))),
                    false => tell(listener, Ending::RunAgain),
                });
            }
        }
        true
    }

    /// The job of this id, or, if there is none and `by_base`, one with the same base id, if `is_it` lets it through.
    pub fn find(&self, id: &str, by_base: bool, is_it: impl Fn(&Replication) -> bool) -> Option<Arc<Replication>> {
        let exact = self.get(id).filter(|job| is_it(job));
        exact.or_else(|| {
            let base = id.split('+').next().unwrap_or(id);
            let same_base = |job: &Replication| by_base && job.id.base == base && is_it(job);
            self.running.iter().find(|entry| same_base(&entry.job)).map(|entry| entry.job.clone())
        })
    }

    /// Cancels a job, if it is still the one of this number. Everyone who waits for it gets [`ReplicateError::Cancelled`].
    pub fn remove(&self, id: &str, number: Number) -> Option<Cancelled> {
        self.remove_because(id, number, &ReplicateError::Cancelled)
    }

    /// The same for another reason.
    pub fn remove_because(&self, id: &str, number: Number, why: &ReplicateError) -> Option<Cancelled> {
        let (_, cancelled) = self.running.remove_if(id, |_, running| {
            let is_it = running.job.number == number;
            if is_it {
                self.ending.insert(id.to_owned(), (number, running.ended.clone()));
            }
            is_it
        })?;
        Some(stopped(cancelled, why))
    }

    /// A job's last life has ended.
    pub fn ended(&self, id: &str, number: Number) {
        self.ending.remove_if(id, |_, (newest, _)| *newest == number);
    }

    /// Takes all jobs off, and tells everyone who waits that the server stops.
    pub fn close(&self) {
        self.running.retain(|_, running| {
            for listener in running.listeners.drain(..) {
                _ = listener.send(Ending::Result(Err(ReplicateError::ShuttingDown)));
            }
            false
        });
    }

    /// The job of this id.
    pub fn get(&self, id: &str) -> Option<Arc<Replication>> {
        self.running.get(id).map(|running| running.job.clone())
    }

    /// The jobs that run, the oldest first.
    pub fn list(&self) -> Vec<Arc<Replication>> {
        let mut all: Vec<_> = self.running.iter().map(|entry| entry.job.clone()).collect();
        all.sort_by_key(|job| job.number);
        all
    }
}

/// In the place of who started a job, if that was nobody who waits for it.
fn nobody() -> oneshot::Sender<Ending> {
    oneshot::channel().0
}

/// Stops a job that is off the map, and tells everyone who waits for it.
fn stopped(cancelled: Running, why: &ReplicateError) -> Cancelled {
    cancelled.job.stop.cancel();
    for listener in cancelled.listeners {
        _ = listener.send(Ending::Result(Err(why.clone())));
    }
    Cancelled { job: cancelled.job, ended: cancelled.ended }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt as _;

    use super::super::tests::{context, job, job_of};
    use super::*;
    use crate::access::Caller;
    use crate::tasks::Tasks;

    /// What comes of a job, some time.
    type Work = BoxFuture<'static, Result<Finished, ReplicateError>>;

    /// Jobs whose work ends when `gate` gets what came of it.
    #[derive(Clone, Default)]
    struct Fixture {
        jobs: RunningJobs,
        tasks: Tasks,
        runs: Arc<AtomicUsize>,
    }

    impl Fixture {
        fn new() -> Self {
            Self::default()
        }

        fn start(&self, id: &ReplicationId, mut job: Replication, work: Work) -> oneshot::Receiver<Ending> {
            let start = |job: Arc<Replication>, span: Span| {
                let (jobs, runs) = (self.jobs.clone(), self.runs.clone());
                drop(self.tasks.spawn("work", async move {
                    let _ended = span.ended;
                    if let Some(before) = span.after {
                        before.cancelled().await;
                    }
                    runs.fetch_add(1, Ordering::Relaxed);
                    let result = AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(ReplicateError::Crashed));
                    jobs.end(&job.id.to_string(), job.number, result).await;
                }));
            };
            let numbered = |number| {
                job.number = number;
                job
            };
            self.jobs.start_or_join(id, numbered, start).1
        }

        fn ask(&self, id_text: &str, gate: oneshot::Receiver<Work>) -> oneshot::Receiver<Ending> {
            let mut job = job(id_text);
            job.caller = Arc::new(Caller { name: Some("ann".into()), ..Caller::default() });
            let (id, stop) = (job.id.clone(), job.stop.clone());
            let work = async move {
                match stop.run_until_cancelled(gate).await {
                    Some(work) => work.unwrap().await,
                    None => Err(ReplicateError::Cancelled),
                }
            };
            self.start(&id, job, work.boxed())
        }

        fn join(&self, id_text: &str) -> oneshot::Receiver<Ending> {
            let (open, gate) = oneshot::channel();
            std::mem::forget(open);
            self.ask(id_text, gate)
        }

        fn runs(&self) -> usize {
            self.runs.load(Ordering::Relaxed)
        }
    }

    fn done(number: u64, up_to_date: bool) -> Work {
        async move { Ok(Finished { answer: number.into(), up_to_date: async move { up_to_date }.boxed() }) }.boxed()
    }

    fn cancel(jobs: &RunningJobs, id: &str, by_base: bool, may: impl Fn(&Replication) -> bool) -> Option<Cancelled> {
        let job = jobs.find(id, by_base, may)?;
        jobs.remove(&job.id.to_string(), job.number)
    }

    fn settled(ending: Ending) -> Result<Value, ReplicateError> {
        match ending {
            Ending::Result(result) => result,
            Ending::RunAgain => panic!("again"),
        }
    }

    #[tokio::test]
    async fn the_same_id_joins_while_it_runs_and_starts_anew_afterwards() {
        let bench = Fixture::new();
        let (open, gate) = oneshot::channel();
        let first = bench.ask("a", gate);
        let second = bench.join("a");
        assert!(open.send(done(1, true)).is_ok());
        assert_eq!(settled(first.await.unwrap()).unwrap(), 1);
        assert_eq!(settled(second.await.unwrap()).unwrap(), 1);
        let (open, gate) = oneshot::channel();
        let third = bench.ask("a", gate);
        assert!(open.send(done(2, true)).is_ok());
        assert_eq!(settled(third.await.unwrap()).unwrap(), 2);
        assert_eq!(bench.runs(), 2);
    }

    #[tokio::test]
    async fn only_the_starter_gets_a_result_that_is_not_up_to_date() {
        let bench = Fixture::new();
        let (open, gate) = oneshot::channel();
        let (first, second) = (bench.ask("a", gate), bench.join("a"));
        assert!(open.send(done(1, false)).is_ok());
        assert_eq!(settled(first.await.unwrap()).unwrap(), 1);
        assert!(matches!(second.await.unwrap(), Ending::RunAgain));
    }

    #[tokio::test]
    async fn a_starter_that_hangs_up_stops_nothing() {
        let bench = Fixture::new();
        let (open, gate) = oneshot::channel();
        drop(bench.ask("a", gate));
        let second = bench.join("a");
        assert!(open.send(done(1, true)).is_ok());
        assert_eq!(settled(second.await.unwrap()).unwrap(), 1);
        assert_eq!(bench.runs(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_everyone_who_waits() {
        let bench = Fixture::new();
        let (open, gate) = oneshot::channel();
        let (first, second) = (bench.ask("a", gate), bench.join("a"));
        assert!(open.send(async { panic!("a test's own") }.boxed()).is_ok());
        for ending in [first, second] {
            assert!(matches!(settled(ending.await.unwrap()), Err(ReplicateError::Crashed)));
        }
        assert!(bench.jobs.list().is_empty());
    }

    #[tokio::test]
    async fn cancel_takes_the_task_off_and_tells_everyone() {
        let bench = Fixture::new();
        let ending = bench.join("a+continuous");
        assert_eq!(bench.jobs.list().len(), 1);
        let cancelled = cancel(&bench.jobs, "a+continuous", false, |_| true).unwrap();
        assert!(matches!(settled(ending.await.unwrap()), Err(ReplicateError::Cancelled)));
        assert!(bench.jobs.list().is_empty());
        assert!(cancel(&bench.jobs, "a+continuous", false, |_| true).is_none());
        cancelled.ended.cancelled().await;
    }

    #[tokio::test]
    async fn cancel_finds_a_task_of_the_same_base_only_where_told_to() {
        let bench = Fixture::new();
        let _verdict = bench.join("a+continuous");
        assert!(cancel(&bench.jobs, "a", false, |_| true).is_none());
        assert!(cancel(&bench.jobs, "a", true, |job| job.owner() == Some("bob")).is_none());
        assert_eq!(
            cancel(&bench.jobs, "a", true, |job| job.owner() == Some("ann")).unwrap().job.id.to_string(),
            "a+continuous"
        );
    }

    #[tokio::test]
    async fn a_task_that_was_cancelled_does_not_end_its_successor() {
        let bench = Fixture::new();
        let (open, gate) = oneshot::channel();
        let _first = bench.ask("a", gate);
        let cancelled = cancel(&bench.jobs, "a", false, |_| true).unwrap();
        let (open_next, gate) = oneshot::channel();
        let next = bench.ask("a", gate);
        drop(open);
        cancelled.ended.cancelled().await;
        assert!(open_next.send(done(2, true)).is_ok());
        assert_eq!(settled(next.await.unwrap()).unwrap(), 2);
    }

    #[tokio::test]
    async fn a_task_lives_after_those_of_its_id_that_were_cancelled() {
        let jobs = RunningJobs::default();
        let id = job("a").id;
        let start = || {
            let mut given = None;
            let numbered = |number| {
                let mut job = job("a");
                job.number = number;
                job
            };
            let begun = jobs.start_alone(&id, numbered, |_, span| given = Some(span));
            (begun.ok().unwrap().number, given.unwrap())
        };
        let cancel = |number| assert!(jobs.remove("a", number).is_some());
        let (first, span) = start();
        assert!(span.after.is_none());
        cancel(first);
        let (second, after_first) = start();
        assert!(!after_first.after.as_ref().unwrap().is_cancelled());
        cancel(second);
        let (third, after_second) = start();
        // As whoever gives lives does: the second one had to wait for the first.
        drop(span);
        jobs.ended("a", first);
        assert!(after_first.after.unwrap().is_cancelled());
        assert!(!after_second.after.as_ref().unwrap().is_cancelled());
        drop(after_first.ended);
        jobs.ended("a", second);
        assert!(after_second.after.unwrap().is_cancelled());
        cancel(third);
        drop(after_second.ended);
        jobs.ended("a", third);
        assert!(start().1.after.is_none() && jobs.ending.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_waits_for_a_task_that_is_gone() {
        let bench = Fixture::new();
        let askers = (0..8).map(|_| {
            let bench = bench.clone();
            async move {
                let context = context();
                let id = job_of(&context, "a").id;
                for _ in 0..200 {
                    assert!(bench.start(&id, job_of(&context, "a"), done(1, false)).await.is_ok());
                }
            }
        });
        let askers: Vec<_> = askers.map(|asker| bench.tasks.spawn("asker", asker)).collect();
        for asker in askers {
            asker.await.unwrap();
        }
        assert!(bench.jobs.list().is_empty());
    }
}
