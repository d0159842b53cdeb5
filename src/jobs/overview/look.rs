//! A look at all jobs: what is counted of each, and their order; and what was told of it, which many ask for in the same words.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::wanted::Wanted;
use crate::access::Caller;
use crate::endpoint::Endpoint;
use crate::jobs::documents::{DocumentStage, DocumentStatus};
use crate::jobs::replication::{JobDocument, Replication, State};
use crate::replicate::progress::Lag;

/// A look lasts so many times as long as it took: looking takes half a per cent of a core.
const SHARE: u32 = 200;
/// How old a look may be, however short it took.
const SHORTEST: Duration = Duration::from_millis(500);
/// Answers of a look that are kept for others, and the largest of them.
const MAX_TOLD: usize = 100;
const MAX_TOLD_BYTES: usize = 128 << 10;

/// The newest look, while somebody asks.
#[derive(Default)]
pub struct LastLook {
    pub(super) newest: Mutex<Option<Arc<Look>>>,
}

/// What was seen.
pub struct Look {
    taken: Instant,
    took: Duration,
    /// The failing ones first, then those that copy, those that will, those that have caught up, and those that are paused. Within
    /// each the oldest first, so that a page doesn't jump.
    pub jobs: Vec<Seen>,
    told: Mutex<HashMap<Asked, Arc<Told>>>,
}

/// What is wanted, by whom, and whether he may see all.
type Asked = (Wanted, Option<String>, bool);

/// What is told: text, packed too, with a hash over it.
#[derive(Debug)]
pub struct Told {
    /// The text.
    pub text: Bytes,
    /// The same, gzipped.
    pub gzipped: Bytes,
    /// Other texts have other ones.
    pub tag: String,
}

/// What was seen of a job.
pub struct Seen {
    pub job: SeenJob,
    pub state: State,
    pub paused: bool,
    /// It has copied all that there was, and waits for changes.
    pub caught_up: bool,
    /// It failed, and hasn't got better since, even if it is being tried now.
    pub fails: bool,
    pub docs_per_second: f64,
    pub changes_pending: Option<u64>,
    pub doc_write_failures: u64,
}

/// A job, or a document that has none.
pub enum SeenJob {
    Job(Arc<Replication>),
    Document(JobDocument, DocumentStatus),
}

impl LastLook {
    /// A look that is older holds jobs that are gone, and nobody asks for it.
    pub fn forget_old(&self, age: Duration) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.take_if(|look| look.taken.elapsed() > age.max(look.lasts()));
    }

    /// Somebody has changed something, and wants to see it.
    pub fn forget(&self) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Look {
    /// Looks at these.
    pub fn at(jobs: Vec<Arc<Replication>>, documents: Vec<(JobDocument, DocumentStatus)>) -> Self {
        let taken = Instant::now();
        let documents = documents.into_iter().map(|(place, status)| Seen::document(place, status));
        let mut jobs: Vec<_> = jobs.into_iter().map(Seen::job).chain(documents).collect();
        jobs.sort_by_cached_key(Seen::place);
        Self { taken, took: taken.elapsed(), jobs, told: Mutex::default() }
    }

    /// What this caller is told who wants this: what he was told before, on another page, or what `tell` says.
    pub fn told(&self, wanted: &Wanted, caller: &Caller, tell: impl FnOnce() -> Vec<u8>) -> Arc<Told> {
        let key = (wanted.clone(), caller.name.clone(), caller.is_server_admin());
        let all = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = all().get(&key) {
            return told.clone();
        }
        let told = Arc::new(Told::of(tell()));
        let mut all = all();
        if all.len() < MAX_TOLD && told.text.len() <= MAX_TOLD_BYTES {
            all.insert(key, told.clone());
        }
        told
    }

    /// How long it is shown.
    pub fn lasts(&self) -> Duration {
        SHORTEST.max(self.took * SHARE)
    }

    pub fn is_new(&self) -> bool {
        self.taken.elapsed() < self.lasts()
    }
}

impl Told {
    fn of(text: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        // Memory takes whatever is written there.
        let gzipped = packed.write_all(&text).and_then(|()| packed.finish()).unwrap_or_default();
        Self { text: text.into(), gzipped: gzipped.into(), tag: format!("{:016x}", hasher.finish()) }
    }
}

impl Seen {
    fn job(job: Arc<Replication>) -> Self {
        let (state, progress) = (job.state(), &job.progress);
        let (paused, waits, fails) = {
            let status = job.status();
            (status.paused, status.waits, status.error_count > 0)
        };
        let at_end = state == State::Running && progress.lag() == Lag::CaughtUp;
        Self {
            state,
            paused,
            caught_up: waits || at_end,
            fails,
            docs_per_second: if waits { 0.0 } else { progress.docs_per_second().unwrap_or(0.0) },
            changes_pending: progress.changes_pending(),
            doc_write_failures: progress.counts().doc_write_failures,
            job: SeenJob::Job(job),
        }
    }

    fn document(place: JobDocument, status: DocumentStatus) -> Self {
        let state = match status.stage {
            DocumentStage::Error { .. } => State::Error,
            DocumentStage::Duplicate { .. } => State::Failed,
            DocumentStage::Initializing | DocumentStage::Job(_) => State::Initializing,
        };
        Self {
            state,
            paused: status.description.paused,
            caught_up: false,
            fails: state != State::Initializing,
            docs_per_second: 0.0,
            changes_pending: None,
            doc_write_failures: 0,
            job: SeenJob::Document(place, status),
        }
    }

    fn place(&self) -> (u8, Reverse<bool>, u64) {
        let rank = match self.state {
            _ if self.paused => 5,
            _ if self.fails => 0,
            State::Crashing | State::Error | State::Failed => 0,
            State::Running if !self.caught_up => 1,
            State::Initializing | State::Pending => 2,
            State::Running | State::Completed => 3,
        };
        match &self.job {
            SeenJob::Job(job) => (rank, Reverse(true), job.number),
            SeenJob::Document(..) => (rank, Reverse(false), 0),
        }
    }
}

impl SeenJob {
    /// Whose it is.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Job(job) => job.owner(),
            Self::Document(_, status) => status.description.owner.as_deref(),
        }
    }

    /// From where and to where.
    pub fn endpoints(&self) -> [&Endpoint; 2] {
        match self {
            Self::Job(job) => job.endpoints(),
            Self::Document(_, status) => [&status.description.request.source, &status.description.request.target],
        }
    }

    /// Whether this stands in what names it, `address` being the server's own.
    pub fn has(&self, search: &str, address: &str) -> bool {
        let (id, place) = match self {
            Self::Job(job) => (Some(job.id.to_string()), job.document.as_ref()),
            Self::Document(place, _) => (None, Some(place)),
        };
        let place = place.map(|place| format!("{}/{}", place.database, place.id));
        let names = self.endpoints().map(|endpoint| Some(endpoint.display(address)));
        let names = names.into_iter().chain([id, place, self.owner().map(str::to_owned)]);
        names.flatten().any(|name| name.to_lowercase().contains(search))
    }
}
