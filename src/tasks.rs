//! The only place that spawns.
//!
//! Every task has a name, a span and an owner: a [`Tasks`] group, which can be told to stop and waited for. Blocking
//! work goes through [`blocking`]. A panic is reported to whoever waits, as [`Panicked`]; nothing vanishes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Before a task that crashed begins anew.
const CRASHED_PAUSE: Duration = Duration::from_secs(1);

/// A task, or a piece of blocking work, ended in a panic; the panic's own message was logged where it happened.
#[derive(Debug, thiserror::Error)]
#[error("{task} crashed")]
pub struct Panicked {
    task: &'static str,
}

/// A group of tasks with one owner: stop closes the intake, then the owner waits.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    /// Starts a task of this group. Its result, or its panic, is the handle's.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let span = tracing::debug_span!("task", task.name = name);
        self.tracker.spawn(task.instrument(span))
    }

    /// Starts a task that others rely on for as long as the group lasts, or until it ends well: should it panic, it is begun anew.
    pub fn keep<T: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        mut task: impl FnMut() -> T + Send + 'static,
    ) {
        let kept = async move {
            while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task has crashed, and begins anew");
                tokio::time::sleep(CRASHED_PAUSE).await;
            }
        };
        let stopping = self.stopping.clone();
        drop(self.spawn(name, async move { _ = stopping.run_until_cancelled(kept).await }));
    }

    /// Runs a task to its end even if the caller is dropped: what must not stop half-way when a client hangs up.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Panicked> {
        self.spawn(name, task).await.map_err(|_| Panicked { task: name })
    }

    /// Is cancelled when the group is told to stop; tasks take children of it.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Tells all tasks of the group to stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until all tasks have ended; `false` if some still ran at the deadline.
    pub async fn ended_within(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Runs work that blocks (the store's reads and commits, hashing, compression) on a thread that may.
///
/// The work runs to its end even if the caller is dropped.
pub async fn blocking<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let span = tracing::Span::current();
    #[expect(clippy::disallowed_methods, reason = "this is the helper that the others are sent to")]
    let running = tokio::task::spawn_blocking(move || span.in_scope(work));
    running.await.map_err(|_| Panicked { task })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_is_kept_begins_anew_when_it_crashes() {
        let (tasks, begun) = (Tasks::default(), Arc::new(AtomicUsize::new(0)));
        let count = begun.clone();
        tasks.keep("a test's own", move || {
            let times = count.fetch_add(1, Ordering::Relaxed);
            async move { assert!(times == 1, "a test's own") }
        });
        assert!(tasks.ended_within(Duration::from_secs(60)).await);
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
