//! Writes what happens to jobs into their documents.
//!
//! Jobs that something happened to are looked at together, and their documents are written together. A job that has come to its end is
//! known until that stands in its document: it would be started anew. A stop ends this between any two steps, and ends of jobs are written after it. What can't be written there is kept ([`untold`](super::untold)).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::states::StateChange;
use super::{Documents, states};
use crate::document::DocId;
use crate::jobs::replication::{JobDocument, Replication};
use crate::store::DbName;

/// Before states that couldn't be written are tried again.
const AGAIN_PAUSE: Duration = Duration::from_secs(5);
/// How long a stop waits until CouchDB has been told of ends: when documents are given back, it is too late.
const ENDING_PATIENCE: Duration = Duration::from_secs(1);

/// What came of writing down what has happened.
struct Told {
    /// The ids of jobs whose ends are known now, wherever that stands.
    completed: Vec<String>,
    /// Jobs whose databases can't be written.
    failed: Vec<Arc<Replication>>,
}

impl Documents {
    /// Writes down what happens to jobs of documents.
    pub(super) async fn tell(self) {
        let mut changed = self.inner.scheduler.changed();
        // Whatever was in hand if this has crashed.
        self.jobs().iter().for_each(|job| self.inner.scheduler.note(job));
        let (mut failed, mut again) = (Vec::new(), None);
        loop {
            let told = self.tell_what_changed().await;
            failed.extend(told.failed);
            self.end_elsewhere(told.completed);
            if !failed.is_empty() {
                again.get_or_insert_with(|| Instant::now() + AGAIN_PAUSE);
            }
            let due = async {
                match again {
                    Some(again) => tokio::time::sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = due => {
                    again = None;
                    failed.drain(..).for_each(|job| self.inner.scheduler.note(&job));
                }
            }
        }
    }

    /// Writes down the ends that aren't written yet, when nobody else does any more.
    pub async fn tell_ends(&self) {
        // What was in hand when that was stopped isn't noted any more.
        self.jobs().iter().filter(|job| job.status().completed).for_each(|job| self.inner.scheduler.note(job));
        let told = self.tell_what_changed().await;
        // When documents are given back, it is too late.
        self.inner.home.end_elsewhere(told.completed).await;
    }

    /// Writes down what has happened to jobs until now.
    async fn tell_what_changed(&self) -> Told {
        let mut by_database: HashMap<DbName, Vec<(DocId, StateChange, Arc<Replication>)>> = HashMap::new();
        for job in self.inner.scheduler.take_changed() {
            let Some(place) = &job.document else { continue };
            let known = self.known();
            let Some(known) = known.get(place).filter(|known| known.is_job(job.number)) else { continue };
            let (update_docs, as_couchdb) = (self.updates_docs(), self.inner.home.has_processor());
            let change = StateChange::of_job(known.fingerprint(), &job, update_docs, as_couchdb);
            let Some(change) = change else { continue };
            by_database.entry(place.database.clone()).or_default().push((place.id.clone(), change, job.clone()));
        }
        let (mut completed, mut failed) = (Vec::new(), Vec::new());
        for (name, changes) in by_database {
            let mut jobs = Vec::new();
            let changes = changes.into_iter().map(|(id, change, job)| {
                // Not whether it is at its end when this has been written: then there is more to be written.
                jobs.push((job, change.is_end()));
                (id, change)
            });
            let changes = changes.collect();
            let written = match states::write(&self.inner.home, &name, changes).await {
                Err(error) if error.is_no_database() => Ok(Vec::new()),
                written => written,
            };
            match written {
                Ok(unwritten) => {
                    // Of what goes on there will be more to tell; one that can't be read is looked at again.
                    let is_kept = |(_, change): &(DocId, StateChange)| change.is_end() && change.over.is_some();
                    for (id, change) in unwritten.into_iter().filter(is_kept) {
                        self.inner.untold.keep(JobDocument { database: name.clone(), id }, change);
                    }
                    completed.extend(jobs.into_iter().filter_map(|(job, is_end)| is_end.then_some(job)));
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(db = name.as_str(), error, "states of replications can't be written");
                    failed.extend(jobs.into_iter().map(|(job, _)| job));
                }
            }
        }
        self.inner.context.databases.counters().docs_completed.add(completed.len() as u64);
        // Not before it stands in the document, or among those that can't be written: it would be started anew.
        let ids = completed.iter().map(|job| job.id.to_string()).collect();
        for job in completed {
            let Some(place) = &job.document else { continue };
            {
                let mut known = self.known();
                if known.get(place).is_some_and(|known| known.is_job(job.number)) {
                    known.remove(place);
                }
            }
            self.hand_over(&job.id.to_string());
            // Somebody may have written it anew after that, which looked like the same as before.
            self.look_at(place);
        }
        Told { completed: ids, failed }
    }

    /// Has nobody else begin what is at its end; nobody waits for that.
    pub(super) fn end_elsewhere(&self, ids: Vec<String>) {
        if ids.is_empty() || !self.inner.home.has_processor() {
            return;
        }
        let (home, stopping) = (self.inner.home.clone(), self.inner.context.tasks.stopping().clone());
        let ending = async move {
            let stopped = async {
                stopping.cancelled().await;
                tokio::time::sleep(ENDING_PATIENCE).await;
            };
            tokio::select! {
                () = home.end_elsewhere(ids) => {}
                () = stopped => {}
            }
        };
        drop(self.inner.context.tasks.spawn("end replications elsewhere", ending));
    }

    /// Writes ends again that couldn't be written.
    pub(super) async fn tell_again(self) {
        loop {
            self.inner.untold.wait().await;
            for (name, changes) in self.inner.untold.due(Instant::now()) {
                if let Err(error) = states::write(&self.inner.home, &name, changes).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(db = name.as_str(), error, "states of replications can't be written");
                }
            }
        }
    }
}
