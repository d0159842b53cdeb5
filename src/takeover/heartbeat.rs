//! The time between taking over and giving back: signs of life, and a look at all nodes.
//!
//! Each beat reads the note first. If it is another one's, documents stop here at once, nothing is written, and the note is watched until
//! its owner is dead. If it is ours, or gone, it is written with one sign of life more. Then all nodes are asked at once, and a silent one
//! is passed over until the next beat. The own values of those that restarted are written into the note; only then are they set to 0.
//!
//! What nodes had is known from our own memory: the note may be deleted, and a write that failed may have been carried out.
//!
//! A beat that lasts until others may think us dead is broken off. At the end, questions are broken off, and writes are not: one of them
//! might be carried out after all was put back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::TakeoverError;
use super::liveness::{Liveness, LivenessWatch};
use super::nodes::{NONE, Nodes};
use super::note::{Note, Notes};
use super::runner::{DocumentRunner, RunnerTeller};
use super::{claim, give_back};
use crate::config::couchdb::CouchDb;

/// Between two looks at jobs that are to stand still.
const STAND_STILL_PAUSE: Duration = Duration::from_secs(1);

/// The sign of life of who has taken over.
#[derive(Clone)]
pub struct Heartbeat {
    nodes: Nodes,
    notes: Notes,
    settings: CouchDb,
    /// Our note as it was to be written last. Never held across an await.
    note: Arc<Mutex<Note>>,
    tell: RunnerTeller,
    ending: CancellationToken,
}

/// What is known from beat to beat.
struct Known {
    /// When the last sign of life was begun that was written.
    signed: Instant,
    /// Since when CouchDB's jobs are waited for; `None` when they stand still.
    waits: Option<Instant>,
    /// Since when some of them run again.
    runs: Option<Instant>,
    /// Nodes that didn't answer the last time.
    silent: BTreeSet<String>,
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
    /// For who has just become the owner of this note. Beats until `ending`.
    pub fn new(
        nodes: Nodes,
        notes: Notes,
        settings: CouchDb,
        note: Note,
        tell: RunnerTeller,
        ending: CancellationToken,
    ) -> Self {
        Self { nodes, notes, settings, note: Arc::new(Mutex::new(note)), tell, ending }
    }

    /// Beats until the end.
    pub async fn goes_on(self) {
        let (now, silent) = (Instant::now(), BTreeSet::new());
        let mut known = Known { signed: now, waits: Some(now), runs: None, silent, other: None, is_away: false };
        while !self.ending.is_cancelled() {
            let begun = Instant::now();
            let beat = tokio::select! {
                biased;
                () = sleep_until(self.doubtful_at(&known)) => Err(TakeoverError::TooSlow),
                beat = self.beat(&mut known) => beat,
            };
            match beat {
                Ok(Next::Beat) => {
                    if std::mem::replace(&mut known.is_away, false) {
                        tracing::info!("CouchDB answers again: the takeover goes on");
                    }
                }
                Ok(Next::End) => return,
                Err(error) => {
                    if !std::mem::replace(&mut known.is_away, true) {
                        tracing::warn!(%error, "the takeover's heartbeat has failed: CouchDB is asked again at the next ones");
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
            // A sign of life isn't the later for a beat that was slow.
            let next = if waits { Instant::now() + heartbeat.min(STAND_STILL_PAUSE) } else { begun + heartbeat };
            tokio::select! {
                biased;
                () = self.ending.cancelled() => return,
                () = sleep_until(next) => {}
            }
            // It may have been paused for days.
            self.doubt(&mut known);
        }
    }

    /// Puts all back, unless there is another one's note.
    pub async fn give_back(&self) -> Result<(), TakeoverError> {
        let found = self.notes.find().await?;
        let mut note = self.note().clone();
        match found {
            Some(other) if other.owner.id != note.owner.id => {
                tracing::warn!(owner = %other.owner, "nothing is given back to CouchDB: another couchrep has taken over");
                return Ok(());
            }
            Some(found) => note.beat = found.beat,
            // It was given back before.
            None if note.max_jobs.is_empty() => return Ok(()),
            None => {}
        }
        let left = give_back::put_back(&self.nodes, &self.notes, &note).await?;
        self.note().max_jobs = left.max_jobs;
        tracing::info!("CouchDB's replications are given back");
        Ok(())
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When others may think that we are dead, or may long have thought so.
    fn doubtful_at(&self, known: &Known) -> Instant {
        let is_us = *self.tell.runner().borrow() == DocumentRunner::Us;
        (if is_us { known.signed } else { Instant::now() }) + self.settings.takeover.doubt_after
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

    async fn beat(&self, known: &mut Known) -> Result<Next, TakeoverError> {
        if let Some(other) = self.sign(known).await? {
            return self.overtaken(known, other).await;
        }
        known.other = None;
        let Some(found) = self.ending.run_until_cancelled(self.own_values(known)).await else { return Ok(Next::End) };
        let restarted: Vec<_> =
            found?.into_iter().filter(|(node, own)| self.note().remember(node, own.clone())).collect();
        if !restarted.is_empty() {
            if let Some(other) = self.sign(known).await? {
                return self.overtaken(known, other).await;
            }
            for (node, own) in &restarted {
                tracing::info!(node, own, "a node of CouchDB is itself again: its scheduler is told to stand still");
            }
            self.stand_still(restarted.into_iter().map(|(node, _)| node).collect()).await;
        }
        self.see_jobs(known).await
    }

    /// Writes a sign of life, with all that nodes had; unless another one's note stands there, which it answers.
    async fn sign(&self, known: &mut Known) -> Result<Option<Note>, TakeoverError> {
        let begun = Instant::now();
        let found = self.notes.find().await?;
        let note = {
            let mut note = self.note();
            if let Some(found) = found.as_ref().filter(|found| found.owner.id != note.owner.id) {
                return Ok(Some(found.clone()));
            }
            note.stands_in_place_of(found.as_ref());
            note.beat += 1;
            note.clone()
        };
        self.notes.write(&note).await?;
        known.signed = begun;
        Ok(None)
    }

    /// Every node's `max_jobs`, but that of those that don't tell it: they have just gone, or will soon be said to be down.
    async fn own_values(&self, known: &mut Known) -> Result<Vec<(String, Option<String>)>, TakeoverError> {
        let up = self.nodes.up().await?;
        let asked = up.into_iter().map(|node| async move { (self.nodes.max_jobs(&node).await, node) });
        let (mut values, mut silent) = (Vec::new(), BTreeSet::new());
        for (value, node) in join_all(asked).await {
            match value {
                Ok(value) => values.push((node, value)),
                Err(error) => {
                    if !known.silent.contains(&node) {
                        tracing::warn!(node, %error, "a node of CouchDB doesn't tell its max_jobs; it is asked every heartbeat");
                    }
                    silent.insert(node);
                }
            }
        }
        known.silent = silent;
        Ok(values)
    }

    /// Sees whether CouchDB's jobs stand still. If it doesn't tell in time, that is as if some ran.
    async fn see_jobs(&self, known: &mut Known) -> Result<Next, TakeoverError> {
        let patience = self.settings.takeover.stand_still_patience;
        // The next sign of life mustn't be late.
        let limit = self.settings.takeover.doubt_after / 2;
        let Some(waits) = known.waits else {
            // As after the key was deleted: then a scheduler doesn't hear of the next value.
            let asked = self.ending.run_until_cancelled(timeout(limit, self.nodes.replicate())).await;
            let Some(Ok(Ok(replicate))) = asked else {
                tracing::debug!("CouchDB doesn't tell whether it replicates");
                return Ok(Next::Beat);
            };
            let since = replicate.then(|| known.runs.unwrap_or_else(Instant::now));
            known.runs = since;
            if since.is_some_and(|since| since.elapsed() > patience) {
                tracing::error!("CouchDB runs replications for {patience:?} though its max_jobs is 0; it is set again");
                known.runs = None;
                let nodes = self.note().max_jobs.keys().cloned().collect();
                self.stand_still(nodes).await;
            }
            return Ok(Next::Beat);
        };
        let Some(asked) = self.ending.run_until_cancelled(timeout(limit, self.nodes.jobs())).await else {
            return Ok(Next::End);
        };
        let running = match asked {
            Ok(Ok(jobs)) => Some(jobs.iter().filter(|job| job.runs()).count()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "CouchDB doesn't tell its jobs");
                None
            }
            Err(_) => None,
        };
        if running == Some(0) {
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

    /// Tells these nodes to. One that doesn't hear is seen at the next beat.
    async fn stand_still(&self, nodes: Vec<String>) {
        let set = nodes.into_iter().map(|node| async move { (self.nodes.set_max_jobs(&node, NONE).await, node) });
        for (set, node) in join_all(set).await {
            if let Err(error) = set {
                tracing::warn!(node, %error, "a node of CouchDB doesn't hear that it is to stand still; it is told again");
            }
        }
    }

    /// Another one's note stands there: we were thought dead.
    async fn overtaken(&self, known: &mut Known, note: Note) -> Result<Next, TakeoverError> {
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
        let owner = self.note().owner.clone();
        // If this is broken off, our note may stand there. Nodes that were cut off meanwhile are known here alone.
        self.note().max_jobs.extend(note.max_jobs.clone());
        match claim::write(&self.notes, &owner, &self.settings, Some(note), |_| ()).await {
            Ok(_) => {
                known.waits = Some(Instant::now());
                self.tell.tell(DocumentRunner::Nobody);
            }
            Err(error @ TakeoverError::CouchDb(_)) => return Err(error),
            Err(error) => tracing::info!(%error, "they aren't"),
        }
        Ok(Next::Beat)
    }
}
