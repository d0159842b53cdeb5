//! A job as one life of it needs it: what is to be replicated and for whom, and how far it has come; and what all jobs share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ReplicateError;
use super::changes::Linger;
use super::checkpoint::{CaughtUp, UnprovenLogs};
use super::failures::FailureList;
use super::failures::{FailureFiles, FailureLog};
use super::id::{Identity, ReplicationId};
use super::life::Life;
use super::progress::Progress;
use super::request::Request;
use crate::access::Caller;
use crate::config::Replicator;
use crate::databases::Databases;
use crate::document::Seq;
use crate::effort::budget::{Budget, JobBudget};
use crate::endpoint::Endpoint;
use crate::peer::{Filter, Peer, PeerError};
use crate::tasks::Tasks;

/// What all replications of a server share. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Opens sources and targets.
    pub databases: Databases,
    /// Where failures are kept.
    pub failures: FailureFiles,
    /// Defaults and limits.
    pub settings: Arc<Replicator>,
    /// Who this server is.
    pub identity: Arc<Identity>,
    /// Memory for documents on their way.
    pub budget: Budget,
    /// Checkpoints that may be where they don't belong.
    pub unproven: UnprovenLogs,
    /// Owns the tasks of all replications.
    pub tasks: Tasks,
}

impl Context {
    /// What a server's replications share, with a memory budget and a group of tasks of their own.
    pub fn new(databases: Databases, failures: FailureFiles, settings: Arc<Replicator>, identity: Identity) -> Self {
        let budget = Budget::new(settings.memory_budget);
        Self {
            databases,
            failures,
            settings,
            identity: Arc::new(identity),
            budget,
            unproven: UnprovenLogs::default(),
            tasks: Tasks::default(),
        }
    }
}

/// One replication, for one life. What outlives it is shared with whoever gives it lives: `progress` and `failures`.
pub struct Job {
    /// Which of the jobs of this process it is, in the order in which they were started; 0 of a command.
    pub number: u64,
    /// Its name.
    pub id: ReplicationId,
    /// Names under which its checkpoints may stand, the one that is written first.
    pub log_ids: Vec<String>,
    /// What is to be done.
    pub request: Arc<Request>,
    /// Who asked for it: it has his rights.
    pub caller: Arc<Caller>,
    /// What all replications share.
    pub context: Context,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// What didn't get to the target.
    pub failures: Arc<FailureLog>,
    /// Where its pages and streams find place.
    pub places: JobBudget,
    /// When a continuous job's life ends once it has caught up; `None`: never.
    pub linger: Option<Linger>,
    /// Where its last life had caught up.
    pub caught_up: Option<CaughtUp>,
    /// How far this life is.
    pub stage: watch::Sender<Stage>,
    /// Cancelled: what is under way is finished and recorded, then the life ends.
    pub stop: CancellationToken,
}

/// How far a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its databases haven't answered yet.
    Opening,
    /// Both have.
    Copying,
    /// Everything that there was is copied. What comes now is copied too.
    CaughtUp,
}

/// What came of a one-shot replication.
#[derive(Debug)]
pub struct Outcome {
    /// The caller's answer.
    pub answer: serde_json::Value,
    /// The source.
    pub source: Peer,
    /// Everything up to here was copied.
    pub committed_seq: Seq,
    /// Where a continuous job goes on.
    pub caught_up: Option<CaughtUp>,
    /// What didn't get to the target, in this replication and earlier ones of its base id.
    pub failures: FailureList,
    /// How many of them stand; `None` if that couldn't be found out.
    pub failures_standing: Option<u64>,
}

impl Job {
    /// A job that hasn't begun, stopped when its context's tasks are.
    pub fn new(
        context: Context,
        caller: Arc<Caller>,
        request: impl Into<Arc<Request>>,
        (id, log_ids): (ReplicationId, Vec<String>),
    ) -> Self {
        let progress: Arc<Progress> = Arc::default();
        let (places, stop) = (context.budget.places(progress.pulse()), context.tasks.stopping().child_token());
        Self {
            number: 0,
            id,
            log_ids,
            request: request.into(),
            caller,
            context,
            progress,
            failures: Arc::default(),
            places,
            linger: None,
            caught_up: None,
            stage: watch::Sender::new(Stage::Opening),
            stop,
        }
    }

    /// The name of who asked for it; `None`: nobody in particular.
    pub fn owner(&self) -> Option<&str> {
        self.caller.name.as_deref()
    }

    /// Rows of the feed that make a batch.
    fn batch_size(&self) -> usize {
        self.request.worker_batch_size.unwrap_or(self.context.settings.worker_batch_size)
    }

    /// Batches in flight.
    fn batches(&self) -> usize {
        self.request.worker_processes.unwrap_or(self.context.settings.worker_processes)
    }

    /// From progress to the checkpoint that records it.
    pub fn checkpoint_interval(&self) -> Duration {
        self.request.checkpoint_interval.unwrap_or(self.context.settings.checkpoint_interval)
    }

    /// How long it may stand still: in any case longer than any single wait for a peer.
    pub fn stall_limit(&self) -> Duration {
        let settings = &self.context.settings;
        let longest =
            [&self.request.source, &self.request.target].map(|endpoint| endpoint.connection_timeout(settings));
        let wait = longest.into_iter().fold(settings.heartbeat, Duration::max) + settings.retry_time_limit;
        settings.stall_limit.max(wait * 2)
    }

    /// What the source is to let through.
    pub fn filter(&self) -> Filter {
        self.request.feed_filter()
    }

    /// What the stages of one life share, once its databases are open.
    pub fn life(&self, source: &Peer, target: &Peer) -> Life {
        Life {
            source: source.clone(),
            target: target.clone(),
            progress: self.progress.clone(),
            failures: self.failures.clone(),
            budget: self.context.budget.clone(),
            places: self.places.clone(),
            batch_size: self.batch_size(),
            batches: self.batches(),
            batch_bytes: self.context.settings.batch_bytes,
            tries: self.context.settings.retries_per_request,
            seen: None,
            inline_failures: Arc::default(),
            stop: self.stop.clone(),
        }
    }

    /// The list of its failures.
    pub fn failure_list(&self, source: &Peer) -> FailureList {
        let whose = (self.id.base.as_str(), self.caller.name.as_deref());
        FailureList::of_job(&self.request, whose, source, (&self.context.failures, &self.failures))
    }

    /// Asks a database something while it is being opened: what goes wrong names it as the caller knows it.
    pub async fn opening<T>(
        &self,
        endpoint: &Endpoint,
        question: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, ReplicateError> {
        let answer = self.stop.run_until_cancelled(question).await.ok_or(ReplicateError::Cancelled)?;
        answer.map_err(|error| match error {
            PeerError::DatabaseMissing { .. } => {
                ReplicateError::DatabaseNotFound(endpoint.display(&self.context.identity.address))
            }
            error => error.into(),
        })
    }
}
