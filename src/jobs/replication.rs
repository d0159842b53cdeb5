//! A replication as it outlives its lives: what is to be done and for whom, how far it has come, and what happened to it.
//!
//! It holds no peers, no buffers and no task, so that ten thousand that have nothing to do cost next to nothing.
//! [`Replication::job`] makes of it what one life needs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::gates::Gate;
use super::history::{EventKind, History};
use super::schedule::Number;
use crate::access::Caller;
use crate::document::DocId;
use crate::endpoint::{Endpoint, RemoteEndpoint};
use crate::replicate::error::Shared;
use crate::replicate::failures::FailureLog;
use crate::replicate::id::ReplicationId;
use crate::replicate::progress::{Lag, Progress};
use crate::replicate::request::Request;
use crate::replicate::{CaughtUp, Context, Job, Linger, ReplicateError};
use crate::store::DbName;

/// A replication, over all its lives.
pub struct Replication {
    /// Which of the replications of this process it is, in the order in which they were asked for.
    pub number: Number,
    /// Its name.
    pub id: ReplicationId,
    /// Names under which its checkpoints may stand, the one that is written first.
    pub log_ids: Vec<String>,
    /// What is to be done.
    pub request: Arc<Request>,
    /// Who asked for it: it has his rights. Of a document, its owner, with the roles that he had when the job was added.
    pub caller: Arc<Caller>,
    /// The document that it is described in; `None`: it was asked for at `_replicate`, and goes with this process.
    pub document: Option<JobDocument>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// What didn't get to the target.
    pub failures: Arc<FailureLog>,
    /// Cancelled when it is removed, or the server stops.
    pub stop: CancellationToken,
    /// Guards what happened to it.
    status: Mutex<Status>,
}

/// A document that describes a replication.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobDocument {
    /// Its database.
    pub database: DbName,
    /// Its id.
    pub id: DocId,
}

/// What happened to a replication.
#[derive(Debug, Default)]
pub struct Status {
    /// Its events.
    pub history: History,
    /// Failures in a row.
    pub error_count: u32,
    /// When the first of them was.
    pub failing_since: Option<SystemTime>,
    /// Why its last life failed, if it hasn't got better since.
    pub reason: Option<Arc<str>>,
    /// When it is to be tried again.
    pub next_try: Option<SystemTime>,
    /// Somebody has paused it.
    pub paused: bool,
    /// When it was last seen to have copied all that there was.
    pub last_success: Option<SystemTime>,
    /// Its document says something of it that is no longer true when it is well.
    pub stated: bool,
    /// It has caught up, and waits for changes.
    pub waits: bool,
    /// A one-shot of a document has come to its end.
    pub completed: bool,
    /// Where it had caught up.
    pub caught_up: Option<CaughtUp>,
    /// How often its source was made anew.
    pub made_anew: u64,
    /// Ends its life.
    life: Option<CancellationToken>,
}

impl Status {
    /// What ends its life, if it has one.
    pub fn take_life(&mut self) -> Option<CancellationToken> {
        self.life.take()
    }
}

/// Where a job stands, in CouchDB's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A document that wasn't looked at yet.
    Initializing,
    /// A document of which no job could be made for now.
    Error,
    /// It lives, or has caught up and waits for changes.
    Running,
    /// It waits for its turn, or is paused.
    Pending,
    /// Its last life failed; it will be tried again.
    Crashing,
    /// A one-shot that came to its end.
    Completed,
    /// No job can be made of the document.
    Failed,
}

impl State {
    /// All of them, in CouchDB's words.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Initializing, "initializing"),
        (Self::Error, "error"),
        (Self::Running, "running"),
        (Self::Pending, "pending"),
        (Self::Crashing, "crashing"),
        (Self::Completed, "completed"),
        (Self::Failed, "failed"),
    ];

    /// CouchDB's word.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

impl Replication {
    /// One that hasn't begun, stopped when the context's tasks are.
    pub fn new(
        context: &Context,
        number: Number,
        (id, log_ids): (ReplicationId, Vec<String>),
        (request, caller): (Arc<Request>, Arc<Caller>),
        document: Option<JobDocument>,
    ) -> Self {
        let mut status = Status::default();
        status.history.add(EventKind::Added, None);
        Self {
            number,
            id,
            log_ids,
            request,
            caller,
            document,
            progress: Arc::default(),
            failures: Arc::default(),
            stop: context.tasks.stopping().child_token(),
            status: Mutex::new(status),
        }
    }

    /// From where and to where.
    pub fn endpoints(&self) -> [&Endpoint; 2] {
        [&self.request.source, &self.request.target]
    }

    /// The name of who asked for it; `None`: nobody in particular.
    pub fn owner(&self) -> Option<&str> {
        self.caller.name.as_deref()
    }

    /// Whether it begins anew after a failure: whoever waits for a one-shot learns of it instead.
    pub fn outlives_failures(&self) -> bool {
        self.request.continuous || self.document.is_some()
    }

    /// Whether it was asked for at `_replicate` and is kept in a document, which then has its id. Such a document is its own, and
    /// goes when it is cancelled.
    pub fn is_kept(&self) -> bool {
        self.document.as_ref().is_some_and(|place| place.id.as_str() == self.id.to_string())
    }

    /// What happened to it. Never to be held for long.
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one life of it needs, with the rights that its caller has now. It ends when it has been still for `linger`, if somebody
    /// will tell of a change then.
    pub fn job(&self, context: &Context, caller: Arc<Caller>, linger: Option<Linger>) -> Job {
        let stop = self.stop.child_token();
        let caught_up = {
            let mut status = self.status();
            status.life = Some(stop.clone());
            // It may have been paused since this life was given.
            if status.paused {
                stop.cancel();
            }
            status.caught_up.clone()
        };
        let ids = (self.id.clone(), self.log_ids.clone());
        let places = context.budget.places(self.progress.pulse());
        Job {
            number: self.number,
            progress: self.progress.clone(),
            failures: self.failures.clone(),
            places,
            // Without checkpoints nothing would tell that a database was made anew while it was parked.
            linger: linger.filter(|_| self.request.use_checkpoints),
            caught_up,
            stop,
            ..Job::new(context.clone(), caller, self.request.clone(), ids)
        }
    }

    /// From progress to the checkpoint that records it.
    pub fn checkpoint_interval(&self, context: &Context) -> Duration {
        self.request.checkpoint_interval.unwrap_or(context.settings.checkpoint_interval)
    }

    /// Whether it has copied all that there was, and waits for changes.
    pub fn has_caught_up(&self) -> bool {
        let waits = self.status().waits;
        waits || (self.state() == State::Running && self.progress.lag() == Lag::CaughtUp)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        let status = self.status();
        if status.completed {
            return State::Completed;
        }
        match status.history.newest().map(|event| event.kind) {
            Some(EventKind::Started) => State::Running,
            Some(EventKind::Crashed) => State::Crashing,
            Some(EventKind::Added | EventKind::Stopped) | None => State::Pending,
        }
    }
}

/// What jobs of this owner share that use these endpoints: servers and logins. The embedded store counts where it has all of the
/// work: to a job with a side elsewhere, that side is the slower one.
pub fn needs(endpoints: &[&Endpoint], owner: Option<&str>) -> Vec<Gate> {
    let remotes = remotes(endpoints);
    let mut needs: Vec<_> = remotes.flat_map(|remote| [Some(server(remote)), login(remote, owner)]).flatten().collect();
    if needs.is_empty() {
        needs.push(Gate::Store);
    }
    needs.sort();
    needs.dedup();
    needs
}

/// What a life with these endpoints didn't get through, if others will meet the same.
pub fn shared(endpoints: &[&Endpoint], owner: Option<&str>, error: &ReplicateError) -> Option<Gate> {
    match error.shared()? {
        Shared::Server(url) => {
            let origin = Url::parse(url).ok()?.origin();
            remotes(endpoints).find(|remote| remote.url.origin() == origin).map(server)
        }
        // Source and target may have one each at the same server.
        Shared::Login(database) => {
            remotes(endpoints).find(|remote| remote.name() == database).and_then(|remote| login(remote, owner))
        }
    }
}

fn remotes<'a>(endpoints: &[&'a Endpoint]) -> impl Iterator<Item = &'a RemoteEndpoint> {
    endpoints.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Remote(remote) => Some(&**remote),
        Endpoint::Local(_) => None,
    })
}

/// What all jobs at a server share.
pub fn server(remote: &RemoteEndpoint) -> Gate {
    Gate::server(&remote.url.origin().ascii_serialization(), remote.connection.way().as_deref())
}

/// What jobs of this owner share that log in there.
pub fn login(remote: &RemoteEndpoint, owner: Option<&str>) -> Option<Gate> {
    let origin = remote.url.origin().ascii_serialization();
    remote.login().map(|user| Gate::login(&origin, remote.connection.way().as_deref(), user, owner))
}
