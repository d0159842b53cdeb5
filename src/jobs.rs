//! Jobs, which are replications that somebody asked for: start or join, cancel, list, stop.
//!
//! A handler never owns a replication: it adds a job here, or joins the one that runs under the same id, and waits;
//! a client that hangs up changes nothing. What a joining caller gets is decided when the job ends: the
//! starter gets the result; the others get it too if the source is still where the job left it, else they run
//! again, one of them starting, the rest joining. The bookkeeping is [`running`]'s. A job has lives, one after another, which
//! [`scheduler`] gives it; one that has caught up has none until its source changes ([`wakes`]). Jobs that outlive the process
//! are described by documents ([`documents`]).

pub mod history;
pub mod replication;
pub mod running;
pub mod gates;
pub mod schedule;
pub mod wakes;
pub mod owners;
pub mod scheduler;
mod sessions;
pub mod info;
pub mod documents;
pub mod kept;
pub mod listing;
pub mod trends;
pub mod overview;
mod refused_checks;
pub mod checking;
mod comparisons;
mod verifying;
mod failures;
pub mod figures;
pub mod entry;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use serde_json::{Map, Value};

use self::comparisons::Comparisons;
use self::documents::{DescribedJobs, Documents};
use self::entry::TaskEntry;
use self::overview::SnapshotCache;
use self::refused_checks::RefusedChecks;
use self::replication::Replication;
use self::running::{Cancelled, Ending, RunningJobs};
use self::scheduler::Scheduler;
use self::trends::Trends;
use crate::access::Caller;
use crate::databases::Databases;
use crate::endpoint::{self, Endpoint};
use crate::replicate::request::{Command, Request};
use crate::replicate::{Context, ReplicateError};
use crate::takeover::DocumentRunner;

/// Replications whose sources are remembered.
const MAX_SOURCES: usize = 10_000;
/// How long a cancel waits for the task to wind down before it is answered.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the last states to be written into documents.
const TOLD_PATIENCE: Duration = Duration::from_secs(1);

/// Every replication that runs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    context: Context,
    running: RunningJobs,
    scheduler: Scheduler,
    /// Absent where nobody follows them.
    documents: Option<Documents>,
    /// Sources of replications that run or ran, by base id and who started them: there their failures are listed.
    sources: Arc<DashMap<(String, Option<String>), KnownSource>>,
    /// What the page shows of how fast jobs are.
    trends: Trends,
    /// The newest snapshot of all jobs.
    snapshot: Arc<SnapshotCache>,
    /// Comparisons of databases.
    comparing: Arc<Comparisons>,
    /// Checks that were refused.
    refused_checks: Arc<RefusedChecks>,
}

/// A source, and who has it read. A secret that it names is his.
#[derive(Clone)]
struct KnownSource {
    endpoint: Endpoint,
    owner: Arc<Caller>,
}

/// What a caller gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The one-shot of this id is done: the whole answer, `"ok":true` included.
    Completed(String, Value),
    /// A continuous replication runs under this id.
    Started(String),
    /// The replication of this id was cancelled.
    Cancelled(String),
}

impl Jobs {
    /// No replication yet. `documents`: where those of documents come from, and who their owners are.
    pub fn new(context: Context, documents: Option<DescribedJobs>) -> Self {
        let running = RunningJobs::default();
        let owners = documents.as_ref().map(|documents| documents.owners.clone());
        let scheduler = Scheduler::new(context.clone(), running.clone(), owners);
        scheduler.begin();
        if let Some(sessions) = context.databases.sessions() {
            let (sessions, running, scheduler) = (sessions.clone(), running.clone(), scheduler.clone());
            let watch = move || sessions::watch(sessions.clone(), running.clone(), scheduler.clone());
            context.tasks.keep("look whether sessions are over", watch);
        }
        let documents = documents.map(|described| {
            let documents = Documents::new(described, (context.clone(), running.clone(), scheduler.clone()));
            if context.settings.run_documents {
                documents.begin();
            }
            documents
        });
        let jobs = Self {
            context,
            running,
            scheduler,
            documents,
            sources: Arc::default(),
            trends: Trends::default(),
            snapshot: Arc::default(),
            comparing: Arc::default(),
            refused_checks: Arc::default(),
        };
        let following = jobs.clone();
        jobs.context.tasks.keep("follow how fast jobs are", move || following.clone().follow_trends());
        jobs
    }

    /// The name of the node that replications run on.
    pub fn node(&self) -> String {
        self.context.identity.node()
    }

    /// Answers a `POST /_replicate`: starts or joins a replication, or cancels one.
    ///
    /// A one-shot is waited for; dropping this future stops nothing.
    pub async fn replicate(&self, body: Map<String, Value>, caller: &Arc<Caller>) -> Result<Answer, ReplicateError> {
        let answer = self.answer(body, caller).await?;
        self.snapshot.is_wanted_anew();
        Ok(answer)
    }

    async fn answer(&self, body: Map<String, Value>, caller: &Arc<Caller>) -> Result<Answer, ReplicateError> {
        caller.may_replicate()?;
        let command = Command::parse(&body).map_err(|error| self.as_url(error))?;
        if let Command::Run(request) = &command
            && request.continuous
            && (request.keep || self.context.settings.keep_jobs && !self.needs_password(request, caller))
        {
            return self.keep(body, request, caller).await;
        }
        // It may be megabytes, and a one-shot may take days.
        drop(body);
        match self.placed(command, caller).await? {
            Command::CancelId(id) => self.cancel(&id, !id.contains("+continuous"), caller).await,
            Command::Cancel(request) => {
                let (request, (id, _)) = self.context.identify(request, caller).await?;
                self.cancel(&id.to_string(), !request.continuous, caller).await
            }
            Command::Run(request) => self.run(request, caller).await,
        }
    }

    /// Whether a document that keeps it must hold its asker's password, which is his alone to wish for.
    fn needs_password(&self, request: &Request, caller: &Caller) -> bool {
        let written = |endpoint| !matches!(self.context.databases.written(endpoint, caller), Ok(None));
        written(&request.source) || written(&request.target)
    }

    /// The command with its local names as they are replicated from here.
    async fn placed(&self, command: Command, caller: &Caller) -> Result<Command, ReplicateError> {
        let databases = &self.context.databases;
        let place = |request: Request, session: Option<&_>| {
            let placed = |endpoint| databases.placed(endpoint, caller, session);
            let (source, target) = (placed(request.source), placed(request.target));
            Request { source, target, ..request }
        };
        Ok(match command {
            Command::CancelId(id) => Command::CancelId(id),
            Command::Cancel(request) => Command::Cancel(place(request, None)),
            Command::Run(request) => {
                let endpoints = [&request.source, &request.target];
                let session = databases.session(endpoints, caller, request.continuous).await?;
                Command::Run(place(request, session.as_ref()))
            }
        })
    }

    /// The entries of `_active_tasks`, the oldest first.
    pub fn active_tasks(&self) -> Vec<Value> {
        self.running
            .list()
            .iter()
            .filter_map(|job| serde_json::to_value(TaskEntry::of(job, &self.context)).ok())
            .collect()
    }

    fn remember(&self, base_id: &str, source: &Endpoint, caller: &Arc<Caller>) {
        if self.sources.len() >= MAX_SOURCES {
            // They are noted in the data dir too, without credentials.
            self.sources.clear();
        }
        self.sources.insert((base_id.to_owned(), caller.name.clone()), KnownSource::of(source, caller));
    }

    /// Closes the intake and tells all replications to record what they have and end.
    pub fn stop(&self) {
        for job in self.running.list().iter().filter(|job| job.document.is_none() && job.request.continuous) {
            let id = job.id.to_string();
            tracing::warn!(replication.id = id, "this replication won't come back: it has no document (--keep-jobs)");
        }
        self.context.tasks.stop();
    }

    /// Waits until all replications have ended; `false` if some still ran at the deadline.
    pub async fn drained(&self, deadline: Duration) -> bool {
        let ended = self.context.tasks.ended_within(deadline).await;
        if let Some(documents) = &self.documents {
            // Of lives that came to their ends meanwhile: they would be led once more.
            _ = tokio::time::timeout(TOLD_PATIENCE, documents.tell_ends()).await;
        }
        self.running.close();
        ended
    }

    async fn run(&self, request: Request, caller: &Arc<Caller>) -> Result<Answer, ReplicateError> {
        may_run(&self.context.databases, caller, &request).await?;
        let (request, (id, log_ids)) = self.context.identify(request, caller).await?;
        let job = |number| {
            self.remember(&id.base, &request.source, caller);
            let (ids, asked) = ((id.clone(), log_ids.clone()), (request.clone(), caller.clone()));
            Replication::new(&self.context, number, ids, asked, None)
        };
        if request.continuous {
            sessions::ask_again((&request, caller), &id.to_string(), &self.running, &self.scheduler);
        }
        loop {
            if self.context.tasks.stopping().is_cancelled() {
                return Err(ReplicateError::ShuttingDown);
            }
            let start = |job, span| self.scheduler.add(job, !request.continuous, span);
            let (joined, ending) = self.running.start_or_join(&id, job, start);
            if !Arc::ptr_eq(&joined.request, &request) {
                self.context.databases.counters().jobs_added_again.increment();
            }
            if request.continuous {
                return Ok(Answer::Started(id.to_string()));
            }
            if joined.status().paused {
                return Err(ReplicateError::Paused);
            }
            // One that was there before may be pausing.
            self.scheduler.retry(joined.number);
            match ending.await {
                Ok(Ending::Result(result)) => {
                    let completed = |answer| Answer::Completed(id.to_string(), answer);
                    return result.map(completed).map_err(|error| self.why(error));
                }
                Ok(Ending::RunAgain) => {}
                Err(_) => return Err(ReplicateError::Crashed),
            }
        }
    }

    /// Makes a document of a continuous replication, which starts its job.
    async fn keep(
        &self,
        mut body: Map<String, Value>,
        request: &Request,
        caller: &Arc<Caller>,
    ) -> Result<Answer, ReplicateError> {
        let documents = self.documents.as_ref().filter(|_| self.context.settings.run_documents);
        let Some(documents) = documents else {
            return Err(ReplicateError::BadRequest("documents aren't run here, so nothing can be kept".into()));
        };
        match documents.runner() {
            // A CouchDB's own scheduler will run it.
            DocumentRunner::Us | DocumentRunner::CouchDb => {}
            DocumentRunner::AnotherCouchrep => {
                return Err(ReplicateError::NotRunNow("another couchrep has taken them over, or has crashed since"));
            }
            DocumentRunner::Nobody => {
                return Err(ReplicateError::NotRunNow(
                    "CouchDB's own jobs don't stand still yet, or it was away; try again",
                ));
            }
        }
        let mut request = request.clone();
        for (field, endpoint) in [("source", &mut request.source), ("target", &mut request.target)] {
            if let Some(written) = self.context.databases.written(endpoint, caller)? {
                *endpoint = Endpoint::parse(field, Some(&written))?;
                body.insert(field.into(), written);
            }
        }
        may_run(&self.context.databases, caller, &request).await?;
        // A document knows its owner by name.
        let owner = Arc::new(Caller { authorization: None, ..Caller::clone(caller) });
        let (_, (id, _)) = self.context.identify(request, &owner).await?;
        let text = id.to_string();
        let home = documents.home();
        let place = kept::keep(home, body, &id, caller).await?;
        documents.look_at(&place);
        // The document's job waits until this one, which nobody would remember, is gone.
        if let Some(job) =
            self.running.get(&text).filter(|job| job.document.is_none() && caller.may_manage(job.owner()))
            && let Some(cancelled) = self.running.remove(&text, job.number)
        {
            self.end(cancelled).await;
        }
        Ok(Answer::Started(text))
    }

    async fn cancel(&self, id: &str, by_base: bool, caller: &Arc<Caller>) -> Result<Answer, ReplicateError> {
        let missing = || ReplicateError::NotFound("missing".into());
        let found = self.running.find(id, by_base, |job| caller.may_manage(job.owner())).ok_or_else(missing)?;
        if let (Some(place), Some(documents)) = (&found.document, &self.documents) {
            let ended = match documents.fingerprint(place, &found) {
                Some(of) => kept::end(documents.home(), &found, place, of).await?,
                None => false,
            };
            if !ended {
                documents.look_at(place);
                return Err(missing());
            }
            documents.settled(place, &found).await;
            return Ok(Answer::Cancelled(found.id.to_string()));
        }
        let cancelled = self.running.remove(&found.id.to_string(), found.number).ok_or_else(missing)?;
        let id = cancelled.job.id.to_string();
        self.end(cancelled).await;
        Ok(Answer::Cancelled(id))
    }

    /// Ends a job that is off the map.
    async fn end(&self, Cancelled { job, ended }: Cancelled) {
        self.scheduler.removed(&job);
        // Winding down may take longer; what is left of it does no harm.
        _ = tokio::time::timeout(CANCEL_PATIENCE, ended.cancelled()).await;
    }

    /// The job of this id, if the caller may manage it.
    fn manageable(&self, id: &str, caller: &Caller) -> Result<Arc<Replication>, ReplicateError> {
        let job = self.running.get(id).filter(|job| caller.may_manage(job.owner()));
        job.ok_or_else(|| ReplicateError::NotFound("missing".into()))
    }

    /// A local name that no database can have is answered as CouchDB answers it: by its URL.
    fn as_url(&self, error: ReplicateError) -> ReplicateError {
        match error {
            ReplicateError::DatabaseNotFound(name) => ReplicateError::DatabaseNotFound(format!(
                "{}/",
                endpoint::local_url(&self.context.identity.address, &name)
            )),
            error => error,
        }
    }

    /// A task that the shutdown stopped wasn't cancelled by anyone.
    fn why(&self, error: ReplicateError) -> ReplicateError {
        match error {
            ReplicateError::Cancelled if self.context.tasks.stopping().is_cancelled() => ReplicateError::ShuttingDown,
            error => error,
        }
    }
}

impl KnownSource {
    fn of(endpoint: &Endpoint, owner: &Arc<Caller>) -> Self {
        Self { endpoint: endpoint.clone(), owner: owner.clone() }
    }
}

/// Whether a caller may start this replication: it reads and writes databases of this server as if he did, and a local target
/// is made by whoever may make databases here. A remote one decides for itself, if it may be connected to.
///
/// The peers refuse him too, but only in the job's lives: a continuous one would be accepted, and fail for ever.
async fn may_run(databases: &Databases, caller: &Caller, request: &Request) -> Result<(), ReplicateError> {
    if request.create_target && matches!(request.target, Endpoint::Local(_)) {
        caller.may_make_databases()?;
    }
    if matches!(&request.source, Endpoint::Local(name) if name.is_users() || name.is_replicator()) {
        caller.may_administer()?;
    }
    for endpoint in [&request.source, &request.target] {
        match endpoint {
            Endpoint::Local(name) => databases.may_open(name, caller).await?,
            Endpoint::Remote(_) => databases.may_connect(endpoint, caller)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::{Denied, Security};
    use crate::config::{Config, Replicator, StoreSettings};
    use crate::effort::pulse::Pulse;
    use crate::peer::remote::Clients;
    use crate::replicate::failures::FailureFiles;
    use crate::replicate::id::{Identity, ReplicationId};
    use crate::server::Server;
    use crate::store::{DbName, Store};

    /// What jobs share that nobody runs.
    pub(super) fn context() -> Context {
        let settings = Arc::new(Replicator::default());
        let identity = Identity { uuid: "u".into(), address: "h:1".into(), hostname: "h".into(), httpd_port: 1 };
        let files = FailureFiles::under("nowhere".as_ref());
        let databases = Databases::new(None, Clients::new(&settings).unwrap(), settings.clone());
        Context::new(databases, files, settings, identity)
    }

    /// A job that nobody runs.
    pub(super) fn job(id: &str) -> Replication {
        job_of(&context(), id)
    }

    /// The same.
    pub(super) fn job_of(context: &Context, id: &str) -> Replication {
        let body = json!({"source": "http://h/a", "target": "http://h/b", "continuous": id.contains("+continuous")});
        let request = match Command::parse(body.as_object().unwrap()).unwrap() {
            Command::Run(request) => request,
            other => panic!("{other:?}"),
        };
        let (base, extension) = id.split_at(id.find('+').unwrap_or(id.len()));
        let id = ReplicationId { base: base.into(), extension: extension.into() };
        Replication::new(context, 0, (id, Vec::new()), (Arc::new(request), Arc::default()), None)
    }

    /// A replication of a local database to somewhere else would read for its caller what he may not read himself.
    #[tokio::test]
    async fn whoever_may_not_open_local_databases_replicates_none_and_only_server_admins_make_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreSettings::default()).await.unwrap();
        for name in ["closed", "open"] {
            store.create(&DbName::parse(name).unwrap()).await.unwrap();
        }
        let open = store.database(&DbName::parse("open").unwrap()).await.unwrap();
        open.set_security(Security::parse(br#"{"members":{"names":["ann"]}}"#).unwrap()).await.unwrap();
        let settings = Arc::new(Replicator::default());
        let databases = Databases::new(Some(store), Clients::new(&settings).unwrap(), settings);
        let user = Caller { name: Some("ann".into()), ..Caller::default() };
        let asked = async |caller: &Caller, source: &str, target: &str, create_target: bool| {
            let body = json!({"source": source, "target": target, "create_target": create_target});
            let Ok(Command::Run(request)) = Command::parse(body.as_object().unwrap()) else { panic!("{body}") };
            may_run(&databases, caller, &request).await.map_err(|error| error.to_string())
        };
        let refused = |denied: Denied| Err(denied.to_string());
        assert_eq!(asked(&user, "closed", "http://h/b", false).await, refused(Denied::ForeignDatabase));
        assert_eq!(asked(&user, "http://h/b", "closed", false).await, refused(Denied::ForeignDatabase));
        assert_eq!(asked(&user, "open", "http://h/b", false).await, Ok(()));
        assert_eq!(asked(&user, "http://h/a", "new", true).await, refused(Denied::NotServerAdmin));
        assert_eq!(asked(&user, "http://h/a", "http://h/b", true).await, Ok(()));
        assert_eq!(asked(&Caller::server_admin(), "closed", "new", true).await, Ok(()));
    }

    /// Whoever had a name could read ids and reasons of anybody's replication, with the other's credentials for the source.
    #[tokio::test]
    async fn failures_are_listed_for_who_started_the_replication_and_for_admins() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { listen: "127.0.0.1:0".into(), data_dir: dir.path().join("data"), ..Config::default() };
        let server = Server::start(config).await.unwrap();
        let url = |name: &str| format!("http://{}/{name}", server.addr());
        let settings = Arc::new(Replicator::default());
        let databases = Databases::new(None, Clients::new(&settings).unwrap(), settings.clone());
        for name in ["a", "b"] {
            let endpoint = Endpoint::parse("target", Some(&url(name).into())).unwrap();
            databases.open(&endpoint, &Arc::default(), &Pulse::default()).await.unwrap().create().await.unwrap();
        }
        let identity = Identity { uuid: "u".into(), address: "h:1".into(), hostname: "h".into(), httpd_port: 1 };
        let files = FailureFiles::under(dir.path());
        let jobs = Jobs::new(Context::new(databases, files, settings, identity), None);
        let user = |name: &str| Arc::new(Caller { name: Some(name.into()), ..Caller::default() });
        let (ann, bob, admin) = (user("ann"), user("bob"), Arc::new(Caller::server_admin()));
        let body = json!({"source": url("a"), "target": url("b"), "continuous": true});
        let started = jobs.replicate(body.as_object().unwrap().clone(), &ann).await.unwrap();
        let Answer::Started(id) = started else { panic!("{started:?}") };
        for runs in [true, false] {
            for allowed in [&ann, &admin] {
                assert_eq!(jobs.failures(&id, (0, 9), allowed).await.unwrap(), (0, Vec::new()), "{allowed:?}");
            }
            let refused = jobs.failures(&id, (0, 9), &bob).await;
            assert!(matches!(refused, Err(ReplicateError::NotFound(_))), "{refused:?}");
            if runs {
                jobs.cancel(&id, false, &bob).await.unwrap_err();
                jobs.cancel(&id, false, &ann).await.unwrap();
            }
        }
    }
}
