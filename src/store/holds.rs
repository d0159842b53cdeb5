//! Keeps the bytes of attachments that somebody reads, though their document has gone on without them.
//!
//! An attachment is read a piece at a time, each from a snapshot of its own, so that a slow reader holds no old pages.
//! So its bytes mustn't go between two pieces, or a reader that has begun, a replication among them, can't end. Promised:
//! what a [`super::Snapshot`] shows can be held ([`super::Snapshot::hold`]), and what is held can be read to its end.
//!
//! How: a transaction that takes the last reference off a blob doesn't drop its bytes. It notes the blob among those that
//! no document refers to, which go at the next opening at the latest, so nothing leaks by a crash. After the commit the
//! blob is [`Holds::free`]d. It goes in a transaction after that one unless it is held, or a snapshot that began before
//! may still hold it; then whoever ends last has it dropped. A snapshot that begins later doesn't see it any more.
//!
//! In memory only: per blob that is read or waits to be dropped a few words.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attachments::Attachment;
use super::work::WriterHandle;

/// Who reads what of a database. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<Mutex<State>>);

/// Guarded by the one mutex; never held across anything that waits.
#[derive(Debug, Default)]
struct State {
    /// The number of the next snapshot.
    next: u64,
    /// Snapshots that are being read.
    reading: BTreeSet<u64>,
    /// How many hold a blob.
    held: HashMap<u64, usize>,
    /// Blobs without a document, and the number of the next snapshot when they became so.
    freed: Vec<(u64, u64)>,
}

impl State {
    /// Whether nobody reads the blob, nor will.
    fn is_free(&self, blob: u64, since: u64) -> bool {
        !self.held.contains_key(&blob) && self.reading.first().is_none_or(|&oldest| oldest >= since)
    }

    /// Takes out the blobs that may go.
    fn take_free(&mut self) -> Vec<u64> {
        let freed = std::mem::take(&mut self.freed);
        let (free, kept) = freed.into_iter().partition::<Vec<_>, _>(|&(blob, since)| self.is_free(blob, since));
        self.freed = kept;
        free.into_iter().map(|(blob, _)| blob).collect()
    }
}

impl Holds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read; to be called before the snapshot is taken.
    pub(super) fn read(&self, writer: &WriterHandle) -> SnapshotGuard {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.reading.insert(number);
        SnapshotGuard { holds: self.clone(), writer: writer.clone(), number }
    }

    /// How many snapshots were taken.
    #[cfg(test)]
    pub(super) fn reads(&self) -> u64 {
        self.state().next
    }

    /// Tells that no document refers to the blobs any more, after that was committed; answers those that may go now.
    pub(super) fn free(&self, blobs: Vec<u64>) -> Vec<u64> {
        let mut state = self.state();
        let since = state.next;
        state.freed.extend(blobs.into_iter().map(|blob| (blob, since)));
        state.take_free()
    }

    fn discard_free(&self, state: MutexGuard<'_, State>, writer: &WriterHandle) {
        let mut state = state;
        if state.freed.is_empty() {
            return;
        }
        let free = state.take_free();
        drop(state);
        free.into_iter().for_each(|blob| writer.discard(blob));
    }
}

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct SnapshotGuard {
    holds: Holds,
    writer: WriterHandle,
    number: u64,
}

impl SnapshotGuard {
    /// Holds a blob that the snapshot shows.
    pub(super) fn hold(&self, blob: u64) -> Hold {
        *self.holds.state().held.entry(blob).or_default() += 1;
        Hold { holds: self.holds.clone(), writer: self.writer.clone(), blob }
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        let mut state = self.holds.state();
        state.reading.remove(&self.number);
        self.holds.discard_free(state, &self.writer);
    }
}

/// A blob whose bytes stay until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    holds: Holds,
    writer: WriterHandle,
    blob: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.holds.state();
        if let Some(count) = state.held.get_mut(&self.blob) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.blob);
            }
        }
        self.holds.discard_free(state, &self.writer);
    }
}

/// An attachment that can be read to its end, whatever becomes of its document.
#[derive(Debug, Clone)]
pub struct OpenAttachment {
    attachment: Attachment,
    hold: Arc<Hold>,
}

impl OpenAttachment {
    pub(super) fn new(attachment: Attachment, hold: Hold) -> Self {
        Self { attachment, hold: Arc::new(hold) }
    }

    /// What is known of it.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Where its bytes are.
    pub(super) fn blob(&self) -> u64 {
        self.hold.blob
    }
}
