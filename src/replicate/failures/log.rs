//! What failed in one job and isn't kept yet.
//!
//! Stages add to it without waiting. Whoever keeps it takes the oldest off only when they are written, so that nothing is
//! lost if that fails or is broken off.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{RecordedFailure, short};
use crate::peer::Failure;

/// Failures of a job that are remembered whether they are kept or not, to be shown if the list can't be read.
const MAX_RECENT: usize = 1000;
/// Bytes of them: ids may be long.
pub(super) const RECENT_BYTES: usize = 1 << 20;
/// A log with so many bytes of failures that aren't kept yet is full: they are kept before more is copied.
pub const FULL_BYTES: usize = 1 << 20;

/// What failed in one job.
#[derive(Debug)]
pub struct FailureLog {
    /// Whether the list may have pages.
    may_hold: Arc<AtomicBool>,
    collected: Mutex<Collected>,
    /// Held while failures are written, so that nobody takes those for kept that somebody else is still writing.
    pub(super) keeping: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Collected {
    /// The newest first, kept or not.
    recent: VecDeque<RecordedFailure>,
    recent_bytes: usize,
    /// Those that aren't kept yet, the oldest first.
    unkept: VecDeque<RecordedFailure>,
    unkept_bytes: usize,
    /// Those that no place took and no checkpoint passes.
    forgotten: u64,
}

impl Default for FailureLog {
    fn default() -> Self {
        Self { may_hold: Arc::new(true.into()), collected: Mutex::default(), keeping: tokio::sync::Mutex::default() }
    }
}

impl FailureLog {
    /// Whether the list may have pages, which all lives of a job learn for each other.
    pub fn may_hold(&self) -> Arc<AtomicBool> {
        self.may_hold.clone()
    }

    /// A document didn't get to the target: the target refused it, the source can't give it, or it can't be held.
    ///
    /// Words are shortened, ids are not, since they are asked for again. A log line has no more than a part of either.
    pub fn add(&self, failure: Failure) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let kept = RecordedFailure { failure, time }.shortened();
        let Failure { id, rev, why } = &kept.failure;
        let rev = rev.as_ref().map(|rev| short(rev.to_string()));
        let (id, error, reason) = (short(id.to_string()), &why.error, &why.reason);
        tracing::warn!(doc.id = id, doc.rev = rev, error, reason, "a document can't be copied");
        let mut collected = self.collected();
        collected.recent_bytes += kept.size();
        collected.recent.push_front(kept.clone());
        while collected.recent.len() > MAX_RECENT || collected.recent_bytes > RECENT_BYTES {
            let oldest = collected.recent.pop_back();
            collected.recent_bytes -= oldest.as_ref().map_or(collected.recent_bytes, RecordedFailure::size);
        }
        collected.unkept_bytes += kept.size();
        collected.unkept.push_back(kept);
    }

    /// Whether they should be kept now, not only before the next checkpoint.
    pub fn is_full(&self) -> bool {
        self.collected().unkept_bytes >= FULL_BYTES
    }

    /// The job's newest, the newest first.
    pub fn recent(&self) -> Vec<RecordedFailure> {
        self.collected().recent.iter().cloned().collect()
    }

    /// Those that aren't kept yet, the newest first.
    pub fn unkept(&self) -> Vec<RecordedFailure> {
        self.collected().unkept.iter().rev().cloned().collect()
    }

    /// How many no place took.
    pub fn forgotten(&self) -> u64 {
        self.collected().forgotten
    }

    /// Takes those out that aren't kept yet.
    pub fn take(&self) -> Vec<RecordedFailure> {
        let mut collected = self.collected();
        collected.unkept_bytes = 0;
        std::mem::take(&mut collected.unkept).into()
    }

    /// These many of the oldest are in good hands.
    pub(super) fn kept(&self, count: usize) {
        let mut collected = self.collected();
        collected.unkept.drain(..count);
        collected.unkept_bytes = collected.unkept.iter().map(RecordedFailure::size).sum();
    }

    /// These many of the oldest will have no place.
    pub(super) fn forget(&self, count: usize) {
        self.kept(count);
        self.collected().forgotten += count as u64;
    }

    /// Bytes of those that aren't kept yet, about.
    #[cfg(test)]
    pub(super) fn unkept_bytes(&self) -> usize {
        self.collected().unkept_bytes
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
