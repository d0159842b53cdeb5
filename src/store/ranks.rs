//! How many documents stand before an id: the `offset` of `_all_docs`.
//!
//! The file doesn't tell, so they are counted, from the nearest place that was counted before. That holds as long as nothing
//! is written: who goes through a quiet database page by page has every document counted once; beside a writer each page
//! counts from the beginning. A place is kept for every thousand documents.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::read::Snapshot;

/// Documents from one place to the next.
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

impl Ranks {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the documents that aren't deleted and stand before `id`.
    pub(super) fn before(&self, snapshot: &Snapshot, id: &str) -> Result<u64, StoreError> {
        let known = {
            let counted = self.counted();
            let known = &counted.places[..counted.places.partition_point(|(place, _)| **place <= *id)];
            known.last().cloned().filter(|_| counted.update_seq == snapshot.update_seq())
        };
        let (start, mut before) = known.unwrap_or_default();
        let (mut places, mut walked) = (Vec::new(), 0);
        snapshot.documents(Some(&start), |at, record| {
            if at >= id {
                return Ok(false);
            }
            if walked == STEP {
                places.push((Box::from(at), before));
                walked = 0;
            }
            walked += 1;
            before += u64::from(record.tree.winner().is_some_and(|winner| !winner.deleted));
            Ok(true)
        })?;
        let mut counted = self.counted();
        if counted.update_seq != snapshot.update_seq() {
            *counted = Counted { update_seq: snapshot.update_seq(), places: Vec::new() };
        }
        let last = counted.places.last().map(|(place, _)| place.clone());
        counted.places.extend(places.into_iter().filter(|(place, _)| last.as_ref().is_none_or(|last| place > last)));
        Ok(before)
    }
}
