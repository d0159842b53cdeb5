//! What `_scheduler` tells: jobs, and documents of replicator databases.
//!
//! Members and their order are CouchDB's; after them stands what CouchDB doesn't tell: `state`, `error_count`,
//! `next_try`, `paused`. URLs are without credentials.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Jobs;
use super::documents::home::stored;
use super::documents::{DocumentStage, DocumentStatus, states};
use super::history::{Event, rfc3339_text};
use super::info::RunningInfo;
use super::replication::{JobDocument, Replication, State};
use crate::document::DocId;
use crate::endpoint::Endpoint;
use crate::replicate::ReplicateError;
use crate::replicate::request::Request;
use crate::store::{Database, DbName, Store, StoreError};

/// An entry of `_scheduler/jobs`.
#[derive(Debug, Serialize)]
pub struct JobEntry {
    database: Option<String>,
    /// The replication id.
    pub id: String,
    pid: Option<String>,
    source: String,
    target: String,
    user: Option<String>,
    doc_id: Option<String>,
    info: Value,
    history: Vec<Event>,
    node: String,
    #[serde(serialize_with = "rfc3339")]
    start_time: Option<SystemTime>,
    state: State,
    error_count: u32,
    #[serde(serialize_with = "rfc3339")]
    next_try: Option<SystemTime>,
    paused: bool,
}

/// An entry of `_scheduler/docs`.
#[derive(Debug, Serialize)]
pub struct DocumentEntry {
    database: String,
    doc_id: String,
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(flatten)]
    endpoints: Map<String, Value>,
    /// Where it stands.
    pub state: State,
    info: Value,
    error_count: u32,
    last_updated: Option<String>,
    start_time: Option<String>,
    #[serde(flatten)]
    proxies: Map<String, Value>,
    next_try: Option<String>,
    paused: bool,
}

/// A page of entries of `_scheduler/docs`, wherever they come from: of all that are added only these are held.
#[derive(Debug)]
pub struct Page<E> {
    skip: usize,
    limit: usize,
    /// From the last one on; these are known when all are.
    descending: bool,
    total: usize,
    entries: VecDeque<E>,
}

impl<E> Page<E> {
    /// At most `limit` entries after `skip` others.
    pub fn new((skip, limit): (usize, usize), descending: bool) -> Self {
        Self { skip, limit, descending, total: 0, entries: VecDeque::new() }
    }

    /// How many entries come before it.
    pub fn skip(&self) -> usize {
        self.skip
    }

    /// How many were added.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Those of the page, in its order.
    pub fn into_entries(self) -> Vec<E> {
        match self.descending {
            true => self.entries.into_iter().rev().skip(self.skip).collect(),
            false => self.entries.into(),
        }
    }

    /// Adds the next one.
    pub fn add(&mut self, entry: E) {
        let place = self.total;
        self.total += 1;
        let end = self.skip.saturating_add(self.limit);
        if self.descending {
            self.entries.push_back(entry);
            if self.entries.len() > end {
                self.entries.pop_front();
            }
        } else if (self.skip..end).contains(&place) {
            self.entries.push_back(entry);
        }
    }
}

impl Jobs {
    /// The entries of `_scheduler/jobs`, in the order of their ids: how many there are, and, after `skip` of them, at most `limit`.
    pub fn entries(&self, (skip, limit): (usize, usize)) -> (usize, Vec<JobEntry>) {
        let mut jobs = self.running.list();
        jobs.sort_by_cached_key(|job| job.id.to_string());
        let entries = jobs.iter().skip(skip).take(limit).map(|job| self.entry(job));
        (jobs.len(), entries.collect())
    }

    /// The entry of one job.
    pub fn job_entry(&self, id: &str) -> Option<JobEntry> {
        self.running.get(id).map(|job| self.entry(&job))
    }

    /// The databases that hold documents of replications.
    pub fn document_databases(&self) -> Vec<DbName> {
        self.documents.as_ref().map(|documents| documents.home().names()).unwrap_or_default()
    }

    /// Adds to a page the entries of `_scheduler/docs` of one database, in the order of the documents' ids, those that `wanted` lets
    /// through. No document is held longer than its entry is made.
    pub async fn document_entries(
        &self,
        database: &Database,
        wanted: Arc<dyn Fn(State) -> bool + Send + Sync>,
        mut page: Page<DocumentEntry>,
    ) -> Result<Page<DocumentEntry>, StoreError> {
        let (jobs, name) = (self.clone(), database.name().clone());
        let read = database.read(move |snapshot| {
            snapshot.documents(None, |id, _| {
                if !id.starts_with("_design/")
                    && let Some(stored) = stored(snapshot, id)?
                {
                    let entry = jobs.document(&name, DocId::from(id.to_owned()), stored.shown());
                    if wanted(entry.state) {
                        page.add(entry);
                    }
                }
                Ok(true)
            })?;
            Ok(page)
        });
        read.await
    }

    /// The entry of one document; `None` if it isn't there.
    pub async fn document_entry(
        &self,
        store: &Store,
        name: &DbName,
        id: &DocId,
    ) -> Result<Option<DocumentEntry>, StoreError> {
        let (database, wanted) = (store.database(name).await?, id.clone());
        let stored = database.read(move |snapshot| stored(snapshot, wanted.as_str())).await?;
        Ok(stored.map(|stored| self.document(name, id.clone(), stored.shown())))
    }

    /// Whether documents of a CouchDB are run here, beside which somebody else has lists of them.
    pub fn runs_couchdbs_documents(&self) -> bool {
        self.documents.as_ref().is_some_and(|documents| documents.home().has_processor() && documents.are_ours())
    }

    /// The entry of a document that isn't at its end, if it is run here.
    pub fn live_entry(&self, place: &JobDocument) -> Option<DocumentEntry> {
        let status = self.documents.as_ref()?.status(place)?;
        Some(self.live_document(place, status))
    }

    fn entry(&self, job: &Replication) -> JobEntry {
        let (waits, next_try) = self.scheduler.waits(job.number);
        let state = job.state();
        let status = job.status();
        let address = &self.context.identity.address;
        let history: Vec<_> = status.history.events().cloned().collect();
        let runs = state == State::Running && !waits;
        JobEntry {
            database: job.document.as_ref().map(|document| document.database.to_string()),
            id: job.id.to_string(),
            pid: runs.then(|| format!("<0.{}.0>", job.number)),
            source: job.request.source.display(address),
            target: job.request.target.display(address),
            // CouchDB tells it of jobs without documents alone.
            user: job.owner().filter(|_| job.document.is_none()).map(str::to_owned),
            doc_id: job.document.as_ref().map(|document| document.id.to_string()),
            info: info(job, state, status.reason.as_deref()),
            start_time: history.last().map(|event| event.timestamp),
            history,
            node: self.context.identity.node(),
            state,
            error_count: status.error_count,
            next_try: if status.paused { None } else { next_try },
            paused: status.paused,
        }
    }

    fn document(&self, database: &DbName, id: DocId, mut document: Map<String, Value>) -> DocumentEntry {
        let place = JobDocument { database: database.clone(), id };
        if let Some(documents) = &self.documents {
            if let Some(status) = documents.status(&place) {
                return self.live_document(&place, status);
            }
            documents.show_end(&place, &mut document);
        }
        self.ended_document(&place, &document)
    }

    fn live_document(&self, place: &JobDocument, status: DocumentStatus) -> DocumentEntry {
        let address = &self.context.identity.address;
        let DocumentStatus { stage, description, since } = status;
        let since = rfc3339_text(since);
        let entry = DocumentEntry {
            database: place.database.to_string(),
            doc_id: place.id.to_string(),
            id: None,
            node: Some(self.context.identity.node()),
            endpoints: Map::new(),
            state: State::Initializing,
            info: Value::Null,
            error_count: 0,
            last_updated: Some(since.clone()),
            start_time: Some(since.clone()),
            proxies: Map::new(),
            next_try: None,
            paused: description.paused,
        };
        match stage {
            DocumentStage::Initializing => entry,
            DocumentStage::Error { count, reason, next_try } => DocumentEntry {
                state: State::Error,
                info: json!({ "error": &*reason }),
                error_count: count,
                next_try: Some(rfc3339_text(next_try)),
                ..entry
            },
            DocumentStage::Duplicate { reason, .. } => DocumentEntry {
                node: None,
                endpoints: endpoints(&description.request, address),
                state: State::Failed,
                info: json!({ "error": &*reason }),
                error_count: 1,
                ..entry
            },
            DocumentStage::Job(job) => {
                let (_, next_try) = self.scheduler.waits(job.number);
                let state = job.state();
                let status = job.status();
                let newest = status.history.newest().map(|event| rfc3339_text(event.timestamp));
                let added = status.history.events().last().map(|event| rfc3339_text(event.timestamp));
                DocumentEntry {
                    id: Some(job.id.to_string()),
                    endpoints: endpoints(&job.request, address),
                    state,
                    info: info(&job, state, status.reason.as_deref()),
                    error_count: status.error_count,
                    last_updated: newest,
                    start_time: added,
                    proxies: proxies(&job.request),
                    next_try: next_try.filter(|_| !status.paused).map(rfc3339_text),
                    paused: status.paused,
                    ..entry
                }
            }
        }
    }

    /// Of a document that is at its end, what stands in it.
    fn ended_document(&self, place: &JobDocument, document: &Map<String, Value>) -> DocumentEntry {
        let address = &self.context.identity.address;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let state = match text("_replication_state") {
            Some("completed") => State::Completed,
            Some("failed") => State::Failed,
            // It was written a moment ago.
            _ => State::Initializing,
        };
        let mut stats = document.get("_replication_stats").and_then(Value::as_object).cloned().unwrap_or_default();
        let updated = text("_replication_state_time").map(str::to_owned);
        let started = stats.shift_remove("start_time").and_then(|time| time.as_str().map(str::to_owned));
        let info = match state {
            State::Completed => Value::Object(stats),
            State::Failed => json!({ "error": text("_replication_state_reason") }),
            _ => Value::Null,
        };
        DocumentEntry {
            database: place.database.to_string(),
            doc_id: place.id.to_string(),
            id: None,
            node: None,
            endpoints: Request::of_document(document).map(|request| endpoints(&request, address)).unwrap_or_else(
                |_| Map::from_iter([("source".to_owned(), Value::Null), ("target".to_owned(), Value::Null)]),
            ),
            state,
            info,
            error_count: u32::from(state == State::Failed),
            start_time: started.or_else(|| updated.clone()),
            last_updated: updated,
            proxies: Map::new(),
            next_try: None,
            paused: document.get("paused") == Some(&Value::Bool(true)),
        }
    }

    /// Pauses the job of a document, lets it go on, or has it tried now; the first two stand in the document. Answers the job's
    /// entry as it is then; `None` if there is no such job.
    ///
    /// # Errors
    /// [`ReplicateError::BadRequest`] of a job without a document, which nothing would remember; [`ReplicateError::Paused`] of one
    /// that is to be tried and is paused.
    pub async fn act(&self, id: &str, action: Action) -> Result<Option<JobEntry>, ReplicateError> {
        let Some(job) = self.running.get(id) else { return Ok(None) };
        match (action, job.document.as_ref().zip(self.documents.as_ref())) {
            (Action::RetryNow, _) if job.status().paused => return Err(ReplicateError::Paused),
            (Action::RetryNow, _) => self.scheduler.retry(job.number),
            (Action::Pause | Action::Resume, None) => {
                let reason = "only jobs of documents can be paused; cancel this one, or describe it in a document";
                return Err(ReplicateError::BadRequest(reason.into()));
            }
            (Action::Pause | Action::Resume, Some((place, documents))) => {
                let paused = action == Action::Pause;
                let value = paused.then_some(Value::Bool(true));
                let is_there = states::set_member(documents.home(), place, ("paused", value)).await?;
                if is_there {
                    self.scheduler.set_paused(&job, paused);
                }
                // It may have been written again since, and that been read already.
                self.documents.iter().for_each(|documents| documents.look_at(place));
                if !is_there {
                    return Ok(None);
                }
            }
        }
        Ok(Some(self.entry(&job)))
    }
}

/// What may be done with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// No life until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// Its own pause is over, and it doesn't wait for its server. A login that was refused is tried only when its pause is over.
    RetryNow,
}

fn info(job: &Replication, state: State, reason: Option<&str>) -> Value {
    match (state, reason) {
        (State::Crashing, Some(reason)) => json!({ "error": reason }),
        (State::Pending, _) if job.progress.counts() == Default::default() => Value::Null,
        _ => json!(RunningInfo::of(&job.progress)),
    }
}

fn endpoints(request: &Request, address: &str) -> Map<String, Value> {
    let shown = |endpoint: &Endpoint| Value::String(endpoint.display(address));
    Map::from_iter([("source".to_owned(), shown(&request.source)), ("target".to_owned(), shown(&request.target))])
}

fn proxies(request: &Request) -> Map<String, Value> {
    let shown = |endpoint: &Endpoint| match endpoint {
        Endpoint::Local(_) => Value::Null,
        Endpoint::Remote(remote) => remote.connection.proxy.as_ref().map_or(Value::Null, |proxy| proxy.shown().into()),
    };
    Map::from_iter([
        ("source_proxy".to_owned(), shown(&request.source)),
        ("target_proxy".to_owned(), shown(&request.target)),
    ])
}

fn rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339_text).serialize(serializer)
}
