//! Which jobs run, and who waits for them.
//!
//! The rules of the seed's `start_replication_server/1` and `get_result/3`, without its races: whoever starts or joins
//! does it while the id's place in the map is locked, and a job that ends takes its entry and everyone who waits out
//! of the map in one step, before anyone is answered. So nobody waits for a job that is gone, and whoever comes later
//! starts anew.
//!
//! Knows nothing of replicating: the work is handed in.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::replicate::id::ReplicationId;
use crate::replicate::{Job, ReplicateError};
use crate::tasks::Tasks;

/// What came of a job's work.
pub struct Finished {
    /// The answer.
    pub answer: Value,
    /// Tells, when asked, whether the answer still covers all that the source has.
    pub up_to_date: BoxFuture<'static, bool>,
}

/// A job's work.
pub type Work = BoxFuture<'static, Result<Finished, ReplicateError>>;

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
    job: Arc<Job>,
    /// Cancelled when its task has ended.
    ended: CancellationToken,
    /// Who waits; the first is who started it.
    listeners: Vec<oneshot::Sender<Ending>>,
}

/// The jobs that run, by id. Cheap to clone.
#[derive(Clone)]
pub struct RunningJobs {
    running: Arc<DashMap<String, Running>>,
    started: Arc<AtomicU64>,
    tasks: Tasks,
}

/// A job that was cancelled.
pub struct Cancelled {
    /// Its id.
    pub id: String,
    /// Cancelled when its task has ended.
    pub ended: CancellationToken,
}

impl RunningJobs {
    /// No job yet; `tasks` will own theirs.
    pub fn new(tasks: Tasks) -> Self {
        Self { running: Arc::default(), started: Arc::default(), tasks }
    }

    /// Starts a job, or joins the one that runs under this id; the receiver gets how it ends.
    ///
    /// `job` and `work` are only called to start; `job` gets its number.
    pub fn start_or_join(
        &self,
        id: &ReplicationId,
        job: impl FnOnce(u64) -> Job,
        work: impl FnOnce(Arc<Job>) -> Work,
    ) -> oneshot::Receiver<Ending> {
        let (listener, ending) = oneshot::channel();
        match self.running.entry(id.to_string()) {
            Entry::Occupied(mut running) => {
                let listeners = &mut running.get_mut().listeners;
                // The starter's place stays, so that nobody takes it over; others may have hung up.
                let mut index = 0;
                listeners.retain(|listener| {
                    index += 1;
                    index == 1 || !listener.is_closed()
                });
                listeners.push(listener);
            }
            Entry::Vacant(place) => {
                let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
                let (job, ended) = (Arc::new(job(number)), CancellationToken::new());
                let work = work(job.clone());
                place.insert(Running { job, ended: ended.clone(), listeners: vec![listener] });
                let (all, id) = (self.clone(), id.to_string());
                self.tasks.spawn("replication", async move {
                    let _ended = ended.drop_guard();
                    let result = AssertUnwindSafe(work).catch_unwind().await;
                    all.end(&id, number, result.unwrap_or(Err(ReplicateError::Crashed))).await;
                });
            }
        }
        ending
    }

    /// Takes the job off the map and answers everyone who waits.
    async fn end(&self, id: &str, number: u64, result: Result<Finished, ReplicateError>) {
        // A job that was cancelled is off the map already; its id may belong to another one by now.
        let Some((_, ended)) = self.running.remove_if(id, |_, running| running.job.number == number) else { return };
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
    }

    /// Cancels the job of this id, or, if there is none and `by_base`, one with the same base id. Only a job that
    /// `may_cancel` lets through, given its owner. Everyone who waits for it gets [`ReplicateError::Cancelled`].
    pub fn cancel(&self, id: &str, by_base: bool, may_cancel: impl Fn(Option<&str>) -> bool) -> Option<Cancelled> {
        let allowed = |running: &Running| may_cancel(running.job.owner());
        let exact = self.running.remove_if(id, |_, running| allowed(running));
        let (id, cancelled) = exact.or_else(|| {
            let base = id.split('+').next().unwrap_or(id);
            let same_base = |running: &Running| by_base && running.job.id.base == base && allowed(running);
            let found = self.running.iter().find(|entry| same_base(entry.value())).map(|entry| entry.key().clone())?;
            self.running.remove_if(&found, |_, running| same_base(running))
        })?;
        cancelled.job.stop.cancel();
        for listener in cancelled.listeners {
            _ = listener.send(Ending::Result(Err(ReplicateError::Cancelled)));
        }
        Some(Cancelled { id, ended: cancelled.ended })
    }

    /// The jobs that run, the oldest first.
    pub fn list(&self) -> Vec<Arc<Job>> {
        let mut all: Vec<_> = self.running.iter().map(|entry| entry.job.clone()).collect();
        all.sort_by_key(|job| job.number);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::tests::job;
    use super::*;
    use crate::access::Caller;

    /// Jobs whose work ends when `gate` gets what came of it.
    #[derive(Clone)]
    struct Fixture {
        jobs: RunningJobs,
        runs: Arc<AtomicUsize>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { jobs: RunningJobs::new(Tasks::default()), runs: Arc::default() }
        }

        fn ask(&self, id_text: &str, gate: oneshot::Receiver<Work>) -> oneshot::Receiver<Ending> {
            let runs = self.runs.clone();
            let job = job(id_text);
            let id = job.id.clone();
            self.jobs.start_or_join(
                &id,
                |number| Job {
                    number,
                    caller: Arc::new(Caller { name: Some("ann".into()), ..Caller::default() }),
                    ..job
                },
                |_| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    async move { gate.await.unwrap().await }.boxed()
                },
            )
        }

        fn join(&self, id_text: &str) -> oneshot::Receiver<Ending> {
            self.ask(id_text, oneshot::channel().1)
        }

        fn runs(&self) -> usize {
            self.runs.load(Ordering::Relaxed)
        }
    }

    fn done(number: u64, up_to_date: bool) -> Work {
        async move { Ok(Finished { answer: number.into(), up_to_date: async move { up_to_date }.boxed() }) }.boxed()
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
        let cancelled = bench.jobs.cancel("a+continuous", false, |_| true).unwrap();
        assert!(matches!(settled(ending.await.unwrap()), Err(ReplicateError::Cancelled)));
        assert!(bench.jobs.list().is_empty());
        assert!(bench.jobs.cancel("a+continuous", false, |_| true).is_none());
        cancelled.ended.cancelled().await;
    }

    #[tokio::test]
    async fn cancel_finds_a_task_of_the_same_base_only_where_told_to() {
        let bench = Fixture::new();
        let _verdict = bench.join("a+continuous");
        assert!(bench.jobs.cancel("a", false, |_| true).is_none());
        assert!(bench.jobs.cancel("a", true, |owner| owner == Some("bob")).is_none());
        assert_eq!(bench.jobs.cancel("a", true, |owner| owner == Some("ann")).unwrap().id, "a+continuous");
    }

    #[tokio::test]
    async fn a_task_that_was_cancelled_does_not_end_its_successor() {
        let bench = Fixture::new();
        let (open, gate) = oneshot::channel();
        let _first = bench.ask("a", gate);
        let cancelled = bench.jobs.cancel("a", false, |_| true).unwrap();
        let (open_next, gate) = oneshot::channel();
        let next = bench.ask("a", gate);
        assert!(open.send(done(1, true)).is_ok());
        cancelled.ended.cancelled().await;
        assert!(open_next.send(done(2, true)).is_ok());
        assert_eq!(settled(next.await.unwrap()).unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_waits_for_a_task_that_is_gone() {
        let bench = Fixture::new();
        let askers = (0..8).map(|_| {
            let bench = bench.clone();
            async move {
                let (id, Job { context, request, .. }) = (job("a").id, job("a"));
                for _ in 0..200 {
                    let new = || Job::new(context.clone(), Arc::default(), request.clone(), (id.clone(), Vec::new()));
                    let job = |number| Job { number, ..new() };
                    assert!(bench.jobs.start_or_join(&id, job, |_| done(1, false)).await.is_ok());
                }
            }
        });
        let askers: Vec<_> = askers.map(|asker| bench.jobs.tasks.spawn("asker", asker)).collect();
        for asker in askers {
            asker.await.unwrap();
        }
        assert!(bench.jobs.list().is_empty());
    }
}
