//! Revision trees: which revisions of a document are known, and how they descend from each other.
//!
//! A tree is a set of nodes, unique by generation and hash, and a set of edges from child to parent. Merging a path is
//! nothing but the union of both, so any order of merges gives the same tree, even where peers tell inconsistent
//! histories (one revision under two parents: both edges stay, and the greatest parent is the one that a path
//! follows). A leaf is a node that nothing has as its parent; only leaves have data. A stemmed root whose parent
//! becomes known later is joined to it, and that parent is a leaf no more.
//!
//! Stemming (`_revs_limit`) cuts whatever is `limit` or more generations behind every leaf that descends from it. Trees
//! that were stemmed may depend on the order of merges, as CouchDB's do: what was cut is forgotten.
//!
//! Does no I/O and cannot fail, except for [`RevTree::decode`], which refuses damaged bytes.
//!
//! Rules from CouchDB: `couch_key_tree` (merge, stem), `couch_doc:to_doc_info/1` (the order of leaves),
//! `fabric_rpc:possible_ancestors/2`.

mod encoding;
mod merge;
mod purge;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use crate::document::{Rev, Revisions};

pub use merge::Merged;

/// A leaf's own data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its revision.
    pub rev: Rev,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// Whether it has attachments.
    pub attached: bool,
    /// Update seq of the edit that brought it, under which its body is stored.
    pub body: u64,
}

/// What a revision brings when it becomes a leaf: a [`Leaf`] without its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLeaf {
    /// Whether it is a deletion.
    pub deleted: bool,
    /// Whether it has attachments.
    pub attached: bool,
    /// Update seq of the edit that brought it, under which its body is stored.
    pub body: u64,
}

/// All that is known of a document's revisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevTree {
    /// Sorted by revision, so that parents stand before their children.
    nodes: Vec<Node>,
    /// Sorted edges besides each node's greatest parent: child, parent. Empty unless histories are inconsistent.
    extra: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    rev: Rev,
    /// The greatest of the known parents, by its place in `nodes`; always one generation older.
    parent: Option<u32>,
    /// There if and only if no node has this one as its parent.
    leaf: Option<NewLeaf>,
}

impl Node {
    fn leaf(&self) -> Option<Leaf> {
        let NewLeaf { deleted, attached, body } = self.leaf?;
        Some(Leaf { rev: self.rev.clone(), deleted, attached, body })
    }

    /// Orders leaves, the winner greatest: not deleted, then the longest, then the greatest hash.
    fn rank(&self) -> Option<(bool, &Rev)> {
        self.leaf.map(|leaf| (!leaf.deleted, &self.rev))
    }
}

impl RevTree {
    /// How many revisions are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no revision is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The leaves, the winner first: not deleted before deleted, then the longest, then the greatest hash.
    pub fn leaves(&self) -> Vec<Leaf> {
        ranked(self.nodes.iter())
    }

    /// The winning leaf.
    pub fn winner(&self) -> Option<Leaf> {
        self.nodes.iter().max_by_key(|node| node.rank())?.leaf()
    }

    /// Whether the revision is in the tree, as a leaf or as an ancestor.
    pub fn contains(&self, rev: &Rev) -> bool {
        self.find(rev).is_some()
    }

    /// Whether the revision is a leaf.
    pub fn is_leaf(&self, rev: &Rev) -> bool {
        self.find(rev).is_some_and(|index| self.nodes[index].leaf.is_some())
    }

    /// The leaf that is this very revision.
    pub fn leaf(&self, rev: &Rev) -> Option<Leaf> {
        self.nodes[self.find(rev)?].leaf()
    }

    /// The leaves that are this revision or descend from it (`latest=true`), winner first.
    pub fn latest(&self, rev: &Rev) -> Vec<Leaf> {
        let Some(start) = self.find(rev) else { return Vec::new() };
        if let Some(leaf) = self.nodes[start].leaf() {
            return vec![leaf];
        }
        let mut descends = vec![false; self.nodes.len()];
        descends[start] = true;
        for index in start + 1..self.nodes.len() {
            descends[index] = self.parents(index).any(|parent| descends[parent]);
        }
        ranked(self.nodes.iter().zip(descends).filter_map(|(node, descends)| descends.then_some(node)))
    }

    /// A revision's path to its oldest known ancestor; `None` if the revision isn't known.
    pub fn path(&self, rev: &Rev) -> Option<Revisions> {
        let newest = &self.nodes[self.find(rev)?];
        let line = std::iter::successors(Some(newest), |node| Some(&self.nodes[node.parent? as usize]));
        Some(Revisions { start: rev.pos, ids: line.map(|node| node.rev.hash.clone()).collect() })
    }

    /// Those of `revs` that aren't in the tree, in their order.
    pub fn missing(&self, revs: &[Rev]) -> Vec<Rev> {
        revs.iter().filter(|rev| !self.contains(rev)).cloned().collect()
    }

    /// `possible_ancestors` of CouchDB: leaves of a lower generation than some revision of `missing`, winner last.
    pub fn possible_ancestors(&self, missing: &[Rev]) -> Vec<Rev> {
        let newest = missing.iter().map(|rev| rev.pos).max().unwrap_or(0);
        self.leaves().into_iter().rev().map(|leaf| leaf.rev).filter(|rev| rev.pos < newest).collect()
    }

    fn find(&self, rev: &Rev) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.rev.cmp(rev)).ok()
    }

    /// The places of all parents of the node at `index`, the greatest first.
    fn parents(&self, index: usize) -> impl Iterator<Item = usize> {
        let first = self.extra.partition_point(|&(child, _)| (child as usize) < index);
        let more = self.extra[first..].iter().take_while(move |&&(child, _)| child as usize == index);
        let others = more.map(|&(_, parent)| parent as usize);
        self.nodes[index].parent.into_iter().map(|parent| parent as usize).chain(others)
    }
}

/// The leaves among `nodes`, winner first.
fn ranked<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = nodes.filter_map(Node::leaf).collect();
    leaves.sort_unstable_by(|a, b| Reverse((!a.deleted, &a.rev)).cmp(&Reverse((!b.deleted, &b.rev))));
    leaves
}
