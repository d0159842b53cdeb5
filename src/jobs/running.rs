//! Which replications run, and who waits for them.
//!
//! The rules of the seed's `start_replication_server/1` and `get_result/3`, without its races: whoever starts or joins
//! does it while the id's place in the map is locked, and a task that ends takes its entry and everyone who waits out
//! of the map in one step, before anyone is answered. So nobody waits for a task that is gone, and whoever comes later
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

use crate::replicate::ReplicateError;
use crate::replicate::id::ReplicationId;
use crate::tasks::Tasks;

/// What came of a task's work.
pub struct Finished {
    /// The answer.
    pub answer: Value,
    /// Tells, when asked, whether the answer still covers all that the source has.
    pub up_to_date: BoxFuture<'static, bool>,
}

/// A task's work.
pub type Work = BoxFuture<'static, Result<Finished, ReplicateError>>;

/// What someone who waits is told.
#[derive(Debug)]
pub enum Verdict {
    /// The result.
    Settled(Result<Value, ReplicateError>),
    /// The task began before the caller asked, and the source has changed since: run again.
    Again,
}

/// A task that runs.
struct Running<T> {
    number: u64,
    base: String,
    owner: Option<String>,
    stop: CancellationToken,
    /// Cancelled when the task has ended.
    ended: CancellationToken,
    /// Who waits; the first is who started it.
    listeners: Vec<oneshot::Sender<Verdict>>,
    details: Arc<T>,
}

/// The tasks that run, by id; `T` is what is kept of each for whoever lists them. Cheap to clone.
pub struct RunningTasks<T> {
    running: Arc<DashMap<String, Running<T>>>,
    started: Arc<AtomicU64>,
    tasks: Tasks,
}

impl<T> Clone for RunningTasks<T> {
    fn clone(&self) -> Self {
        Self { running: self.running.clone(), started: self.started.clone(), tasks: self.tasks.clone() }
    }
}

/// A task that was cancelled.
pub struct Cancelled {
    /// Its id.
    pub id: String,
    /// Cancelled when the task has ended.
    pub ended: CancellationToken,
}

impl<T: Send + Sync + 'static> RunningTasks<T> {
    /// No task yet; `tasks` will own them.
    pub fn new(tasks: Tasks) -> Self {
        Self { running: Arc::default(), started: Arc::default(), tasks }
    }

    /// Starts a task, or joins the one that runs under this id; the receiver gets the verdict.
    ///
    /// `work` is only called to start; it gets the task's number and the token that stops it.
    pub fn start_or_join(
        &self,
        id: &ReplicationId,
        owner: Option<&str>,
        work: impl FnOnce(u64, CancellationToken) -> (Arc<T>, Work),
    ) -> oneshot::Receiver<Verdict> {
        let (listener, verdict) = oneshot::channel();
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
                let (stop, ended) = (self.tasks.stopping().child_token(), CancellationToken::new());
                let (details, work) = work(number, stop.clone());
                place.insert(Running {
                    number,
                    base: id.base.clone(),
                    owner: owner.map(str::to_owned),
                    stop,
                    ended: ended.clone(),
                    listeners: vec![listener],
                    details,
                });
                let (all, id) = (self.clone(), id.to_string());
                self.tasks.spawn("replication", async move {
                    let _ended = ended.drop_guard();
                    let result = AssertUnwindSafe(work).catch_unwind().await;
                    all.end(&id, number, result.unwrap_or(Err(ReplicateError::Crashed))).await;
                });
            }
        }
        verdict
    }

    /// Takes the task off the map and answers everyone who waits.
    async fn end(&self, id: &str, number: u64, result: Result<Finished, ReplicateError>) {
        // A task that was cancelled is off the map already; its id may belong to another one by now.
        let Some((_, task)) = self.running.remove_if(id, |_, task| task.number == number) else { return };
        let mut listeners = task.listeners.into_iter();
        // A listener that hung up has no use for the answer.
        let tell = |listener: oneshot::Sender<Verdict>, verdict| _ = listener.send(verdict);
        match result {
            Err(error) => listeners.for_each(|listener| tell(listener, Verdict::Settled(Err(error.clone())))),
            Ok(finished) => {
                if let Some(starter) = listeners.next() {
                    tell(starter, Verdict::Settled(Ok(finished.answer.clone())));
                }
                let up_to_date = listeners.len() == 0 || finished.up_to_date.await;
                listeners.for_each(|listener| match up_to_date {
                    true => tell(listener, Verdict::Settled(Ok(finished.answer.clone()))),
                    false => tell(listener, Verdict::Again),
                });
            }
        }
    }

    /// Cancels the task of this id, or, where there is none and `by_base`, one with the same base id. Only a task that
    /// `may_cancel` lets through, given its owner. Everyone who waits for it gets [`ReplicateError::Cancelled`].
    pub fn cancel(&self, id: &str, by_base: bool, may_cancel: impl Fn(Option<&str>) -> bool) -> Option<Cancelled> {
        let allowed = |task: &Running<T>| may_cancel(task.owner.as_deref());
        let exact = self.running.remove_if(id, |_, task| allowed(task));
        let (id, task) = exact.or_else(|| {
            let base = id.split('+').next().unwrap_or(id);
            let same_base = |task: &Running<T>| by_base && task.base == base && allowed(task);
            let found = self.running.iter().find(|entry| same_base(entry.value())).map(|entry| entry.key().clone())?;
            self.running.remove_if(&found, |_, task| same_base(task))
        })?;
        task.stop.cancel();
        for listener in task.listeners {
            _ = listener.send(Verdict::Settled(Err(ReplicateError::Cancelled)));
        }
        Some(Cancelled { id, ended: task.ended })
    }

    /// What is kept of the tasks that run, the oldest first.
    pub fn details(&self) -> Vec<Arc<T>> {
        let mut all: Vec<_> = self.running.iter().map(|entry| (entry.number, entry.details.clone())).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, details)| details).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn id(text: &str) -> ReplicationId {
        let (base, extension) = text.split_at(text.find('+').unwrap_or(text.len()));
        ReplicationId { base: base.into(), extension: extension.into() }
    }

    /// Jobs whose work ends when `gate` gets what came of it.
    #[derive(Clone)]
    struct Bench {
        tasks: RunningTasks<u64>,
        runs: Arc<AtomicUsize>,
    }

    impl Bench {
        fn new() -> Self {
            Self { tasks: RunningTasks::new(Tasks::default()), runs: Arc::default() }
        }

        fn ask(&self, id_text: &str, gate: oneshot::Receiver<Work>) -> oneshot::Receiver<Verdict> {
            let runs = self.runs.clone();
            self.tasks.start_or_join(&id(id_text), Some("ann"), |number, _| {
                runs.fetch_add(1, Ordering::Relaxed);
                (Arc::new(number), async move { gate.await.unwrap().await }.boxed())
            })
        }

        fn join(&self, id_text: &str) -> oneshot::Receiver<Verdict> {
            self.ask(id_text, oneshot::channel().1)
        }

        fn runs(&self) -> usize {
            self.runs.load(Ordering::Relaxed)
        }
    }

    fn done(number: u64, up_to_date: bool) -> Work {
        async move { Ok(Finished { answer: number.into(), up_to_date: async move { up_to_date }.boxed() }) }.boxed()
    }

    fn settled(verdict: Verdict) -> Result<Value, ReplicateError> {
        match verdict {
            Verdict::Settled(result) => result,
            Verdict::Again => panic!("again"),
        }
    }

    #[tokio::test]
    async fn the_same_id_joins_while_it_runs_and_starts_anew_afterwards() {
        let bench = Bench::new();
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
        let bench = Bench::new();
        let (open, gate) = oneshot::channel();
        let (first, second) = (bench.ask("a", gate), bench.join("a"));
        assert!(open.send(done(1, false)).is_ok());
        assert_eq!(settled(first.await.unwrap()).unwrap(), 1);
        assert!(matches!(second.await.unwrap(), Verdict::Again));
    }

    #[tokio::test]
    async fn a_starter_that_hangs_up_stops_nothing() {
        let bench = Bench::new();
        let (open, gate) = oneshot::channel();
        drop(bench.ask("a", gate));
        let second = bench.join("a");
        assert!(open.send(done(1, true)).is_ok());
        assert_eq!(settled(second.await.unwrap()).unwrap(), 1);
        assert_eq!(bench.runs(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_everyone_who_waits() {
        let bench = Bench::new();
        let (open, gate) = oneshot::channel();
        let (first, second) = (bench.ask("a", gate), bench.join("a"));
        assert!(open.send(async { panic!("a test's own") }.boxed()).is_ok());
        for verdict in [first, second] {
            assert!(matches!(settled(verdict.await.unwrap()), Err(ReplicateError::Crashed)));
        }
        assert!(bench.tasks.details().is_empty());
    }

    #[tokio::test]
    async fn cancel_takes_the_task_off_and_tells_everyone() {
        let bench = Bench::new();
        let verdict = bench.join("a+continuous");
        assert_eq!(bench.tasks.details().len(), 1);
        let cancelled = bench.tasks.cancel("a+continuous", false, |_| true).unwrap();
        assert!(matches!(settled(verdict.await.unwrap()), Err(ReplicateError::Cancelled)));
        assert!(bench.tasks.details().is_empty());
        assert!(bench.tasks.cancel("a+continuous", false, |_| true).is_none());
        cancelled.ended.cancelled().await;
    }

    #[tokio::test]
    async fn cancel_finds_a_task_of_the_same_base_only_where_told_to() {
        let bench = Bench::new();
        let _verdict = bench.join("a+continuous");
        assert!(bench.tasks.cancel("a", false, |_| true).is_none());
        assert!(bench.tasks.cancel("a", true, |owner| owner == Some("bob")).is_none());
        assert_eq!(bench.tasks.cancel("a", true, |owner| owner == Some("ann")).unwrap().id, "a+continuous");
    }

    #[tokio::test]
    async fn a_task_that_was_cancelled_does_not_end_its_successor() {
        let bench = Bench::new();
        let (open, gate) = oneshot::channel();
        let _first = bench.ask("a", gate);
        let cancelled = bench.tasks.cancel("a", false, |_| true).unwrap();
        let (open_next, gate) = oneshot::channel();
        let next = bench.ask("a", gate);
        assert!(open.send(done(1, true)).is_ok());
        cancelled.ended.cancelled().await;
        assert!(open_next.send(done(2, true)).is_ok());
        assert_eq!(settled(next.await.unwrap()).unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_waits_for_a_task_that_is_gone() {
        let bench = Bench::new();
        let askers = (0..8).map(|_| {
            let bench = bench.clone();
            async move {
                for _ in 0..200 {
                    let verdict =
                        bench.tasks.start_or_join(&id("a"), None, |number, _| (Arc::new(number), done(1, false)));
                    assert!(verdict.await.is_ok());
                }
            }
        });
        let askers: Vec<_> = askers.map(|asker| bench.tasks.tasks.spawn("asker", asker)).collect();
        for asker in askers {
            asker.await.unwrap();
        }
        assert!(bench.tasks.details().is_empty());
    }
}
