//! The time between taking over and giving back: signs of life, and a look at all nodes.
//!
//! Each beat reads the note first. If it is ours, or gone, it is written with one sign of life more and with the own values of nodes that
//! restarted; only then are those set to 0. If it is another one's, documents stop here at once, nothing is written, and the note is
//! watched until its owner is dead.
//!
//! A beat runs to its end; only the pause between two of them is broken off.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::error::TakeoverError;
use super::liveness::{Liveness, LivenessWatch};
use super::nodes::{CouchDbJob, NONE, Nodes};
use super::note::{Note, NoteOwner, Notes};
use super::runner::{DocumentRunner, RunnerTeller};
use super::{claim, give_back};
use crate::beside::AdminError;
use crate::config::couchdb::CouchDb;

/// Between two looks at jobs that are to stand still.
const STAND_STILL_PAUSE: Duration = Duration::from_secs(1);

/// The sign of life of who has taken over.
#[derive(Clone)]
pub struct Heartbeat {
    nodes: Nodes,
    notes: Notes,
    settings: CouchDb,
    owner: NoteOwner,
    tell: RunnerTeller,
}

/// What is known from beat to beat.
struct Known {
    /// When the last sign of life was begun that was written.
    signed: Instant,
    /// Since when CouchDB's jobs are waited for; `None` when they stand still.
    waits: Option<Instant>,
    /// Since when some of them run again.
    runs: Option<Instant>,
    /// The last note that was written, in case somebody deletes it: what nodes had is known from it alone.
    note: Option<Note>,
    /// Watches another one's note.
    other: Option<LivenessWatch>,
    /// Whether CouchDB didn't answer the last time.
    is_away: bool,
}

/// Whether to go on.
enum Next {
    Beat,
    End,
}

impl Heartbeat {
    /// For who has just become the note's owner.
    pub fn new(nodes: Nodes, notes: Notes, settings: CouchDb, owner: NoteOwner, tell: RunnerTeller) -> Self {
        Self { nodes, notes, settings, owner, tell }
    }

    /// Beats until the end.
    pub async fn goes_on(self, ending: CancellationToken) {
        let now = Instant::now();
        let mut known = Known { signed: now, waits: Some(now), runs: None, note: None, other: None, is_away: false };
        loop {
            match self.beat(&mut known).await {
                Ok(Next::Beat) => {
                    if std::mem::replace(&mut known.is_away, false) {
                        tracing::info!("CouchDB answers again: the takeover goes on");
                    }
                }
                Ok(Next::End) => return,
                Err(error) => {
                    if !std::mem::replace(&mut known.is_away, true) {
                        tracing::warn!(%error, "the takeover has no sign of life: CouchDB is asked again every heartbeat");
                    }
                    if let Some(watch) = &mut known.other {
                        watch.lose_sight(Instant::now());
                    }
                    known.waits = known.waits.map(|_| Instant::now());
                }
            }
            self.doubt(&mut known);
            let heartbeat = self.settings.takeover.heartbeat;
            let waits = known.waits.is_some() && known.other.is_none();
            let pause = if waits { heartbeat.min(STAND_STILL_PAUSE) } else { heartbeat };
            tokio::select! {
                biased;
                () = ending.cancelled() => return,
                () = sleep(pause) => {}
            }
            // It may have been paused for days.
            self.doubt(&mut known);
        }
    }

    /// Puts all back, if the note is still ours.
    pub async fn give_back(&self) -> Result<(), TakeoverError> {
        let Some(note) = self.notes.find().await?.filter(|note| note.owner.id == self.owner.id) else {
            tracing::warn!("there is nothing to give back to CouchDB: its note is gone, or another couchrep's");
            return Ok(());
        };
        give_back::put_back(&self.nodes, &self.notes, &note).await?;
        tracing::info!("CouchDB's replications are given back");
        Ok(())
    }

    /// Documents stop when others may think that we are dead.
    fn doubt(&self, known: &mut Known) {
        if known.signed.elapsed() < self.settings.takeover.doubt_after
            || *self.tell.runner().borrow() != DocumentRunner::Us
        {
            return;
        }
        known.waits = Some(Instant::now());
        self.tell.tell(DocumentRunner::Nobody);
        tracing::error!("CouchDB has taken no sign of life for too long: its documents aren't run until it does");
    }

    async fn beat(&self, known: &mut Known) -> Result<Next, AdminError> {
        let begun = Instant::now();
        let mut note = match self.notes.find().await? {
            Some(note) if note.owner.id != self.owner.id => return self.overtaken(known, note).await,
            Some(note) => note,
            None => Note::first(self.owner.clone(), known.note.take()),
        };
        known.other = None;
        let mut restarted = Vec::new();
        for node in self.nodes.up().await? {
            match self.nodes.max_jobs(&node).await {
                Ok(own) => {
                    if note.remember(&node, own.clone()) {
                        restarted.push((node, own));
                    }
                }
                // It has just gone.
                Err(error @ AdminError::Refused { .. }) => {
                    tracing::debug!(node, %error, "a node doesn't tell its max_jobs")
                }
                Err(error) => return Err(error),
            }
        }
        note.beat += 1;
        self.notes.write(&note).await?;
        known.signed = begun;
        known.note = Some(note.clone());
        for (node, own) in restarted {
            self.nodes.set_max_jobs(&node, NONE).await?;
            tracing::info!(node, own, "a node of CouchDB is itself again: its scheduler is told to stand still");
        }
        self.see_jobs(known, &note).await
    }

    /// Sees whether CouchDB's jobs stand still.
    async fn see_jobs(&self, known: &mut Known, note: &Note) -> Result<Next, AdminError> {
        let patience = self.settings.takeover.stand_still_patience;
        let Some(waits) = known.waits else {
            // As after the key was deleted: then a scheduler doesn't hear of the next value.
            let since = self.nodes.replicate().await?.then(|| known.runs.unwrap_or_else(Instant::now));
            known.runs = since;
            if since.is_some_and(|since| since.elapsed() > patience) {
                tracing::error!("CouchDB runs replications for {patience:?} though its max_jobs is 0; it is set again");
                known.runs = None;
                self.set_all(note).await?;
            }
            return Ok(Next::Beat);
        };
        let running = self.nodes.jobs().await?.into_iter().filter(CouchDbJob::runs).count();
        if running == 0 {
            known.waits = None;
            self.tell.tell(DocumentRunner::Us);
            tracing::info!("CouchDB's replications stand still, and documents are run here");
        } else if waits.elapsed() > patience {
            tracing::error!(
                running,
                "CouchDB's replications don't stand still after {patience:?}: they are left to it"
            );
            if let Err(error) = self.give_back().await {
                tracing::error!(%error, "not all was given back to CouchDB");
                return Ok(Next::Beat);
            }
            self.tell.tell(DocumentRunner::CouchDb);
            return Ok(Next::End);
        }
        Ok(Next::Beat)
    }

    async fn set_all(&self, note: &Note) -> Result<(), AdminError> {
        let up = self.nodes.up().await?;
        for node in note.max_jobs.keys().filter(|node| up.contains(node)) {
            self.nodes.set_max_jobs(node, NONE).await?;
        }
        Ok(())
    }

    /// Another one's note stands there: we were thought dead.
    async fn overtaken(&self, known: &mut Known, note: Note) -> Result<Next, AdminError> {
        if self.tell.tell(DocumentRunner::AnotherCouchrep) {
            tracing::error!(
                owner = %note.owner,
                "another couchrep has taken CouchDB's replications over, and documents stop here; this happens to who gave no sign of life"
            );
        }
        known.waits = Some(Instant::now());
        let watch = known.other.get_or_insert_default();
        if watch.look(&note, Instant::now(), self.settings.takeover.dead_after) != Liveness::Dead {
            return Ok(Next::Beat);
        }
        known.other = None;
        tracing::warn!(owner = %note.owner, "that couchrep gives no sign of life any more: its replications are taken over again");
        match claim::write(&self.notes, &self.owner, &self.settings, Some(note), |_| ()).await {
            Ok(_) => {
                known.waits = Some(Instant::now());
                self.tell.tell(DocumentRunner::Nobody);
            }
            Err(TakeoverError::CouchDb(error)) => return Err(error),
            Err(error) => tracing::info!(%error, "they aren't"),
        }
        Ok(Next::Beat)
    }
}
