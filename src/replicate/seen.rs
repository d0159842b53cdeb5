//! Which rows of the feed came before, in bounded memory.
//!
//! A target that was empty when the job's life began lacks all that the feed tells, so it needn't be asked: half of a far
//! target's round trips, and some of CouchDB's work. Nothing rests on this. A revision that is there after all is written
//! once more, which changes nothing. But a row that the feed repeats (a cluster whose node died gives rows twice, and what
//! broke off is asked for again) would be copied and counted twice, and so the target is asked about it.
//!
//! A Bloom filter: what is new may look as if it had come before, and then the target is asked in vain, for one batch of 500
//! in ten at most. It takes four bytes a document, [`MOST_BYTES`] at most: beyond 250,000 documents the target is asked more
//! and more often. It is given back when the source says that nothing is pending: the first copy is made.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::document::{DocId, Rev};
use crate::peer::Change;

/// What a job remembers at most.
const MOST_BYTES: u64 = 1 << 20;
/// Bytes for a document: a batch of 500 is asked about if one of them looks old, so that must be rare.
const DOCUMENT_BYTES: u64 = 4;
/// Bits that a revision sets: one of 5,000 that are new looks old when all have come.
const BITS: u64 = 4;

/// Remembers revisions.
#[derive(Debug)]
pub struct Seen {
    /// A power of two of words.
    words: Mutex<Vec<u64>>,
    hasher: RandomState,
}

impl Seen {
    /// Nothing yet, of about so many documents.
    pub fn of(documents: u64) -> Self {
        let words = (documents.saturating_mul(DOCUMENT_BYTES).clamp(8, MOST_BYTES) / 8).next_power_of_two();
        Self { words: Mutex::new(vec![0; words as usize]), hasher: RandomState::new() }
    }

    /// Takes nothing for new any more: the first copy is made.
    pub fn forget(&self) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    /// Whether none of a change's revisions came before, for certain. They have from now on.
    pub fn is_new(&self, Change { id, revs, .. }: &Change) -> bool {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.is_empty() {
            return false;
        }
        let came = revs.iter().filter(|rev| !self.add(&mut words, id, rev)).count();
        came == 0
    }

    fn add(&self, words: &mut [u64], id: &DocId, rev: &Rev) -> bool {
        let hash = self.hasher.hash_one((id, rev));
        let (start, step) = (hash >> 32, hash | 1);
        let mut new = false;
        for bit in (0..BITS).map(|n| start.wrapping_add(n.wrapping_mul(step & u64::from(u32::MAX)))) {
            let (word, bit) = ((bit / 64) as usize & (words.len() - 1), 1 << (bit % 64));
            new |= words[word] & bit == 0;
            words[word] |= bit;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Seq;

    fn change(number: u64, revs: &[&str]) -> Change {
        let revs = revs.iter().map(|rev| Rev::parse(rev).unwrap()).collect();
        Change { seq: Seq::zero(), id: number.to_string().into(), revs }
    }

    #[test]
    fn what_came_before_is_never_new_and_what_is_new_looks_so_nearly_always() {
        let seen = Seen::of(10_000);
        let new = (0..10_000).filter(|number| seen.is_new(&change(*number, &["1-a"]))).count();
        assert!(new > 9_990, "{new}");
        assert!((0..10_000).all(|number| !seen.is_new(&change(number, &["1-a"]))));
    }

    #[test]
    fn a_change_with_one_revision_that_came_before_is_not_new() {
        let seen = Seen::of(1000);
        assert!(seen.is_new(&change(1, &["1-a"])));
        assert!(!seen.is_new(&change(1, &["2-b", "1-a"])));
        assert!(!seen.is_new(&change(1, &["2-b"])));
        assert!(seen.is_new(&change(1, &["3-c"])));
    }

    #[test]
    fn a_source_of_any_size_is_remembered_in_bounded_memory() {
        for documents in [0, 1, 9, u64::MAX] {
            let seen = Seen::of(documents);
            assert!(seen.words.lock().unwrap().len() as u64 * 8 <= MOST_BYTES);
            assert!(seen.is_new(&change(1, &["1-a"])) && !seen.is_new(&change(1, &["1-a"])));
            seen.forget();
            assert_eq!(seen.words.lock().unwrap().capacity(), 0);
            assert!(!seen.is_new(&change(1, &["1-a"])) && !seen.is_new(&change(2, &["1-a"])));
        }
    }
}
