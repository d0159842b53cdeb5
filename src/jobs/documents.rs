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
//! - *A one-shot that runs for ever.* An end that can't be written into its document is kept for that revision ([`untold`]).
//! - *A document that takes the memory.* One that is too large is refused, or not read ([`home`]); others are read by pages.
//!
//! A document's job has the rights that its owner has now, as his user's record says, whatever the document says of roles.

pub mod description;
pub mod states;
mod known;
mod untold;
pub mod home;
mod following;
mod starting;
mod telling;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::known::{DocumentStage, DocumentStatus};

use self::description::{Description, Fingerprint, Stated};
use self::home::DocumentHome;
use self::known::{Known, KnownDocuments};
use self::states::StateChange;
use self::untold::UntoldEnds;
use super::owners::Owners;
use super::replication::{JobDocument, Replication, State};
use super::running::RunningJobs;
use super::scheduler::Scheduler;
use crate::endpoint::Endpoint;
use crate::replicate::Context;
use crate::replicate::request::{NamedFilter, check_document};
use crate::store::DbName;
use crate::takeover::DocumentRunner;

/// Between two looks at the code of filters.
const FILTER_PAUSE: Duration = Duration::from_secs(60);
/// Filters that are looked at at once, so that a few slow servers don't keep the others waiting.
const FILTERS_AT_ONCE: usize = 8;
/// How long a server may take to tell a filter's code. It is asked again at the next look.
const FILTER_LIMIT: Duration = Duration::from_secs(10);
/// Why a document in a CouchDB that names a database without a URL is no replication: CouchDB's word.
const LOCAL_NAMES: &str = "local_endpoints_not_supported";
/// How long a cancel waits for the job to wind down before it is answered.
const SETTLED_PATIENCE: Duration = Duration::from_secs(1);

/// Where documents of replications come from.
pub struct DescribedJobs {
    /// Where they are.
    pub home: DocumentHome,
    /// Who runs them, as it changes; `None`: we do, always.
    pub runner: Option<watch::Receiver<DocumentRunner>>,
    /// Whose rights they have.
    pub owners: Owners,
}

/// Follows documents that describe replications. Cheap to clone.
#[derive(Clone)]
pub struct Documents {
    inner: Arc<Inner>,
}

struct Inner {
    home: DocumentHome,
    /// Who runs them, as it changes; `None`: we do, always.
    runner: Option<watch::Receiver<DocumentRunner>>,
    owners: Owners,
    context: Context,
    running: RunningJobs,
    scheduler: Scheduler,
    /// What is known of documents that aren't at their end.
    known: Mutex<KnownDocuments>,
    /// Ends that can't be written into documents.
    untold: UntoldEnds,
    /// The newest serial.
    serials: AtomicU64,
    /// Documents that are to be read once more, besides what the log tells.
    again: Mutex<BTreeSet<JobDocument>>,
    /// Tells that there are some.
    look_again: Notify,
}

impl Documents {
    /// Nothing is known yet.
    pub fn new(
        DescribedJobs { home, runner, owners }: DescribedJobs,
        (context, running, scheduler): (Context, RunningJobs, Scheduler),
    ) -> Self {
        let inner = Inner {
            home,
            runner,
            owners,
            context,
            running,
            scheduler,
            known: Mutex::default(),
            untold: UntoldEnds::default(),
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
        let telling = self.clone();
        tasks.keep("write states of replications", move || telling.clone().tell());
        let telling = self.clone();
        tasks.keep("write ends of replications again", move || telling.clone().tell_again());
        let looking = self.clone();
        tasks.keep("look at filters of replications", move || looking.clone().look_at_filters());
    }

    /// What is known of a document that isn't at its end.
    pub fn status(&self, document: &JobDocument) -> Option<DocumentStatus> {
        self.known().get(document).map(Known::status)
    }

    /// Those that aren't at their ends and have no job, in the order of their places.
    pub fn without_jobs(&self) -> Vec<(JobDocument, DocumentStatus)> {
        let known = self.known();
        let without = known.iter().filter(|(_, known)| known.job().is_none());
        without.map(|(place, known)| (place.clone(), known.status())).collect()
    }

    /// Puts into a document the end of its replication, if that can't be written there.
    pub fn show_end(&self, document: &JobDocument, members: &mut Map<String, Value>) {
        self.inner.untold.show(document, members);
    }

    /// Whether passing states are written into documents. A CouchDB's own processor takes them off, and writes its own.
    fn updates_docs(&self) -> bool {
        self.inner.context.settings.update_docs && !self.inner.home.has_processor()
    }

    /// Whether they are run here now.
    pub fn are_ours(&self) -> bool {
        self.runner() == DocumentRunner::Us
    }

    /// Who runs them now.
    pub fn runner(&self) -> DocumentRunner {
        self.inner.runner.as_ref().map_or(DocumentRunner::Us, |runner| *runner.borrow())
    }

    /// Where the documents are.
    pub fn home(&self) -> &DocumentHome {
        &self.inner.home
    }

    /// Does at once what was written into a document: it is gone, or paused. It may have been written again since, and that been read
    /// already: so it is looked at once more.
    pub async fn settled(&self, place: &JobDocument, job: &Arc<Replication>) {
        if job.is_kept() {
            let forgotten = self.forget_alone(place);
            if let Some((free, _)) = &forgotten {
                self.hand_over(free);
            }
            self.look_at(place);
            if let Some((_, Some(ended))) = forgotten {
                _ = tokio::time::timeout(SETTLED_PATIENCE, ended.cancelled()).await;
            }
        } else {
            self.inner.scheduler.set_paused(job, true);
            self.look_at(place);
        }
    }

    /// Reads a document once more, whatever the log tells. When documents become ours, all are read anyway.
    pub fn look_at(&self, place: &JobDocument) {
        if self.are_ours() {
            self.again().insert(place.clone());
            self.inner.look_again.notify_one();
        }
    }

    /// What a document describes, as far as it was read, if this is its job.
    pub fn fingerprint(&self, place: &JobDocument, job: &Replication) -> Option<Fingerprint> {
        self.known().get(place).filter(|known| known.is_job(job.number)).map(Known::fingerprint)
    }

    /// All jobs of documents.
    fn jobs(&self) -> Vec<Arc<Replication>> {
        let known = self.known();
        known.iter().filter_map(|(_, known)| known.job().cloned()).collect()
    }

    fn known(&self) -> MutexGuard<'_, KnownDocuments> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what a document's newest revision says; answers what is to be written into it at once.
    fn see(&self, place: &JobDocument, document: Option<Map<String, Value>>) -> Option<StateChange> {
        let Some(document) = document.filter(|_| !place.id.as_str().starts_with("_design/")) else {
            self.forget(place);
            self.inner.untold.forget(place);
            return None;
        };
        if self.inner.untold.holds(place, &document) {
            return None;
        }
        let stated = Stated::of(&document);
        // A CouchDB's own word on duplicates stands.
        let is_at_end = matches!(stated, Stated::Completed | Stated::Failed)
            || stated == Stated::Duplicate && self.inner.home.has_processor();
        if is_at_end {
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
        let is_local = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Local(_));
        if self.inner.home.has_processor()
            && [&description.request.source, &description.request.target].into_iter().any(is_local)
        {
            self.forget(place);
            self.inner.context.databases.counters().docs_failed.increment();
            return Some(StateChange::failed(Some(description.fingerprint), LOCAL_NAMES));
        }
        let same =
            self.known().get_mut(place).filter(|known| known.fingerprint() == description.fingerprint).map(|known| {
                known.description = description.clone();
                known.stage().clone()
            });
        match same {
            Some(DocumentStage::Job(job)) => {
                self.inner.scheduler.set_paused(&job, description.paused);
                job.status().stated |= description.stated;
                // Whoever edits a document may leave out what stood there.
                if description.stated || self.updates_docs() {
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
        self.begin_job(place, None, |_| Some(description));
    }

    /// Begins anew what a document of this serial describes, as it does now: it has another id, or is to have the job of this one.
    fn start_anew(&self, place: &JobDocument, serial: u64, handed: Option<String>) {
        let is_handed = handed.is_some();
        self.begin_job(place, handed, |before| {
            let now = &before.filter(|before| before.serial == serial)?.description;
            // What stands there, that another one has the job, isn't so any more.
            let handed = || Description { stated: true, was_duplicate: false, ..Description::clone(now) };
            Some(if is_handed { Arc::new(handed()) } else { now.clone() })
        });
    }

    fn begin_job(
        &self,
        place: &JobDocument,
        handed: Option<String>,
        describe: impl FnOnce(Option<&Known>) -> Option<Arc<Description>>,
    ) {
        let stop = self.inner.context.tasks.stopping().child_token();
        let new = self.inner.serials.fetch_add(1, Ordering::Relaxed) + 1;
        let (free, ended, description) = {
            let mut all = self.known();
            let Some(description) = describe(all.get(place)) else { return };
            let (free, ended) = all.remove(place).map(|before| self.wind_up(before)).unwrap_or_default();
            let mut known = Known::new(new, description.clone(), stop.clone());
            (known.ended, known.handed) = (ended.clone(), handed);
            all.insert(place.clone(), known);
            (free, ended, description)
        };
        if let Some(id) = free {
            self.hand_over(&id);
        }
        let (documents, place) = (self.clone(), place.clone());
        self.inner.context.tasks.keep("start a document's replication", move || {
            let (documents, place, description) = (documents.clone(), place.clone(), description.clone());
            let (ended, stop) = (ended.clone(), stop.clone());
            let starting = async move {
                if let Some(ended) = ended {
                    ended.cancelled().await;
                }
                documents.find_job(&place, new, description).await;
            };
            async move { _ = stop.run_until_cancelled(starting).await }
        });
    }

    /// A document has no job any more, and another one may have it.
    fn forget(&self, place: &JobDocument) {
        if let Some((id, _)) = self.forget_alone(place) {
            self.hand_over(&id);
        }
    }

    /// The same, if the document is still the one of this serial.
    fn forget_serial(&self, place: &JobDocument, serial: u64) {
        let known = {
            let mut all = self.known();
            let is_it = all.get(place).is_some_and(|known| known.serial == serial);
            if is_it { all.remove(place) } else { None }
        };
        if let Some(id) = known.and_then(|known| self.wind_up(known).0) {
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
        let DocumentStage::Job(job) = known.stage() else { return (known.handed, known.ended) };
        let id = job.id.to_string();
        let cancelled = self.inner.running.remove(&id, job.number);
        self.inner.scheduler.removed(job);
        (Some(id), cancelled.map(|cancelled| cancelled.ended))
    }

    /// Ends all jobs of documents. What their documents say stays as it is.
    fn forget_all(&self) {
        // Of a database that is gone, too, if that isn't told yet.
        let places: Vec<_> = self.known().iter().map(|(place, _)| place.clone()).collect();
        places.iter().for_each(|place| self.forget(place));
        self.inner.untold.forget_all();
    }

    fn forget_database(&self, name: &DbName) {
        let places = self.known().of_database(name);
        places.iter().for_each(|place| self.forget(place));
        self.inner.untold.forget_database(name);
    }

    /// A replication id is free: the first document that waits for it gets its job.
    fn hand_over(&self, free: &str) {
        let next = self.known().first_duplicate(free).map(|(place, known)| (place.clone(), known.serial));
        if let Some((place, serial)) = next {
            self.start_anew(&place, serial, Some(free.to_owned()));
        }
    }

    /// A filter whose code has changed makes another replication: looks at each now and then, as CouchDB does.
    async fn look_at_filters(self) {
        loop {
            tokio::time::sleep(FILTER_PAUSE).await;
            let filtered = |(place, known): (&JobDocument, &Known)| match known.stage() {
                DocumentStage::Job(job) if job.request.filter.as_ref().is_some_and(NamedFilter::has_code) => {
                    Some((place.clone(), known.serial, job.clone()))
                }
                _ => None,
            };
            let filtered: Vec<_> = self.known().iter().filter_map(filtered).collect();
            // One that can't be asked for now is found out by its job.
            let filtered = filtered.into_iter().filter(|(.., job)| job.state() == State::Running);
            let look = async |(place, serial, job): (JobDocument, u64, Arc<Replication>)| {
                let asking = self.inner.context.identify(job.request.clone(), &job.caller);
                let asking = self.inner.scheduler.ask((&job.request.source, job.owner()), asking);
                let asked = tokio::time::timeout(FILTER_LIMIT, asking).await;
                if let Ok(Ok(Ok((_, (id, _))))) = asked
                    && id != job.id
                {
                    tracing::info!(doc.id = place.id.as_str(), "the filter's code has changed");
                    self.start_anew(&place, serial, None);
                }
            };
            stream::iter(filtered).for_each_concurrent(FILTERS_AT_ONCE, look).await;
        }
    }
}
