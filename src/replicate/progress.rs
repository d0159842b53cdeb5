//! How far a job has come: counters and its position in the feed, read while they change.
//!
//! A job's totals run on over restarts; a session's counters are the difference to what they were at its start
//! ([`Counts::since`]). Positions are the source's own seqs. Nothing here is awaited.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;

use super::rate::Rate;
use crate::document::{DocId, Rev, Seq};
use crate::effort::pulse::Pulse;

/// How far a job has come.
#[derive(Debug)]
pub struct Progress {
    missing_checked: AtomicU64,
    missing_found: AtomicU64,
    docs_read: AtomicU64,
    docs_written: AtomicU64,
    doc_write_failures: AtomicU64,
    bulk_get_docs: AtomicU64,
    bulk_get_attempts: AtomicU64,
    rate: Rate,
    position: Mutex<Position>,
    copies: AtomicU64,
    known: Mutex<RecentCopies>,
    started_on: u64,
    updated_on: AtomicU64,
    succeeded_on: AtomicU64,
    pulse: Pulse,
}

/// Some documents that got to the target lately, the newest first.
#[derive(Debug, Default)]
struct RecentCopies {
    plain: VecDeque<(DocId, Rev)>,
    attached: VecDeque<(DocId, Rev)>,
}

impl RecentCopies {
    /// More than one, since one may be edited next, or be in doubt.
    const MOST: usize = 4;

    fn add(known: &mut VecDeque<(DocId, Rev)>, one: (DocId, Rev)) {
        known.retain(|(id, _)| *id != one.0);
        known.push_front(one);
        known.truncate(Self::MOST);
    }
}

/// How far a job is in the source's feed.
#[derive(Debug, Clone)]
pub struct Position {
    /// The feed has been read up to here.
    pub source_seq: Seq,
    /// Everything up to here is on the target.
    pub through_seq: Seq,
    /// The newest checkpoint.
    pub checkpointed_source_seq: Seq,
    /// Changes after `through_seq`, as the source told with it.
    pub changes_pending: Option<u64>,
    /// Changes of this session up to `through_seq`; `None` if a filter hides how many there were.
    pub changes_done: Option<u64>,
    /// Since when the target lacks something.
    pub lag: Lag,
    /// The source had nothing after `source_seq`.
    at_end: bool,
}

/// Since when the target lacks something that the source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// Nobody knows: the source wasn't asked yet, or doesn't tell what is pending.
    Unknown,
    /// It had everything when the source was asked last.
    CaughtUp,
    /// Unix seconds.
    Since(u64),
}

impl Lag {
    /// Seconds until now; 0 if there is none.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::CaughtUp => Some(0),
            Self::Since(then) => Some(unix_seconds().saturating_sub(then)),
        }
    }

    /// The target lacks something now.
    fn begun(self) -> Self {
        match self {
            Self::Since(then) => Self::Since(then),
            Self::Unknown | Self::CaughtUp => Self::Since(unix_seconds()),
        }
    }
}

/// What is counted, under the names and in the order of a history entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the field's words")]
pub struct Counts {
    pub missing_checked: u64,
    pub missing_found: u64,
    pub docs_read: u64,
    pub docs_written: u64,
    pub doc_write_failures: u64,
    pub bulk_get_docs: u64,
    pub bulk_get_attempts: u64,
}

impl Counts {
    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            missing_checked: self.missing_checked - earlier.missing_checked,
            missing_found: self.missing_found - earlier.missing_found,
            docs_read: self.docs_read - earlier.docs_read,
            docs_written: self.docs_written - earlier.docs_written,
            doc_write_failures: self.doc_write_failures - earlier.doc_write_failures,
            bulk_get_docs: self.bulk_get_docs - earlier.bulk_get_docs,
            bulk_get_attempts: self.bulk_get_attempts - earlier.bulk_get_attempts,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        let now = unix_seconds();
        let position = Position {
            source_seq: Seq::zero(),
            through_seq: Seq::zero(),
            checkpointed_source_seq: Seq::zero(),
            changes_pending: None,
            changes_done: Some(0),
            lag: Lag::Unknown,
            at_end: false,
        };
        Self {
            missing_checked: AtomicU64::new(0),
            missing_found: AtomicU64::new(0),
            docs_read: AtomicU64::new(0),
            docs_written: AtomicU64::new(0),
            doc_write_failures: AtomicU64::new(0),
            bulk_get_docs: AtomicU64::new(0),
            bulk_get_attempts: AtomicU64::new(0),
            rate: Rate::default(),
            position: Mutex::new(position),
            copies: AtomicU64::new(0),
            known: Mutex::default(),
            started_on: now,
            updated_on: AtomicU64::new(now),
            succeeded_on: AtomicU64::new(0),
            pulse: Pulse::default(),
        }
    }
}

impl Progress {
    /// Counts what was added to the counters of `more`.
    pub fn count(&self, more: Counts) {
        let add = |counter: &AtomicU64, more: u64| {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        };
        add(&self.missing_checked, more.missing_checked);
        add(&self.missing_found, more.missing_found);
        add(&self.docs_read, more.docs_read);
        add(&self.docs_written, more.docs_written);
        self.rate.sample(Instant::now(), self.docs_written.load(Ordering::Relaxed));
        add(&self.doc_write_failures, more.doc_write_failures);
        add(&self.bulk_get_docs, more.bulk_get_docs);
        add(&self.bulk_get_attempts, more.bulk_get_attempts);
        self.touch();
    }

    /// So many documents without attachments got to the target, this one among them.
    pub fn copied(&self, copies: u64, one: Option<(DocId, Rev)>) {
        self.copies.fetch_add(copies, Ordering::Relaxed);
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        one.into_iter().for_each(|one| RecentCopies::add(&mut known.plain, one));
    }

    /// A document with attachments got to the target.
    pub fn copied_attached(&self, id: DocId, rev: Rev) {
        self.copies.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        RecentCopies::add(&mut known.attached, (id, rev));
    }

    /// How often a document got to the target, whether it was there before or not. It grows as long as both sides work.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    /// Documents that got to the target lately, one of each way to go (without attachments, and with) if there is any
    /// among those that `usable` lets through.
    pub fn known(&self, usable: impl Fn(&DocId) -> bool) -> Vec<(DocId, Rev)> {
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let newest = |of: &VecDeque<(DocId, Rev)>| of.iter().find(|(id, _)| usable(id)).cloned();
        [newest(&known.plain), newest(&known.attached)].into_iter().flatten().collect()
    }

    /// The totals.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            missing_checked: get(&self.missing_checked),
            missing_found: get(&self.missing_found),
            docs_read: get(&self.docs_read),
            docs_written: get(&self.docs_written),
            doc_write_failures: get(&self.doc_write_failures),
            bulk_get_docs: get(&self.bulk_get_docs),
            bulk_get_attempts: get(&self.bulk_get_attempts),
        }
    }

    /// A session starts (again) after this checkpoint.
    pub fn started(&self, seq: &Seq) {
        self.change(|position| {
            position.source_seq = seq.clone();
            position.through_seq = seq.clone();
            position.checkpointed_source_seq = seq.clone();
            position.changes_pending = None;
            position.changes_done = Some(0);
            position.at_end = false;
        });
    }

    /// A page of the feed was read.
    pub fn read(&self, last_seq: &Seq) {
        self.change(|position| {
            position.source_seq = last_seq.clone();
            position.at_end = false;
            if position.source_seq != position.through_seq {
                position.lag = position.lag.begun();
            }
        });
    }

    /// Everything up to here is on the target: so many changes more (`None`: a filter hides it), and so many came
    /// after it.
    pub fn finished(&self, seq: &Seq, changes: Option<u64>, pending: Option<u64>) {
        self.change(|position| {
            position.through_seq = seq.clone();
            position.changes_pending = pending;
            position.changes_done = position.changes_done.zip(changes).map(|(done, more)| done + more);
            position.lag = match pending {
                Some(0) if position.source_seq == *seq => Lag::CaughtUp,
                None if position.at_end && position.source_seq == *seq => Lag::CaughtUp,
                Some(0) | None => position.lag,
                Some(_) => position.lag.begun(),
            };
        });
        self.succeeded();
    }

    /// The source has nothing after what was read.
    pub fn reached_end(&self) {
        self.change(|position| {
            position.at_end = true;
            if position.source_seq == position.through_seq {
                position.lag = Lag::CaughtUp;
            }
        });
    }

    /// A checkpoint was recorded.
    pub fn checkpointed(&self, seq: &Seq) {
        self.change(|position| position.checkpointed_source_seq = seq.clone());
    }

    /// What was copied so far is durable on the target.
    pub fn succeeded(&self) {
        self.succeeded_on.store(unix_seconds(), Ordering::Relaxed);
    }

    /// How far it is in the feed.
    pub fn position(&self) -> Position {
        self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The same, but only what comes after what is on the target, as the source told last.
    pub fn changes_pending(&self) -> Option<u64> {
        self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).changes_pending
    }

    /// The same, but only since when the target lacks something.
    pub fn lag(&self) -> Lag {
        self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).lag
    }

    /// Documents written a second, of late; `None` while nothing can be said yet.
    pub fn docs_per_second(&self) -> Option<f64> {
        self.rate.per_second(Instant::now(), self.docs_written.load(Ordering::Relaxed))
    }

    /// Signs of life, these and those of the peers that were opened with it.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Unix seconds of the start.
    pub fn started_on(&self) -> u64 {
        self.started_on
    }

    /// Unix seconds of the last change.
    pub fn updated_on(&self) -> u64 {
        self.updated_on.load(Ordering::Relaxed)
    }

    /// Unix seconds of the last batch that got to the target, or checkpoint; `None` before the first.
    pub fn succeeded_on(&self) -> Option<u64> {
        Some(self.succeeded_on.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }

    fn change(&self, change: impl FnOnce(&mut Position)) {
        change(&mut self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.touch();
    }

    fn touch(&self) {
        self.updated_on.store(unix_seconds(), Ordering::Relaxed);
        self.pulse.beat();
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Position {
    /// How much of this session's changes is done, in per cent; `None` if the source doesn't tell, or a filter hides it.
    pub fn percent(&self) -> Option<u64> {
        let (done, pending) = self.changes_done.zip(self.changes_pending)?;
        // A source may say any number.
        let (done, pending) = (u128::from(done), u128::from(pending));
        u64::try_from((100 * done).checked_div(done + pending).unwrap_or(100)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_null_where_it_can_not_be_known() {
        let progress = Progress::default();
        let percent = || progress.position().percent();
        assert_eq!(percent(), None);
        progress.finished(&Seq::from(3), Some(3), Some(0));
        assert_eq!(percent(), Some(100));
        progress.finished(&Seq::from(4), Some(1), None);
        assert_eq!(percent(), None);
        progress.finished(&Seq::from(5), None, Some(5));
        assert_eq!(percent(), None);
        progress.started(&Seq::from(5));
        assert_eq!(percent(), None);
        progress.finished(&Seq::from(5), Some(0), Some(0));
        assert_eq!(percent(), Some(100));
    }

    /// A source that said so once ended the server's answer with a panic, or a wrong number.
    #[test]
    fn a_source_may_have_any_number_pending() {
        let percent = |done, pending| {
            let progress = Progress::default();
            progress.finished(&Seq::from(1), Some(done), Some(pending));
            progress.position().percent()
        };
        assert_eq!(percent(1, u64::MAX), Some(0));
        assert_eq!(percent(u64::MAX, u64::MAX), Some(50));
        assert_eq!(percent(u64::MAX, 0), Some(100));
    }

    #[test]
    fn a_target_lags_from_the_first_row_that_it_lacks_until_it_has_all() {
        let progress = Progress::default();
        let lag = || progress.position().lag;
        let is_behind = || matches!(lag(), Lag::Since(_));
        assert_eq!((lag(), lag().seconds(), progress.succeeded_on()), (Lag::Unknown, None, None));
        progress.started(&Seq::from(1));
        assert_eq!(lag(), Lag::Unknown);
        progress.read(&Seq::from(3));
        assert!(is_behind());
        progress.finished(&Seq::from(2), Some(1), Some(1));
        assert!(is_behind() && progress.succeeded_on().is_some());
        progress.finished(&Seq::from(3), Some(1), None);
        assert!(is_behind(), "a source that doesn't tell may have more");
        progress.reached_end();
        assert_eq!(lag(), Lag::CaughtUp);
        progress.read(&Seq::from(4));
        progress.reached_end();
        assert!(is_behind(), "it is read, but not there yet");
        progress.finished(&Seq::from(4), Some(1), None);
        assert_eq!(lag(), Lag::CaughtUp);
        progress.started(&Seq::from(4));
        assert_eq!(lag().seconds(), Some(0));
        progress.finished(&Seq::from(4), Some(0), Some(2));
        assert!(is_behind());
    }
}
