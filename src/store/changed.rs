//! What writers change while a database's file is copied (`compaction.rs`).
//!
//! Keys alone: what stands there is read when the copy catches up, and what is no longer there goes from the copy too. Keys
//! that a transaction noted and then didn't change, since it failed, are looked at in vain.

use std::collections::BTreeSet;

/// Keys that may be kept in memory. Whoever changes more than that while a file is copied changes faster than is copied.
const MOST: usize = 4_000_000;

/// The keys of the large tables that were changed. The small ones are copied again as a whole.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) docs: BTreeSet<Box<str>>,
    pub(super) local: BTreeSet<Box<str>>,
    pub(super) seqs: BTreeSet<u64>,
    pub(super) bodies: BTreeSet<u64>,
    /// Blobs, all of whose chunks are looked at.
    pub(super) blobs: BTreeSet<u64>,
    pub(super) att_refs: BTreeSet<[u8; 16]>,
}

impl Changed {
    /// How many keys it has.
    pub(super) fn len(&self) -> usize {
        let Self { docs, local, seqs, bodies, blobs, att_refs } = self;
        docs.len() + local.len() + seqs.len() + bodies.len() + blobs.len() + att_refs.len()
    }

    /// Whether it is more than may be kept.
    pub(super) fn is_too_much(&self) -> bool {
        self.len() > MOST
    }
}
