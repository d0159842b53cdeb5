//! All jobs as they were at one moment: what is counted of each, in their order; and the answers that were made of it, which several pages
//! ask for in the same words.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// A snapshot is used for so many times as long as it took: taking them takes a quarter of a per cent of a core.
const SHARE: u32 = 400;
/// The same when somebody has done something and wants to see it.
const SHARE_IN_A_HURRY: u32 = 50;
/// How long it is used, however short it took, and however long, on a machine that has no time.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);
/// Answers that are kept for others, and the largest of them.
const MAX_ENCODED: usize = 100;
const MAX_ENCODED_BYTES: usize = 128 << 10;

/// The newest snapshot, while somebody asks.
#[derive(Default)]
pub struct SnapshotCache {
    newest: Mutex<Option<Arc<JobsSnapshot>>>,
    wanted_anew: AtomicBool,
}

/// All jobs as they were.
pub struct JobsSnapshot {
    taken: Instant,
    took: Duration,
    /// The failing ones first, then those that copy, those that will, those that have caught up, and those that are paused. Within
    /// each the oldest first, so that a page doesn't jump.
    pub jobs: Vec<JobSummary>,
    /// Guards the answers that were made of it.
    answers: Mutex<HashMap<AnswerKey, Arc<EncodedOverview>>>,
}

/// What is wanted, by whom, and whether he may see all.
type AnswerKey = (Wanted, Option<String>, bool);

/// An overview as it is sent.
#[derive(Debug)]
pub struct EncodedOverview {
    /// The text.
    pub text: Bytes,
    /// The same, gzipped.
    pub gzipped: Bytes,
    /// A hash over the text.
    pub etag: String,
}

/// What is counted of a job.
pub struct JobSummary {
    pub job: JobOrDocument,
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
pub enum JobOrDocument {
    Job(Arc<Replication>),
    Document(JobDocument, DocumentStatus),
}

impl SnapshotCache {
    /// Drops it if it is older and nobody asks any more: it holds jobs that may be gone.
    pub fn forget_old(&self, age: Duration) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.take_if(|snapshot| snapshot.taken.elapsed() > age.max(snapshot.lasts()));
    }

    /// Somebody has changed something, and wants to see it: the next snapshot is taken sooner, though not whenever somebody wants it.
    pub fn is_wanted_anew(&self) {
        self.wanted_anew.store(true, Ordering::Relaxed);
    }

    /// The newest one, if it still serves, else the one that is taken now. Whoever comes meanwhile waits for it instead of taking one too.
    pub fn newest_or(&self, take: impl FnOnce() -> JobsSnapshot) -> Arc<JobsSnapshot> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted_anew = self.wanted_anew.load(Ordering::Relaxed);
        if let Some(snapshot) = newest.as_ref().filter(|snapshot| snapshot.serves(wanted_anew)) {
            return snapshot.clone();
        }
        self.wanted_anew.store(false, Ordering::Relaxed);
        newest.insert(Arc::new(take())).clone()
    }
}

impl JobsSnapshot {
    /// Of the jobs, and the documents without one, that `list` finds.
    pub fn take(list: impl FnOnce() -> (Vec<Arc<Replication>>, Vec<(JobDocument, DocumentStatus)>)) -> Self {
        let taken = Instant::now();
        let (jobs, documents) = list();
        let documents = documents.into_iter().map(|(place, status)| JobSummary::document(place, status));
        let mut jobs: Vec<_> = jobs.into_iter().map(JobSummary::job).chain(documents).collect();
        jobs.sort_by_cached_key(JobSummary::place);
        Self { taken, took: taken.elapsed(), jobs, answers: Mutex::default() }
    }

    /// How long it is used.
    pub fn lasts(&self) -> Duration {
        (self.took * SHARE).clamp(SHORTEST, LONGEST)
    }

    fn serves(&self, wanted_anew: bool) -> bool {
        let lasts = if wanted_anew { (self.took * SHARE_IN_A_HURRY).clamp(SHORTEST, LONGEST) } else { self.lasts() };
        self.taken.elapsed() < lasts
    }

    /// The answer to this caller who wants this: the one that another page of his got, or what `encode` makes.
    pub fn answer(&self, wanted: &Wanted, caller: &Caller, encode: impl FnOnce() -> Vec<u8>) -> Arc<EncodedOverview> {
        let key = (wanted.clone(), caller.name.clone(), caller.is_server_admin());
        let all = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = all().get(&key) {
            return answer.clone();
        }
        let answer = Arc::new(EncodedOverview::of(encode()));
        let mut all = all();
        if all.len() < MAX_ENCODED && answer.text.len() <= MAX_ENCODED_BYTES {
            all.insert(key, answer.clone());
        }
        answer
    }
}

impl EncodedOverview {
    fn of(text: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        // Memory takes whatever is written there.
        let gzipped = packed.write_all(&text).and_then(|()| packed.finish()).unwrap_or_default();
        Self { text: text.into(), gzipped: gzipped.into(), etag: format!("{:016x}", hasher.finish()) }
    }
}

impl JobSummary {
    fn job(job: Arc<Replication>) -> Self {
        let progress = &job.progress;
        let (paused, fails) = {
            let status = job.status();
            (status.paused, status.error_count > 0)
        };
        Self {
            state: job.state(),
            paused,
            caught_up: job.has_caught_up(),
            fails,
            docs_per_second: progress.docs_per_second().unwrap_or(0.0),
            changes_pending: progress.changes_pending(),
            doc_write_failures: progress.counts().doc_write_failures,
            job: JobOrDocument::Job(job),
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
            job: JobOrDocument::Document(place, status),
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
            JobOrDocument::Job(job) => (rank, Reverse(true), job.number),
            JobOrDocument::Document(..) => (rank, Reverse(false), 0),
        }
    }
}

impl JobOrDocument {
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
