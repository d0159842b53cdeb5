//! The only place that spawns.
//!
//! Every task has a name, a span and an owner: a [`Tasks`] group, which can be told to stop and waited for. Blocking
//! work goes through [`blocking`]. A panic is reported to whoever waits, as [`Panicked`]; nothing vanishes.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

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
