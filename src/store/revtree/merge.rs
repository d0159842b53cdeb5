//! Growing a revision tree: the union with one more path, then stemming.
//!
//! Both are single sweeps over the sorted nodes. A path has one revision a generation, so that oldest first it is sorted
//! as the nodes are, and their union is a merge of two sorted lists.

use crate::document::{Rev, RevHash, Revisions};

use super::{Leaf, NewLeaf, Node, RevTree};

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// The path's newest revision was unknown: it is a leaf now, and its body must be stored.
    pub added: bool,
    /// The tree is another one than before.
    pub changed: bool,
    /// Leaves that are leaves no more: their bodies go.
    pub dropped: Vec<Leaf>,
}

impl RevTree {
    /// Adds a path, whose newest revision becomes a leaf with the data of `leaf` unless it is known already.
    ///
    /// Afterwards every leaf has the ancestors less than `limit` (`_revs_limit`, at least 1) generations behind it, and
    /// nothing else is left.
    pub fn merge(&mut self, path: &Revisions, leaf: NewLeaf, limit: usize) -> Merged {
        let mut union = Union::default();
        union.add(self, path);
        let added = union.finish(leaf);
        let Union { tree: mut grown, dropped, .. } = union;
        grown.stem(limit.max(1) as u64);
        // A known revision may bring ancestors that stemming cuts off again.
        let changed = added || grown != *self;
        *self = grown;
        Merged { added, changed, dropped }
    }

    fn stem(&mut self, limit: u64) {
        let generations = self.nodes.first().zip(self.nodes.last()).map_or(0, |(a, b)| b.rev.pos - a.rev.pos);
        if generations < limit {
            return;
        }
        let behind = self.behind_leaves();
        let mut moved = vec![0; behind.len()];
        let mut kept: Vec<Node> = Vec::with_capacity(behind.len());
        for (index, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            if behind[index] >= limit {
                continue;
            }
            moved[index] = kept.len() as u32;
            node.parent = node.parent.filter(|_| behind[index] + 1 < limit).map(|parent| moved[parent as usize]);
            kept.push(node);
        }
        self.nodes = kept;
        self.extra.retain(|&(child, _)| behind[child as usize].saturating_add(1) < limit);
        for (child, parent) in &mut self.extra {
            (*child, *parent) = (moved[*child as usize], moved[*parent as usize]);
        }
    }

    /// How many generations each node is behind the nearest leaf that descends from it.
    fn behind_leaves(&self) -> Vec<u64> {
        let mut behind = vec![u64::MAX; self.nodes.len()];
        for index in (0..self.nodes.len()).rev() {
            if self.nodes[index].leaf.is_some() {
                behind[index] = 0;
            }
            for parent in self.parents(index) {
                behind[parent] = behind[parent].min(behind[index].saturating_add(1));
            }
        }
        behind
    }
}

/// A tree and a path becoming one tree.
#[derive(Default)]
struct Union {
    tree: RevTree,
    /// The place of the revision of the path that came last.
    newest: Option<u32>,
    /// Whether that revision was unknown.
    unknown: bool,
    dropped: Vec<Leaf>,
}

impl Union {
    fn add(&mut self, old: &RevTree, path: &Revisions) {
        self.tree.nodes.reserve_exact(old.nodes.len() + path.ids.len());
        let mut moved: Vec<u32> = Vec::with_capacity(old.nodes.len());
        let mut path = oldest_first(path).peekable();
        for node in &old.nodes {
            let rev = (node.rev.pos, &node.rev.hash);
            while let Some((pos, hash)) = path.next_if(|&ours| ours < rev) {
                self.push_unknown(pos, hash);
            }
            let place = self.push(Node { parent: node.parent.map(|parent| moved[parent as usize]), ..node.clone() });
            moved.push(place);
            if path.next_if(|&ours| ours == rev).is_some() {
                self.follow(place, false);
            }
        }
        for (pos, hash) in path {
            self.push_unknown(pos, hash);
        }
        let place = |index: u32| moved[index as usize];
        self.tree.extra.extend(old.extra.iter().map(|&(child, parent)| (place(child), place(parent))));
        self.tree.extra.sort_unstable();
        self.tree.extra.dedup();
    }

    fn finish(&mut self, leaf: NewLeaf) -> bool {
        if let Some(newest) = self.newest.filter(|_| self.unknown) {
            self.tree.nodes[newest as usize].leaf = Some(leaf);
        }
        self.unknown
    }

    fn push(&mut self, node: Node) -> u32 {
        self.tree.nodes.push(node);
        self.tree.nodes.len() as u32 - 1
    }

    fn push_unknown(&mut self, pos: u64, hash: &RevHash) {
        let place = self.push(Node { rev: Rev { pos, hash: hash.clone() }, parent: None, leaf: None });
        self.follow(place, true);
    }

    /// Makes the node at `place`, the path's next, the child of the path's last.
    fn follow(&mut self, place: u32, unknown: bool) {
        self.unknown = unknown;
        let Some(parent) = self.newest.replace(place) else { return };
        let elder = &mut self.tree.nodes[parent as usize];
        self.dropped.extend(elder.leaf());
        elder.leaf = None;
        let greatest = &mut self.tree.nodes[place as usize].parent;
        let lesser = match *greatest {
            Some(known) if known == parent => return,
            Some(known) if known > parent => Some(parent),
            _ => greatest.replace(parent),
        };
        self.tree.extra.extend(lesser.map(|lesser| (place, lesser)));
    }
}

/// The path's revisions, each one generation newer than the one before.
fn oldest_first(path: &Revisions) -> impl Iterator<Item = (u64, &RevHash)> {
    let length = path.ids.len().min(path.start as usize);
    (path.start - length as u64 + 1..=path.start).zip(path.ids[..length].iter().rev())
}
