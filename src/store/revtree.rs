//! Revision trees.

use crate::document::{Rev, RevHash, Revisions};

/// A leaf's own data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its revision.
    pub rev: Rev,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// Update seq and leaf number under which its body is stored.
    pub body: (u64, u32),
}

/// All that is known of a document's revisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevTree {}

impl RevTree {
    /// The leaves, the winner first: not deleted before deleted, then the longest, then the greatest hash.
    pub fn leaves(&self) -> Vec<Leaf> {
        todo!()
    }

    /// The winning leaf.
    pub fn winner(&self) -> Option<Leaf> {
        todo!()
    }

    /// Whether the revision is in the tree, as a leaf or as an ancestor.
    pub fn contains(&self, rev: &Rev) -> bool {
        let _ = rev;
        todo!()
    }

    /// The leaf that is this very revision.
    pub fn leaf(&self, rev: &Rev) -> Option<Leaf> {
        let _ = rev;
        todo!()
    }

    /// The leaves that are this revision or descend from it (`latest=true`), winner first.
    pub fn latest(&self, rev: &Rev) -> Vec<Leaf> {
        let _ = rev;
        todo!()
    }

    /// A revision's path to its oldest known ancestor; `None` where the revision isn't known.
    pub fn path(&self, rev: &Rev) -> Option<Revisions> {
        let _ = rev;
        todo!()
    }

    /// `possible_ancestors` of CouchDB: leaves older than the oldest of `missing`.
    pub fn possible_ancestors(&self, missing: &[Rev]) -> Vec<Rev> {
        let _: Option<RevHash> = None;
        let _ = missing;
        todo!()
    }
}
