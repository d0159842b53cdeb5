//! Documents that describe replications: those of `_replicator`, and of every database whose name ends in `/_replicator`.
//!
//! The databases are followed by the store's own log, and each from where it was read last. A document's newest revision says what
//! is to be: a job that it describes is started, changed, paused or removed. Two documents with one replication id: the one that
//! was seen first has the job, the other says so, and takes over when the first is gone.
//!
//! # What may not happen
//! - *Two jobs of one document.* A document's job is replaced only after the old one's last life has ended, by one task a document,
//!   which a newer revision of the document ends first ([`Known::stop`]).
//! - *A job without its document, or the other way round.* After a restart everything is read anew; while the server runs, whatever
//!   happened to a database is in the log, and what happened to a document in the database's feed.
//! - *An edit that is lost to a state.* States are written over the revision that they are of ([`states`]).
//!
//! A document's job has the rights that its owner has now, as his user's record says, whatever the document says of roles.

pub mod description;
pub mod states;
mod following;
mod starting;
mod telling;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::description::{Description, Fingerprint, Stated, duplicate_reason};
use self::states::StateChange;
use super::replication::{JobDocument, Replication, State};
use super::running::RunningJobs;
use super::schedule::Number;
use super::scheduler::Scheduler;
use crate::accounts::Accounts;
use crate::replicate::Context;
use crate::replicate::request::{NamedFilter, check_document};
use crate::store::{DbName, Store};

/// Between two looks at the code of filters.
const FILTER_PAUSE: Duration = Duration::from_secs(60);
/// How long a cancel waits for the job to wind down before it is answered.
const SETTLED_PATIENCE: Duration = Duration::from_secs(1);

/// Follows documents that describe replications. Cheap to clone.
#[derive(Clone)]
pub struct Documents {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    accounts: Accounts,
    context: Context,
    running: RunningJobs,
    scheduler: Scheduler,
    /// What is known of documents that aren't at their end.
    known: Mutex<BTreeMap<JobDocument, Known>>,
    /// The newest serial.
    serials: AtomicU64,
    /// Documents that are to be read once more, besides what the log tells.
    again: Mutex<Vec<JobDocument>>,
    /// Tells that there are some.
    look_again: Notify,
}

/// A document that isn't at its end.
struct Known {
    /// Which of all that were known: whoever acts for an earlier one acts no more.
    serial: u64,
    fingerprint: Fingerprint,
    description: Arc<Description>,
    stage: DocumentStage,
    since: SystemTime,
    /// Ends what is being done for it.
    stop: CancellationToken,
    /// Cancelled when the job that the document had before has ended.
    ended: Option<CancellationToken>,
    /// The replication id that it is to take over: if it goes before it has, another one is to.
    handed: Option<String>,
}

/// How far a document is.
#[derive(Debug, Clone)]
pub enum DocumentStage {
    /// Its replication's id isn't known yet.
    Initializing,
    /// The id couldn't be found out, or belongs to a job that has no document.
    Error {
        /// Failures in a row.
        count: u32,
        /// Why.
        reason: Arc<str>,
        /// When it is tried again.
        next_try: SystemTime,
    },
    /// Another document has the job.
    Duplicate {
        /// The replication's id.
        id: String,
        /// Which one has it, in CouchDB's words.
        reason: Arc<str>,
    },
    /// It has a job.
    Job(Arc<Replication>),
}

/// What `_scheduler/docs` tells of a document that isn't at its end.
#[derive(Debug, Clone)]
pub struct DocumentStatus {
    /// How far it is.
    pub stage: DocumentStage,
    /// What it describes.
    pub description: Arc<Description>,
    /// Since when.
    pub since: SystemTime,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Replication").field(&self.id.to_string()).finish()
    }
}

impl Documents {
    /// Nothing is known yet.
    pub fn new(
        store: Store,
        accounts: Accounts,
        (context, running, scheduler): (Context, RunningJobs, Scheduler),
    ) -> Self {
        let inner = Inner {
            store,
            accounts,
            context,
            running,
            scheduler,
            known: Mutex::default(),
            serials: AtomicU64::new(0),
            again: Mutex::default(),
            look_again: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins to follow the databases, and to write states into documents.
    pub fn begin(&self) {
        let tasks = &self.inner.context.tasks;
        let following = self.clone();
        tasks.keep("follow documents of replications", move || following.clone().follow());
        let (telling, stop) = (self.clone(), tasks.stopping().clone());
        drop(tasks.spawn("write states of replications", async move { telling.tell(stop).await }));
        let looking = self.clone();
        tasks.keep("look at filters of replications", move || looking.clone().look_at_filters());
    }

    /// What is known of a document that isn't at its end.
    pub fn status(&self, document: &JobDocument) -> Option<DocumentStatus> {
        self.known().get(document).map(Known::status)
    }

    /// The databases that hold such documents.
    pub fn databases(&self) -> Vec<DbName> {
        self.inner.store.names().into_iter().filter(DbName::is_replicator).collect()
    }

    /// Where the documents are.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Does at once what was written into a document: it is gone, or paused. It is read there too, some time.
    pub async fn settled(&self, place: &JobDocument, job: &Arc<Replication>) {
        if place.id.as_str() == job.id.to_string() {
            let ended = self.forget_alone(place);
            self.hand_over(&job.id.to_string());
            if let Some((_, Some(ended))) = ended {
                _ = tokio::time::timeout(SETTLED_PATIENCE, ended.cancelled()).await;
            }
        } else {
            self.inner.scheduler.set_paused(job, true);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<JobDocument, Known>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what a document's newest revision says; answers what is to be written into it at once.
    fn see(&self, place: &JobDocument, document: Option<Map<String, Value>>) -> Option<StateChange> {
        let Some(document) = document.filter(|_| !place.id.as_str().starts_with("_design/")) else {
            self.forget(place);
            return None;
        };
        let stated = Stated::of(&document);
        if matches!(stated, Stated::Completed | Stated::Failed) {
            self.forget(place);
            return None;
        }
        let description = match Description::parse(&document) {
            Ok(description) => Arc::new(description),
            Err(error) => {
                self.forget(place);
                self.inner.context.databases.counters().docs_failed.increment();
                let reason = check_document(&document).err().unwrap_or_else(|| error.chain().to_string());
                return Some(StateChange::failed(None, &reason));
            }
        };
        let same =
            self.known().get_mut(place).filter(|known| known.fingerprint == description.fingerprint).map(|known| {
                known.description = description.clone();
                known.stage.clone()
            });
        match same {
            Some(DocumentStage::Job(job)) => {
                self.inner.scheduler.set_paused(&job, description.paused);
                if description.stated {
                    job.status().stated = true;
                    self.inner.scheduler.note(&job);
                }
            }
            // A person has taken off that it is one, and wants it looked at again.
            Some(DocumentStage::Duplicate { .. }) if stated == Stated::Live => self.start(place, description),
            Some(_) => {}
            None => self.start(place, description),
        }
        None
    }

    /// Begins what a document describes, after what it described before has ended.
    fn start(&self, place: &JobDocument, description: Arc<Description>) {
        self.replace(place, None, None, description);
    }

    /// The same, if the document is still the one of this serial.
    fn replace(&self, place: &JobDocument, serial: Option<u64>, handed: Option<String>, description: Arc<Description>) {
        let stop = self.inner.context.tasks.stopping().child_token();
        let new = self.inner.serials.fetch_add(1, Ordering::Relaxed) + 1;
        let (free, ended) = {
            let mut all = self.known();
            if serial.is_some() && all.get(place).map(|known| known.serial) != serial {
                return;
            }
            let (free, ended) = all.remove(place).map(|before| self.wind_up(before)).unwrap_or_default();
            let known = Known {
                serial: new,
                fingerprint: description.fingerprint,
                description: description.clone(),
                stage: DocumentStage::Initializing,
                since: SystemTime::now(),
                stop: stop.clone(),
                ended: ended.clone(),
                handed,
            };
            all.insert(place.clone(), known);
            (free, ended)
        };
        if let Some(id) = free {
            self.hand_over(&id);
        }
        let (documents, place) = (self.clone(), place.clone());
        let starting = async move {
            if let Some(ended) = ended {
                ended.cancelled().await;
            }
            documents.find_job(&place, new, description).await;
        };
        let starting = async move { _ = stop.run_until_cancelled(starting).await };
        drop(self.inner.context.tasks.spawn("start a document's replication", starting));
    }

    /// A document has no job any more, and another one may have it.
    fn forget(&self, place: &JobDocument) {
        if let Some((id, _)) = self.forget_alone(place) {
            self.hand_over(&id);
        }
    }

    /// Ends what was done for a document; answers the id of its job, and, if that still runs, what is cancelled when it has ended.
    fn forget_alone(&self, place: &JobDocument) -> Option<(String, Option<CancellationToken>)> {
        let known = self.known().remove(place)?;
        let (free, ended) = self.wind_up(known);
        Some((free?, ended))
    }

    /// The same of one that is known no more: the id that is free now, and what is cancelled when its last job has ended.
    fn wind_up(&self, known: Known) -> (Option<String>, Option<CancellationToken>) {
        known.stop.cancel();
        let DocumentStage::Job(job) = known.stage else { return (known.handed, known.ended) };
        let id = job.id.to_string();
        let cancelled = self.inner.running.remove(&id, job.number);
        self.inner.scheduler.removed(&job);
        (Some(id), cancelled.map(|cancelled| cancelled.ended))
    }

    fn forget_database(&self, name: &DbName) {
        let places: Vec<_> = self.known().keys().filter(|place| place.database == *name).cloned().collect();
        places.iter().for_each(|place| self.forget(place));
    }

    /// A replication id is free: the first document that waits for it gets its job.
    fn hand_over(&self, free: &str) {
        let next = self.known().iter().find_map(|(place, known)| match &known.stage {
            DocumentStage::Duplicate { id, .. } if id == free => {
                let description =
                    Description { stated: true, was_duplicate: false, ..Description::clone(&known.description) };
                Some((place.clone(), known.serial, Arc::new(description)))
            }
            _ => None,
        });
        if let Some((place, serial, description)) = next {
            self.replace(&place, Some(serial), Some(free.to_owned()), description);
        }
    }

    /// A filter whose code has changed makes another replication: looks at each now and then, as CouchDB does.
    async fn look_at_filters(self) {
        loop {
            tokio::time::sleep(FILTER_PAUSE).await;
            let filtered = |(place, known): (&JobDocument, &Known)| match &known.stage {
                DocumentStage::Job(job) if job.request.filter.as_ref().is_some_and(NamedFilter::has_code) => {
                    Some((place.clone(), known.serial, known.description.clone(), job.clone()))
                }
                _ => None,
            };
            let filtered: Vec<_> = self.known().iter().filter_map(filtered).collect();
            for (place, serial, description, job) in filtered {
                // One that can't be asked for now is found out by its job.
                if job.state() != State::Running {
                    continue;
                }
                let asking = self.inner.context.identify(job.request.clone(), &job.caller);
                let asked = self.inner.scheduler.ask((&job.request.source, job.owner()), asking).await;
                if let Ok(Ok((_, (id, _)))) = asked
                    && id != job.id
                {
                    tracing::info!(doc.id = place.id.as_str(), "the filter's code has changed");
                    self.replace(&place, Some(serial), None, description);
                }
            }
        }
    }
}

impl Known {
    fn is_job(&self, number: Number) -> bool {
        matches!(&self.stage, DocumentStage::Job(job) if job.number == number)
    }

    fn is_duplicate_of(&self, job: &str) -> bool {
        matches!(&self.stage, DocumentStage::Duplicate { id, .. } if id == job)
    }

    /// Notes that `first` has the job that it describes; what is to stand in it.
    fn double(&mut self, job: &str, place: &JobDocument, first: &JobDocument) -> StateChange {
        let reason = duplicate_reason(job, place.id.as_str(), (first.id.as_str(), first.database.as_str()));
        (self.stage, self.handed) =
            (DocumentStage::Duplicate { id: job.to_owned(), reason: reason.as_str().into() }, None);
        StateChange::failed(Some(self.fingerprint), &reason)
    }

    fn status(&self) -> DocumentStatus {
        DocumentStatus { stage: self.stage.clone(), description: self.description.clone(), since: self.since }
    }
}
