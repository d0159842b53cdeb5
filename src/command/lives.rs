//! The lives of the command's one replication, one after another, until it has come to its end. (Those of a server's many jobs
//! the scheduler gives, `jobs/scheduler.rs`.)
//!
//! A one-shot has one life. A continuous job that fails, or crashes, lives again after a pause, which doubles until there is
//! progress; it is longer if a peer refuses the credentials, since an account bears few failed logins. Each life goes on
//! from the last checkpoint. Whoever stops a job lets the life that it has record what is done, for so long as
//! `stop_deadline` says; then it is dropped where it stands, which loses nothing but work.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use couchrep::effort::pauses::{self, Pauses};
use couchrep::replicate::{self, Job, Outcome, ReplicateError};

/// Runs a job to its end: once, or, if it is continuous, until it is stopped.
///
/// # Errors
/// [`ReplicateError::Cancelled`] if `job.stop` was cancelled: what had been written then is recorded, unless the deadline
/// passed.
pub async fn run(job: &Job) -> Result<Outcome, ReplicateError> {
    let too_late = async {
        job.stop.cancelled().await;
        tokio::time::sleep(job.context.settings.stop_deadline).await;
    };
    tokio::select! {
        biased;
        ended = one_after_another(job) => ended,
        () = too_late => Err(ReplicateError::Cancelled),
    }
}

async fn one_after_another(job: &Job) -> Result<Outcome, ReplicateError> {
    let settings = &job.context.settings;
    let growing = || Pauses::growing(settings.restart_pause, settings.max_restart_pause);
    let mut pauses = growing();
    loop {
        let through = job.progress.position().through_seq;
        let life = AssertUnwindSafe(replicate::run(job)).catch_unwind().await;
        let error = match life.unwrap_or(Err(ReplicateError::Crashed)) {
            Err(error) if job.request.continuous && !job.stop.is_cancelled() => error,
            ended => return ended,
        };
        if job.progress.position().through_seq != through {
            pauses = growing();
        }
        let pause = pauses.next().unwrap_or(settings.max_restart_pause);
        let pause = match &error {
            ReplicateError::WrongCredentials { .. } => pause.max(pauses::jittered(settings.refused_pause)),
            _ => pause,
        };
        tracing::warn!(error = %error.chain(), pause_ms = pause.as_millis() as u64, "starting again after a pause");
        let slept = job.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        slept.ok_or(ReplicateError::Cancelled)?;
    }
}
