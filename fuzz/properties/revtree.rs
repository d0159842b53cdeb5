//! A revision tree is a set of revisions and a set of edges, whatever is merged into it, stemmed, purged and stored.

use std::collections::{BTreeMap, BTreeSet};

use couchrep::document::{MAX_POS, Rev, RevHash, Revisions};
use couchrep::store::revtree::{Leaf, Merged, NewLeaf, RevTree};

use super::choices::Choices;

/// More generations than any path here has.
const UNLIMITED: usize = 1000;
/// Steps of one input.
const STEPS: usize = 40;

pub fn holds(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(4) {
        0 => stored_bytes(choices.rest()),
        1 => any_order(choices),
        _ => any_steps(choices),
    }
}

/// Nodes, edges from child to parent, and what leaves have.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    nodes: BTreeSet<Rev>,
    edges: BTreeSet<(Rev, Rev)>,
    data: BTreeMap<Rev, NewLeaf>,
}

impl Model {
    fn merge(&mut self, path: &Revisions, data: NewLeaf, limit: usize) {
        let revs: Vec<_> = path.revs().collect();
        if !self.nodes.contains(&revs[0]) {
            self.data.insert(revs[0].clone(), data);
        }
        self.edges.extend(revs.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())));
        self.nodes.extend(revs);
        self.keep_behind(&self.leaves(), limit);
    }

    fn purge(&mut self, revs: &[Rev]) {
        let kept = self.leaves().into_iter().filter(|leaf| !revs.contains(leaf)).collect();
        self.keep_behind(&kept, usize::MAX);
    }

    /// Keeps what is less than `limit` generations behind these leaves.
    fn keep_behind(&mut self, leaves: &BTreeSet<Rev>, limit: usize) {
        let (mut nodes, mut edges) = (BTreeSet::new(), BTreeSet::new());
        let (mut generation, mut behind) = (leaves.clone(), 1);
        // Leaves of several generations walk down together, each for itself: a node may be met twice.
        while !generation.is_empty() {
            let mut parents = BTreeSet::new();
            if behind < limit.max(1) {
                for edge in self.edges.iter().filter(|(child, _)| generation.contains(child)) {
                    parents.insert(edge.1.clone());
                    edges.insert(edge.clone());
                }
            }
            nodes.extend(std::mem::replace(&mut generation, parents));
            behind += 1;
        }
        self.data.retain(|rev, _| leaves.contains(rev));
        (self.nodes, self.edges) = (nodes, edges);
    }

    fn leaves(&self) -> BTreeSet<Rev> {
        let parents: BTreeSet<_> = self.edges.iter().map(|(_, parent)| parent).collect();
        self.nodes.iter().filter(|rev| !parents.contains(rev)).cloned().collect()
    }

    /// The leaves with their data, winner first.
    fn ranked(&self, leaves: impl IntoIterator<Item = Rev>) -> Vec<Leaf> {
        let mut leaves: Vec<_> = leaves
            .into_iter()
            .map(|rev| {
                let NewLeaf { deleted, attached, body } = self.data[&rev];
                Leaf { rev, deleted, attached, body }
            })
            .collect();
        let rank = |leaf: &Leaf| (!leaf.deleted, leaf.rev.pos, text(&leaf.rev.hash));
        leaves.sort_by_key(rank);
        leaves.reverse();
        leaves
    }

    /// Follows the greatest parents.
    fn path(&self, rev: &Rev) -> Revisions {
        let parent = |rev: &Rev| self.edges.iter().filter(|(child, _)| child == rev).map(|edge| edge.1.clone()).max();
        let line = std::iter::successors(Some(rev.clone()), parent);
        Revisions { start: rev.pos, ids: line.map(|rev| rev.hash).collect() }
    }

    fn descendants(&self, rev: &Rev) -> BTreeSet<Rev> {
        let mut found = BTreeSet::from([rev.clone()]);
        // Sorted by child: parents come before their children.
        for (child, parent) in &self.edges {
            if found.contains(parent) {
                found.insert(child.clone());
            }
        }
        found
    }
}

/// What hashes are ordered by: CouchDB's bytes, and text after bytes.
fn text(hash: &RevHash) -> (Vec<u8>, bool) {
    (hash.as_bytes().to_vec(), matches!(hash, RevHash::Other(_)))
}

/// The tree is what the model says.
fn agree(tree: &RevTree, model: &Model) {
    let leaves = model.leaves();
    assert_eq!(tree.len(), model.nodes.len());
    assert_eq!(tree.is_empty(), model.nodes.is_empty());
    let ranked = model.ranked(leaves.clone());
    assert_eq!(tree.winner(), ranked.first().cloned());
    assert!(ranked.iter().all(|leaf| leaf.deleted) || !ranked[0].deleted);
    for rev in &model.nodes {
        assert!(tree.contains(rev));
        assert_eq!(tree.is_leaf(rev), leaves.contains(rev));
        assert_eq!(tree.leaf(rev), ranked.iter().find(|leaf| leaf.rev == *rev).cloned());
        assert_eq!(tree.path(rev), Some(model.path(rev)));
        let descendants = model.descendants(rev);
        assert_eq!(tree.latest(rev), model.ranked(leaves.intersection(&descendants).cloned()));
        let older = ranked.iter().rev().map(|leaf| &leaf.rev).filter(|leaf| leaf.pos < rev.pos);
        assert!(tree.possible_ancestors(std::slice::from_ref(rev)).iter().eq(older));
    }
    assert_eq!(tree.leaves(), ranked);
}

fn stored(tree: &RevTree) -> Vec<u8> {
    let mut stored = Vec::new();
    tree.encode(&mut stored);
    stored
}

fn hash(choices: &mut Choices<'_>) -> RevHash {
    let number = choices.byte();
    match number {
        0..40 => RevHash::Md5([b'a' + number % 8; 16]),
        // The bytes of one of those, as text.
        40..60 => String::from(char::from(b'a' + number % 8)).repeat(16).as_str().into(),
        60..70 => "".into(),
        _ => format!("h{}", number % 16).as_str().into(),
    }
}

/// A path of its own, or one that goes on from a revision that is there.
fn path(choices: &mut Choices<'_>, known: &BTreeSet<Rev>, base: u64) -> Revisions {
    let ids: Vec<_> = (0..=choices.below(8)).map(|_| hash(choices)).collect();
    let pos = match choices.flag() {
        true => known.iter().nth(choices.below(known.len().clamp(1, 256))).map_or(base, |rev| rev.pos),
        false => base + choices.below(12) as u64,
    };
    let start = pos.max(ids.len() as u64).min(MAX_POS);
    Revisions { start, ids }
}

/// A known revision's child with that revision's path, cut somewhere.
fn edit(choices: &mut Choices<'_>, model: &Model) -> Option<Revisions> {
    let parent = model.nodes.iter().nth(choices.below(model.nodes.len().clamp(1, 256)))?;
    let Revisions { start, mut ids } = model.path(parent);
    ids.insert(0, hash(choices));
    ids.truncate(2 + choices.below(16));
    (start < MAX_POS).then_some(Revisions { start: start + 1, ids })
}

fn base(choices: &mut Choices<'_>) -> u64 {
    choices.of(&[1, 1, 2, 120, 1 << 32, MAX_POS - 12])
}

/// Edits, paths, purges and restarts in any sequence.
fn any_steps(mut choices: Choices<'_>) {
    let base = base(&mut choices);
    let (mut tree, mut model) = (RevTree::default(), Model::default());
    for _ in 0..STEPS {
        if choices.is_empty() {
            break;
        }
        let (before, leaves) = (model.clone(), tree.leaves());
        let step = choices.below(8);
        if step == 7 {
            let picks = choices.below(4);
            let mut revs: Vec<_> = (0..picks).filter_map(|_| pick(&mut choices, &model.nodes)).collect();
            revs.push(Rev { pos: base, hash: hash(&mut choices) });
            let purged = tree.purge(&revs);
            model.purge(&revs);
            assert_eq!(purged.len(), leaves.iter().filter(|leaf| revs.contains(&leaf.rev)).count());
            assert!(purged.iter().all(|leaf| leaves.contains(leaf) && revs.contains(&leaf.rev)));
        } else {
            let edit = if step < 4 { edit(&mut choices, &model) } else { None };
            let path = edit.unwrap_or_else(|| path(&mut choices, &model.nodes, base));
            let limit = if step.is_multiple_of(2) { UNLIMITED } else { choices.below(8) };
            let data = NewLeaf { deleted: choices.flag(), attached: choices.flag(), body: choices.number() };
            let unknown = !model.nodes.contains(&path.newest());
            let merged = tree.merge(&path, data, limit);
            model.merge(&path, data, limit);
            assert_eq!((merged.added, merged.changed), (unknown, before != model));
            let now = model.leaves();
            let gone: BTreeSet<_> =
                leaves.iter().filter(|leaf| !now.contains(&leaf.rev)).map(|leaf| &leaf.rev).collect();
            assert_eq!(merged.dropped.iter().map(|leaf| &leaf.rev).collect::<BTreeSet<_>>(), gone);
            assert!(merged.dropped.len() == gone.len() && merged.dropped.iter().all(|leaf| leaves.contains(leaf)));
            if limit == UNLIMITED {
                assert_eq!(tree.merge(&path, data, limit), Merged::default());
            }
        }
        agree(&tree, &model);
        let again = RevTree::decode(&stored(&tree)).unwrap();
        assert_eq!(again, tree);
        tree = again;
    }
}

fn pick(choices: &mut Choices<'_>, revs: &BTreeSet<Rev>) -> Option<Rev> {
    revs.iter().nth(choices.below(revs.len().clamp(1, 256))).cloned()
}

/// Unstemmed, the same paths give the same tree in every order, however often they come.
fn any_order(mut choices: Choices<'_>) {
    let base = base(&mut choices);
    let (mut model, mut paths) = (Model::default(), Vec::new());
    // Each revision brings the same data whenever it comes.
    let data = |path: &Revisions| {
        let sum: u64 = path.newest().to_string().bytes().map(u64::from).sum();
        NewLeaf { deleted: sum.is_multiple_of(3), attached: sum.is_multiple_of(2), body: sum << 20 }
    };
    for _ in 0..=choices.below(12) {
        let edit = if choices.flag() { edit(&mut choices, &model) } else { None };
        let path = edit.unwrap_or_else(|| path(&mut choices, &model.nodes, base));
        model.merge(&path, data(&path), UNLIMITED);
        paths.push(path);
    }
    let grow = |paths: &[Revisions]| {
        let mut tree = RevTree::default();
        paths.iter().for_each(|path| drop(tree.merge(path, data(path), UNLIMITED)));
        tree
    };
    let tree = grow(&paths);
    agree(&tree, &model);
    let mut others = paths.clone();
    others.reverse();
    assert_eq!(grow(&others), tree);
    for place in 0..others.len() {
        let other = choices.below(others.len());
        others.swap(place, other);
    }
    assert_eq!(grow(&others), tree);
    others.extend(paths);
    assert_eq!(grow(&others), tree);
}

/// Bytes that were damaged are refused, or are a tree like any other.
fn stored_bytes(bytes: &[u8]) {
    let Ok(mut tree) = RevTree::decode(bytes) else { return };
    let again = stored(&tree);
    assert!(again.len() <= bytes.len());
    assert_eq!(RevTree::decode(&again).unwrap(), tree);
    assert_eq!(stored(&RevTree::decode(&again).unwrap()), again);
    let leaves = tree.leaves();
    assert_eq!(tree.winner(), leaves.first().cloned());
    assert!(leaves.iter().all(|leaf| leaf.deleted) || !leaves[0].deleted);
    for leaf in &leaves {
        assert!(tree.is_leaf(&leaf.rev) && tree.latest(&leaf.rev) == [leaf.clone()]);
        let path = tree.path(&leaf.rev).unwrap();
        assert!(path.newest() == leaf.rev && path.ids.len() as u64 <= path.start);
        assert!(path.revs().all(|rev| tree.contains(&rev)));
    }
    let path = Revisions { start: 3, ids: ["c", "b", "a"].map(RevHash::from).into() };
    for limit in [UNLIMITED, 2] {
        let mut grown = tree.clone();
        grown.merge(&path, NewLeaf { deleted: false, attached: false, body: 1 }, limit);
        assert!(grown.contains(&path.newest()) || tree.contains(&path.newest()));
        assert_eq!(RevTree::decode(&stored(&grown)).unwrap(), grown);
    }
    tree.purge(&leaves.iter().map(|leaf| leaf.rev.clone()).collect::<Vec<_>>());
    assert!(tree.leaves().is_empty() && (leaves.is_empty() || tree.is_empty()));
}
