//! How many documents stand before an id: the `offset` of `_all_docs`.
//!
//! The file doesn't tell, so they are counted, from the nearest place that was counted before. That holds as long as nothing
//! is written: who goes through a quiet database page by page has every document counted once; beside a writer each page
//! counts from the beginning. A place is kept for every thousand documents.
//!
//! A thousand are counted at a time, each from a fresh snapshot, so that a count over millions of documents neither holds
//! one nor keeps others waiting. What is written before a place meanwhile is missed: the number is then about right only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Documents from one place to the next, and those that are counted at a time.
pub(super) const STEP: usize = 1000;

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
    pub(super) place: Box<str>,
    /// How many documents that aren't deleted stand before it.
    pub before: u64,
    /// Of the snapshot that the count began with.
    update_seq: u64,
}

impl Ranks {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a count in a snapshot of this update seq, or goes on with it: where it may start without counting.
    pub(super) fn start(&self, update_seq: u64, id: &str, rank: &mut Rank) {
        if rank.place.is_empty() {
            rank.update_seq = update_seq;
        }
        if let Some(further) = self.known(update_seq, id).filter(|known| known.place > rank.place) {
            *rank = further;
        }
    }

    /// Goes on from the place `next`, up to which a snapshot of this update seq was counted.
    pub(super) fn reach(&self, update_seq: u64, next: Box<str>, rank: &mut Rank) {
        rank.place = next;
        if rank.update_seq == update_seq {
            self.remember(rank);
        }
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
