//! Taking leaves out of a revision tree, as if they had never been there.
//!
//! Rules from CouchDB: `couch_key_tree:remove_leafs/2`. Only leaves go, and with each of them the ancestors that no other
//! leaf has; a revision that becomes a leaf by that is gone too. So what is left are the paths of the leaves that stay.

use super::{Leaf, Node, RevTree};
use crate::document::Rev;

impl RevTree {
    /// Removes the leaves among `revs`, and answers them in the order of `revs`, each once.
    pub fn purge(&mut self, revs: &[Rev]) -> Vec<Leaf> {
        let mut purged: Vec<Leaf> = Vec::new();
        for leaf in revs.iter().filter_map(|rev| self.leaf(rev)) {
            if !purged.contains(&leaf) {
                purged.push(leaf);
            }
        }
        if purged.is_empty() {
            return purged;
        }
        let mut kept = vec![false; self.nodes.len()];
        for index in (0..self.nodes.len()).rev() {
            let node = &self.nodes[index];
            kept[index] |= node.leaf.is_some() && purged.iter().all(|leaf| leaf.rev != node.rev);
            if kept[index] {
                self.parents(index).for_each(|parent| kept[parent] = true);
            }
        }
        self.keep(&kept);
        purged
    }

    /// Leaves out the nodes that aren't kept; all parents of those that are must be kept too.
    fn keep(&mut self, kept: &[bool]) {
        let mut moved = vec![0; kept.len()];
        let mut nodes: Vec<Node> = Vec::with_capacity(kept.len());
        for (index, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate().filter(|&(at, _)| kept[at]) {
            moved[index] = nodes.len() as u32;
            node.parent = node.parent.map(|parent| moved[parent as usize]);
            nodes.push(node);
        }
        self.nodes = nodes;
        self.extra.retain(|&(child, _)| kept[child as usize]);
        for (child, parent) in &mut self.extra {
            (*child, *parent) = (moved[*child as usize], moved[*parent as usize]);
        }
    }
}
