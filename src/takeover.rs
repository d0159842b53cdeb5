//! Takes the replications of the CouchDB over beside which we stand, and gives them back.
//!
//! CouchDB's scheduler stands still with `[replicator] max_jobs = 0`, and goes on with what it was. Ids and checkpoints are the same on
//! both sides, so either goes on where the other stopped. What is taken over are replications that documents describe; those that
//! were asked for at CouchDB's own `_replicate` stand still meanwhile, and so nothing is taken over while there are some, unless by
//! force.
//!
//! # From the start to the end
//! 1. A note is left in CouchDB ([`note`]): who has taken over, and what each node's `max_jobs` was. Only then the values are set to 0, and
//!    not so that they last: a node that restarts is itself again.
//! 2. CouchDB's jobs come to stand still, which takes a tick of its scheduler (`[replicator] interval`, a minute by default). Then
//!    [`DocumentRunner::Us`] is told, and documents may be run.
//! 3. Every heartbeat ([`heartbeat`]) writes a sign of life into the note, and looks at all nodes: one that joined, returned or restarted is
//!    set anew, its own value remembered in the note before. A silent one is asked again at the next, and holds nobody up.
//! 4. At the end, when our own replications have stopped, the values are put back and the note is deleted ([`give_back()`]).
//!
//! # Whoever ends without an end
//! A crash leaves the values at 0 and the note: nobody runs the documents until the next start, or `couchrep give-back`, finds a note without
//! signs of life ([`liveness`]). It takes the old values from the note, not the 0 that it finds. Who finds a living one's note refuses.
//! Who starts together with another one loses or wins the note ([`claim`]).
//!
//! # How long a job may be run by both
//! - By CouchDB and us: a node that restarts, returns or joins runs its jobs until a heartbeat has seen it and its scheduler's next tick has
//!   come: **a heartbeat (10 s) and a tick (60 s)**. At the start and at the end: never.
//! - By two couchreps: never, while both of them run. Who couldn't write a sign of life for `doubt_after` stops to run documents, and
//!   others judge him dead only later, after `dead_after`. One that was paused for longer (suspended, its machine asleep) runs its jobs
//!   from its awakening until its next heartbeat, which comes at once, has read the note: **some seconds**. It then goes on to
//!   watch the note, and takes over again if the other one dies.
//!
//! Being run twice costs work and loses nothing: checkpoints are found on both sides, and what was written is not written again.

mod runner;
mod nodes;
mod note;
mod liveness;
mod claim;
mod heartbeat;
mod runner_watch;
mod give_back;
mod error;

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::error::TakeoverError;
pub use self::give_back::{GivenBack, give_back};
use self::heartbeat::Heartbeat;
use self::nodes::{NONE, Nodes};
use self::note::{NoteOwner, Notes};
pub use self::runner::DocumentRunner;
use self::runner::RunnerTeller;
use self::runner_watch::RunnerWatch;
use crate::beside::CouchDbAsAdmin;
use crate::config::couchdb::TakeOver;
use crate::tasks::Tasks;

/// What goes on from the start until [`give_back`](Self::give_back).
pub struct Takeover {
    couchdb: CouchDbAsAdmin,
    take_over: Option<TakeOver>,
    tasks: Tasks,
    /// Ends the task, but breaks no write off.
    ending: CancellationToken,
    runner: RunnerTeller,
    /// If it has taken over.
    heartbeat: Option<Heartbeat>,
}

impl Takeover {
    /// Nothing is asked yet. Nobody runs documents.
    pub fn new(couchdb: CouchDbAsAdmin, take_over: Option<TakeOver>) -> Self {
        let (tasks, ending, runner) = (Tasks::default(), CancellationToken::new(), RunnerTeller::new());
        Self { couchdb, take_over, tasks, ending, runner, heartbeat: None }
    }

    /// Takes over, if that is asked for, else looks who runs the documents; and goes on with it. It may have to wait until another one is
    /// known to be dead, and fails if it is `stopped` meanwhile.
    ///
    /// When it answers, CouchDB's schedulers have been told to stand still, and may not do so yet. If it fails, nothing was changed, or all
    /// was put back; what couldn't be is in the note, for the next one.
    pub async fn begin(&mut self, stopped: impl Future<Output = ()>) -> Result<(), TakeoverError> {
        let settings = self.couchdb.upstream().settings().clone();
        let nodes = Nodes::new(self.couchdb.clone());
        let notes = Notes::new(self.couchdb.clone(), settings.takeover.heartbeat);
        let (runner, ending) = (self.runner.clone(), self.ending.clone());
        let Some(take_over) = self.take_over else {
            let watch = RunnerWatch::new(nodes, notes, settings, runner);
            // Whoever asks right after the start gets the answer, not "nobody".
            watch.look().await;
            self.tasks.keep("who runs documents", move || watch.clone().goes_on(ending.clone()));
            return Ok(());
        };

        let before = tokio::select! {
            biased;
            () = stopped => return Err(TakeoverError::Stopped),
            before = claim::dead_note(&notes, &settings) => before?,
        };
        let suspended: Vec<_> =
            nodes.jobs().await?.into_iter().filter(nodes::CouchDbJob::is_without_document).collect();
        // Those that a crashed couchrep left suspended don't get worse by a start, but by none.
        if !suspended.is_empty() && before.is_none() && take_over != TakeOver::Force {
            return Err(TakeoverError::WithoutDocuments(suspended));
        }
        let mut own = Vec::new();
        for node in nodes.up().await? {
            own.push((node.clone(), nodes.max_jobs(&node).await?));
        }
        let owner = NoteOwner::this_process();
        let note = claim::write(&notes, &owner, &settings, before, |note| {
            for (node, value) in &own {
                note.remember(node, value.clone());
            }
        });
        let note = note.await?;
        for (node, _) in &own {
            if let Err(error) = nodes.set_max_jobs(node, NONE).await {
                _ = give_back::put_back(&nodes, &notes, &note).await;
                return Err(error.into());
            }
        }
        tracing::info!(nodes = own.len(), "CouchDB's schedulers are told to stand still");
        if !suspended.is_empty() {
            let jobs = error::list(&suspended);
            tracing::warn!(
                count = suspended.len(),
                jobs,
                "replications of CouchDB's own _replicate stand still meanwhile"
            );
        }
        let heartbeat = Heartbeat::new(nodes, notes, settings, note, runner, ending);
        let beating = self.heartbeat.insert(heartbeat).clone();
        self.tasks.keep("takeover", move || beating.clone().goes_on());
        Ok(())
    }

    /// Who runs the documents, now and from now on. Whoever runs some must stop as soon as it isn't us.
    pub fn runner(&self) -> watch::Receiver<DocumentRunner> {
        self.runner.runner()
    }

    /// Ends it, when documents are no longer run, and puts all values back.
    pub async fn give_back(self, limit: Duration) {
        let until = Instant::now() + limit;
        self.ending.cancel();
        let is_over = self.tasks.ended_within(limit).await;
        // A heartbeat that goes on might write the note, or set a node, after both were put back.
        let Some(heartbeat) = self.heartbeat else { return };
        let given_back = match is_over {
            true => timeout_at(until, heartbeat.give_back()).await,
            false => timeout_at(until, std::future::pending()).await,
        };
        match given_back {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "CouchDB's replications stand still: `couchrep give-back` has them go on");
            }
            Err(_) => tracing::error!(
                "CouchDB doesn't answer, and its replications stand still: `couchrep give-back` has them go on"
            ),
        }
    }
}
