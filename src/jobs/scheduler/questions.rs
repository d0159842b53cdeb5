//! Questions to servers that are asked before there is a job: they are bound to what jobs share, as lives are.

use tokio::time::Instant;

use super::Scheduler;
use crate::endpoint::Endpoint;
use crate::jobs::gates::Gate;
use crate::jobs::replication::{needs, shared};
use crate::replicate::ReplicateError;

impl Scheduler {
    /// Asks a server something that is asked for before there is a job of this owner, when what jobs share allows it.
    ///
    /// # Errors
    /// The answer's, or when it may be asked, if that is known: its server is down, or refuses its login.
    pub async fn ask<T>(
        &self,
        (endpoint, owner): (&Endpoint, Option<&str>),
        question: impl Future<Output = Result<T, ReplicateError>>,
    ) -> Result<Result<T, ReplicateError>, Option<Instant>> {
        let needs = needs(&[endpoint], owner);
        let tried = self.scheduled().schedule.enter(&needs, Instant::now())?;
        let mut leaving = Leaving { scheduler: self, needs, tried, failed: Err(None) };
        let answer = question.await;
        leaving.failed = match &answer {
            Ok(_) | Err(ReplicateError::NotFound(_) | ReplicateError::DatabaseNotFound(_)) => Ok(()),
            Err(error) => Err(shared(&[endpoint], owner, error)),
        };
        drop(leaving);
        Ok(answer)
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
