//! How many documents stand before an id: the `offset` of `_all_docs`.
//!
//! The file doesn't tell, so they are counted, from the nearest place that was counted before. That holds as long as nothing
//! is written: who goes through a quiet database page by page has every document counted once; beside a writer each page
//! counts from the beginning. A place is kept for every thousand documents.
//!
//! A thousand are counted at a time, each from a fresh snapshot, so that a count over millions of documents neither holds
//! one nor keeps others waiting. What is written before a place meanwhile is missed: the number is then about right only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::read::Snapshot;

/// Documents from one place to the next, and those that are counted at a time.
const STEP: usize = 1000;

/// Places of a database that were counted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranks(Arc<Mutex<Counted>>);

/// Guarded by the one mutex, which nobody holds while he counts.
#[derive(Debug, Default)]
struct Counted {
    /// Of the snapshot that was counted.
    update_seq: u64,
    /// Ids in their order, and how many documents that aren't deleted stand before each.
    places: Vec<(Box<str>, u64)>,
}

/// How far a count has come.
#[derive(Debug, Default)]
pub struct Rank {
    /// Up to which id.
    place: Box<str>,
    /// How many documents that aren't deleted stand before it.
    pub before: u64,
    /// Of the snapshot that the count began with.
    update_seq: u64,
}

impl Ranks {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a thousand of the documents that aren't deleted and stand before `id`; `true` if these were the last.
    pub(super) fn count(&self, snapshot: &Snapshot, id: &str, rank: &mut Rank) -> Result<bool, StoreError> {
        let update_seq = snapshot.update_seq();
        if rank.place.is_empty() {
            rank.update_seq = update_seq;
        }
        if let Some(further) = self.known(update_seq, id).filter(|known| known.place > rank.place) {
            *rank = further;
        }
        let (mut walked, mut next) = (0, None);
        snapshot.documents(Some(&rank.place), |at, record| {
            if at >= id {
                return Ok(false);
            }
            if walked == STEP {
                next = Some(Box::from(at));
                return Ok(false);
            }
            walked += 1;
            rank.before += u64::from(record.tree.winner().is_some_and(|winner| !winner.deleted));
            Ok(true)
        })?;
        let Some(next) = next else { return Ok(true) };
        rank.place = next;
        if rank.update_seq == update_seq {
            self.remember(rank);
        }
        Ok(false)
    }

    /// The nearest place that was counted.
    fn known(&self, update_seq: u64, id: &str) -> Option<Rank> {
        let counted = self.counted();
        let known = &counted.places[..counted.places.partition_point(|(place, _)| **place <= *id)];
        let (place, before) = known.last().filter(|_| counted.update_seq == update_seq)?.clone();
        Some(Rank { place, before, update_seq })
    }

    fn remember(&self, rank: &Rank) {
        let mut counted = self.counted();
        if counted.update_seq != rank.update_seq {
            *counted = Counted { update_seq: rank.update_seq, places: Vec::new() };
        }
        if counted.places.last().is_none_or(|(last, _)| *last < rank.place) {
            counted.places.push((rank.place.clone(), rank.before));
        }
    }
}
