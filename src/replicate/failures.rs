//! Documents that didn't get to the target: how a job collects them, and where they are kept.
//!
//! A document that its target refuses, or that its source announces and can't give, is passed over, so that the others
//! may go on; for that it must not be forgotten. A job collects them ([`FailureLog`]) and keeps them
//! ([`FailureFiles::keep`]) before each checkpoint and at its end. So no checkpoint ever passes over a document whose
//! failure isn't kept, and what a crash takes lies behind the checkpoint and is met again.
//!
//! Kept where: `{data dir}/failures/{base id}.json`, replaced as a whole. The simplest place that lives as long as the
//! data dir: a `_local` document would need a peer, which may be what fails, and could only be found by who can name
//! both databases; this is found by the replication's id alone, running or not, and read by any person.
//!
//! Bounded: the newest [`MAX_KEPT`]; how many older ones had to go is told (`dropped`).

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::document::{DocId, Rev};
use crate::peer::{Failure, Why};
use crate::store::StoreError;
use crate::tasks;

/// Failures kept of one replication.
pub const MAX_KEPT: usize = 1000;
/// Characters kept of a peer's reason.
const MAX_REASON: usize = 500;

/// A failure as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What failed; the reason is shortened.
    #[serde(flatten)]
    pub failure: Failure,
    /// When, as RFC 3339 in UTC.
    pub time: String,
}

impl Kept {
    /// What names it: a document's revision is kept once.
    fn key(&self) -> (&DocId, &Option<Rev>) {
        (&self.failure.id, &self.failure.rev)
    }
}

/// Failures, the newest first, each document's revision once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// Older ones that there was no place for.
    pub dropped: u64,
    /// The newest.
    pub failures: VecDeque<Kept>,
}

impl Failures {
    fn add(&mut self, failure: Kept) {
        self.failures.retain(|older| older.key() != failure.key());
        self.failures.push_front(failure);
        if self.failures.len() > MAX_KEPT {
            self.failures.pop_back();
            self.dropped += 1;
        }
    }

    /// Adds what failed later.
    pub fn add_all(&mut self, newer: Self) {
        self.dropped += newer.dropped;
        newer.failures.into_iter().rev().for_each(|failure| self.add(failure));
    }

    fn remove(&mut self, tried: &[Kept]) {
        let tried: HashSet<_> = tried.iter().map(Kept::key).collect();
        self.failures.retain(|failure| !tried.contains(&failure.key()));
    }

    fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }
}

/// What failed in one job.
#[derive(Debug, Default)]
pub struct FailureLog(Mutex<Collected>);

#[derive(Debug, Default)]
struct Collected {
    /// All of the job's.
    all: Failures,
    /// Those that aren't kept yet.
    unkept: Failures,
}

impl FailureLog {
    /// A document didn't get to the target: the target refused it, the source can't give it, or it can't be held.
    pub fn add(&self, Failure { id, rev, why: Why { error, reason } }: Failure) {
        let shown = rev.as_ref().map(tracing::field::display);
        tracing::warn!(doc.id = %id, doc.rev = shown, error, reason, "a document can't be copied");
        let reason = reason.chars().take(MAX_REASON).collect();
        let failure = Failure { id, rev, why: Why { error, reason } };
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let kept = Kept { failure, time };
        let mut collected = self.collected();
        collected.all.add(kept.clone());
        collected.unkept.add(kept);
    }

    /// All failures of the job so far.
    pub fn all(&self) -> Failures {
        self.collected().all.clone()
    }

    /// Those that aren't kept yet.
    pub fn unkept(&self) -> Failures {
        self.collected().unkept.clone()
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where failures are kept. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FailureFiles {
    /// `None`: nothing is kept, as by a command without a data dir.
    directory: Option<PathBuf>,
    /// Held while a file is read, changed and replaced: two jobs may have the same base id.
    changing: Arc<Mutex<()>>,
}

impl FailureFiles {
    /// In this data dir.
    pub fn under(data_dir: &Path) -> Self {
        Self { directory: Some(data_dir.join("failures")), changing: Arc::default() }
    }

    /// Keeps what `log` has collected since the last time, after striking out those that were `tried` again.
    ///
    /// # Errors
    /// What couldn't be kept is still in the log, and is kept the next time.
    pub async fn keep(&self, base_id: &str, log: &FailureLog, tried: Vec<Kept>) -> Result<(), StoreError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let unkept = std::mem::take(&mut log.collected().unkept);
        if unkept.is_empty() && tried.is_empty() {
            return Ok(());
        }
        let (changing, path, new) = (self.changing.clone(), path(&directory, base_id), unkept.clone());
        let replaced = tasks::blocking("keep failures", move || {
            let _changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kept = read(&path)?;
            kept.remove(&tried);
            kept.add_all(new);
            fs::create_dir_all(&directory)?;
            replace(&path, &kept)
        });
        let replaced = replaced.await.map_err(StoreError::from).flatten();
        if replaced.is_err() {
            log.collected().unkept.add_all(unkept);
        }
        replaced
    }

    /// What is kept of a replication; nothing, where none of its documents ever failed.
    pub async fn kept(&self, base_id: &str) -> Result<Failures, StoreError> {
        let Some(directory) = &self.directory else { return Ok(Failures::default()) };
        let path = path(directory, base_id);
        tasks::blocking("read failures", move || read(&path)).await?
    }
}

fn path(directory: &Path, base_id: &str) -> PathBuf {
    directory.join(format!("{base_id}.json"))
}

fn read(path: &Path) -> Result<Failures, StoreError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|_| StoreError::Damaged("a list of failures")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Failures::default()),
        Err(error) => Err(error.into()),
    }
}

/// Written beside its place and moved there: a crash leaves the old file or the new one.
fn replace(path: &Path, failures: &Failures) -> Result<(), StoreError> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(failures).map_err(std::io::Error::from)?)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    path.parent().map_or(Ok(()), |directory| Ok(File::open(directory)?.sync_all()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(ids: impl Iterator<Item = usize>) -> FailureLog {
        let log = FailureLog::default();
        for id in ids {
            let (id, rev) = (DocId::from(id.to_string()), Rev::parse("1-a"));
            log.add(Failure { id, rev, why: Why::new("unavailable", "missing") });
        }
        log
    }

    fn ids(failures: &Failures) -> Vec<&str> {
        failures.failures.iter().map(|failure| failure.failure.id.as_str()).collect()
    }

    #[tokio::test]
    async fn failures_are_kept_once_each_the_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let files = FailureFiles::under(dir.path());
        files.keep("x", &log(1..4), Vec::new()).await.unwrap();
        files.keep("x", &log(2..3), Vec::new()).await.unwrap();
        let kept = FailureFiles::under(dir.path()).kept("x").await.unwrap();
        assert_eq!(ids(&kept), ["2", "3", "1"]);
        assert_eq!(files.kept("y").await.unwrap(), Failures::default());
    }

    #[tokio::test]
    async fn what_was_tried_and_did_not_fail_again_is_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let files = FailureFiles::under(dir.path());
        files.keep("x", &log(1..4), Vec::new()).await.unwrap();
        let tried = Vec::from(files.kept("x").await.unwrap().failures);
        files.keep("x", &log(3..4), tried).await.unwrap();
        assert_eq!(ids(&files.kept("x").await.unwrap()), ["3"]);
    }

    #[tokio::test]
    async fn the_oldest_beyond_the_bound_are_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = FailureFiles::under(dir.path());
        files.keep("x", &log(0..MAX_KEPT + 5), Vec::new()).await.unwrap();
        let kept = files.kept("x").await.unwrap();
        assert_eq!((kept.failures.len(), kept.dropped), (MAX_KEPT, 5));
        assert_eq!(kept.failures[0].failure.id.as_str(), (MAX_KEPT + 4).to_string());
    }

    #[tokio::test]
    async fn what_could_not_be_kept_is_kept_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let files = FailureFiles::under(dir.path());
        let in_the_way = dir.path().join("failures");
        fs::write(&in_the_way, "").unwrap();
        let log = log(1..2);
        files.keep("x", &log, Vec::new()).await.unwrap_err();
        fs::remove_file(in_the_way).unwrap();
        files.keep("x", &log, Vec::new()).await.unwrap();
        assert_eq!(ids(&files.kept("x").await.unwrap()), ["1"]);
    }
}
