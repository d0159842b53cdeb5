use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::document::RevHash;
use crate::store::StoreError;

const UNLIMITED: usize = 1000;

/// A tree as one would write it down: nodes, edges from child to parent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    nodes: BTreeSet<Rev>,
    edges: BTreeSet<(Rev, Rev)>,
}

impl Model {
    fn of(tree: &RevTree) -> Self {
        let rev = |index: usize| tree.nodes[index].rev.clone();
        let edges = (0..tree.len()).flat_map(|index| tree.parents(index).map(move |parent| (rev(index), rev(parent))));
        Self { nodes: tree.nodes.iter().map(|node| node.rev.clone()).collect(), edges: edges.collect() }
    }

    fn merge(&mut self, path: &Revisions, limit: usize) {
        let revs = revs(path);
        self.edges.extend(revs.iter().cloned().zip(revs.iter().skip(1).cloned()));
        self.nodes.extend(revs);
        let (mut nodes, mut edges) = (BTreeSet::new(), BTreeSet::new());
        for leaf in self.leaves() {
            let mut generation = BTreeSet::from([leaf]);
            for _ in 1..limit {
                let near = self.edges.iter().filter(|(child, _)| generation.contains(child));
                let near: BTreeSet<_> = near.cloned().collect();
                nodes.extend(std::mem::take(&mut generation));
                generation.extend(near.iter().map(|(_, parent)| parent.clone()));
                edges.extend(near);
            }
            nodes.extend(generation);
        }
        *self = Self { nodes, edges };
    }

    fn leaves(&self) -> BTreeSet<Rev> {
        let is_parent = |rev: &&Rev| self.edges.iter().any(|(_, parent)| parent == *rev);
        self.nodes.iter().filter(|rev| !is_parent(rev)).cloned().collect()
    }

    fn path(&self, rev: &Rev) -> Vec<Rev> {
        let parent = |rev: &Rev| self.edges.iter().filter(|(child, _)| child == rev).map(|edge| edge.1.clone()).max();
        std::iter::successors(Some(rev.clone()), parent).collect()
    }

    fn descends(&self, rev: &Rev, from: &Rev) -> bool {
        rev == from || self.edges.iter().any(|(child, parent)| child == rev && self.descends(parent, from))
    }
}

fn revs(path: &Revisions) -> Vec<Rev> {
    let revs = path.ids.iter().zip((1..=path.start).rev());
    revs.map(|(hash, pos)| Rev { pos, hash: hash.clone() }).collect()
}

fn rev(text: &str) -> Rev {
    Rev::parse(text).unwrap()
}

/// A path written `3-c b a`.
fn path(text: &str) -> Revisions {
    let (start, ids) = text.split_once('-').unwrap();
    Revisions { start: start.parse().unwrap(), ids: ids.split(' ').map(RevHash::from).collect() }
}

/// Every revision has data of its own, whenever it comes.
fn data(path: &Revisions) -> NewLeaf {
    let sum: u32 = path.newest().to_string().bytes().map(u32::from).sum();
    NewLeaf { deleted: sum.is_multiple_of(3), attached: sum.is_multiple_of(2), body: u64::from(sum) << 20 }
}

fn live(seq: u64) -> NewLeaf {
    NewLeaf { deleted: false, attached: false, body: seq }
}

fn deleted(seq: u64) -> NewLeaf {
    NewLeaf { deleted: true, ..live(seq) }
}

fn grow<'a>(paths: impl IntoIterator<Item = &'a Revisions>) -> RevTree {
    let mut tree = RevTree::default();
    for path in paths {
        tree.merge(path, data(path), UNLIMITED);
    }
    tree
}

fn hash(number: usize) -> RevHash {
    match number % 2 {
        0 => RevHash::Md5([number as u8; 16]),
        _ => RevHash::Other(format!("hash-{number}").into()),
    }
}

/// Paths of one random tree, each from a random node down to some ancestor.
fn consistent() -> impl Strategy<Value = Vec<Revisions>> {
    let tree = vec(any::<Index>(), 1..16);
    (tree, vec((any::<Index>(), any::<Index>()), 1..12)).prop_map(|(choices, picks)| {
        let mut lines: Vec<Vec<RevHash>> = Vec::new();
        for (number, choice) in choices.iter().enumerate() {
            let parent = choice.index(number + 1);
            let mut line = vec![hash(number)];
            line.extend(lines.get(parent).into_iter().flatten().cloned());
            lines.push(line);
        }
        let path = |(newest, length): &(Index, Index)| {
            let line = newest.get(&lines);
            Revisions { start: line.len() as u64, ids: line[..=length.index(line.len())].to_vec() }
        };
        picks.iter().map(path).collect()
    })
}

/// Paths that contradict each other.
fn inconsistent() -> impl Strategy<Value = Vec<Revisions>> {
    let path = (1..7_u64, vec(0..4_usize, 1..7)).prop_map(|(start, mut ids)| {
        ids.truncate(start as usize);
        Revisions { start, ids: ids.into_iter().map(hash).collect() }
    });
    vec(path, 1..12)
}

fn any_paths() -> impl Strategy<Value = Vec<Revisions>> {
    prop_oneof![consistent(), inconsistent()]
}

fn with_another_order() -> impl Strategy<Value = (Vec<Revisions>, Vec<Revisions>)> {
    any_paths().prop_flat_map(|paths| {
        let twice: Vec<_> = paths.iter().chain(&paths).cloned().collect();
        (Just(paths), Just(twice).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn any_order_with_repetitions_gives_the_same_tree((paths, shuffled) in with_another_order()) {
        prop_assert_eq!(grow(&paths), grow(&shuffled));
    }

    #[test]
    fn a_path_that_is_there_changes_nothing((paths, again) in with_another_order()) {
        let mut tree = grow(&paths);
        for path in &again {
            prop_assert_eq!(tree.merge(path, live(77), UNLIMITED), Merged::default());
        }
        prop_assert_eq!(tree, grow(&paths));
    }

    #[test]
    fn agrees_with_the_model_at_every_step(paths in any_paths(), limit in prop_oneof![1..6_usize, Just(UNLIMITED)]) {
        let (mut tree, mut model) = (RevTree::default(), Model::default());
        for path in &paths {
            let (before, leaves) = (model.clone(), tree.leaves());
            model.merge(path, limit.min(10));
            let merged = tree.merge(path, data(path), limit);
            prop_assert_eq!(&Model::of(&tree), &model);
            prop_assert_eq!(merged.added, !before.nodes.contains(&path.newest()));
            prop_assert_eq!(merged.changed, before != model);
            let gone: Vec<_> = leaves.into_iter().filter(|leaf| !model.leaves().contains(&leaf.rev)).collect();
            let dropped: BTreeSet<_> = merged.dropped.iter().map(|leaf| leaf.rev.clone()).collect();
            prop_assert_eq!(dropped, gone.iter().map(|leaf| leaf.rev.clone()).collect());
            prop_assert_eq!(merged.dropped.len(), gone.len());
        }
        let known = model.leaves();
        prop_assert_eq!(tree.leaves().into_iter().map(|leaf| leaf.rev).collect::<BTreeSet<_>>(), known.clone());
        for rev in &model.nodes {
            prop_assert_eq!(revs(&tree.path(rev).unwrap()), model.path(rev));
            prop_assert_eq!(tree.is_leaf(rev), known.contains(rev));
            prop_assert_eq!(tree.leaf(rev).is_some(), known.contains(rev));
            let latest = tree.latest(rev).into_iter().map(|leaf| leaf.rev).collect::<BTreeSet<_>>();
            prop_assert_eq!(latest, known.iter().filter(|leaf| model.descends(leaf, rev)).cloned().collect());
        }
    }

    /// What is left is what the paths of the other leaves make.
    #[test]
    fn a_purge_leaves_the_paths_of_the_other_leaves(paths in any_paths(), picks in vec(any::<Index>(), 0..4), inner in any::<Index>()) {
        let mut tree = grow(&paths);
        let (before, leaves) = (tree.clone(), tree.leaves());
        let mut wanted: Vec<Rev> = picks.iter().map(|pick| pick.get(&leaves).rev.clone()).collect();
        wanted.push(inner.get(&tree.nodes).rev.clone());
        wanted.push(rev("9-unknown"));
        let purged = tree.purge(&wanted);
        let expected: Vec<_> = leaves.iter().filter(|leaf| wanted.contains(&leaf.rev)).cloned().collect();
        prop_assert_eq!(purged.len(), expected.len());
        prop_assert!(expected.iter().all(|leaf| purged.contains(leaf)));
        let kept: Vec<_> = leaves.into_iter().filter(|leaf| !expected.contains(leaf)).collect();
        prop_assert_eq!(tree.leaves(), kept.clone());
        let model = Model::of(&before);
        let ancestors = |node: &Rev| kept.iter().any(|leaf| model.descends(&leaf.rev, node));
        let nodes: BTreeSet<_> = model.nodes.iter().filter(|node| ancestors(node)).cloned().collect();
        let edges = model.edges.iter().filter(|(child, _)| nodes.contains(child)).cloned().collect();
        prop_assert_eq!(Model::of(&tree), Model { nodes, edges });
        let mut stored = Vec::new();
        tree.encode(&mut stored);
        prop_assert_eq!(RevTree::decode(&stored).unwrap(), tree.clone());
        // What was purged may come back.
        for path in expected.iter().map(|leaf| before.path(&leaf.rev).unwrap()) {
            tree.merge(&path, data(&path), UNLIMITED);
        }
        prop_assert_eq!(tree.leaves().len(), before.leaves().len());
    }

    #[test]
    fn stemming_keeps_the_leaf_and_truncates_its_path(length in 1..40_usize, limit in 0..40_usize) {
        let ids: Vec<_> = (0..length).map(hash).collect();
        let whole = Revisions { start: length as u64, ids };
        let mut tree = RevTree::default();
        prop_assert!(tree.merge(&whole, live(1), limit).added);
        let kept = length.min(limit.max(1));
        prop_assert_eq!(tree.path(&whole.newest()).unwrap().ids, &whole.ids[..kept]);
        prop_assert_eq!(tree.merge(&whole, live(2), limit), Merged::default());
    }

    #[test]
    fn the_winner_is_first_and_the_order_is_that_of_couchdb(paths in any_paths()) {
        let tree = grow(&paths);
        let leaves = tree.leaves();
        prop_assert_eq!(tree.winner(), leaves.first().cloned());
        let beats = |a: &Leaf, b: &Leaf| match (a.deleted, b.deleted) {
            (false, true) => true,
            (true, false) => false,
            _ => (a.rev.pos, a.rev.hash.as_bytes()) > (b.rev.pos, b.rev.hash.as_bytes()),
        };
        prop_assert!(leaves.windows(2).all(|pair| beats(&pair[0], &pair[1])));
    }

    #[test]
    fn the_stored_form_comes_back(paths in any_paths()) {
        let tree = grow(&paths);
        let mut stored = Vec::new();
        tree.encode(&mut stored);
        prop_assert_eq!(RevTree::decode(&stored).unwrap(), tree);
    }

    #[test]
    fn damaged_bytes_are_refused_or_are_another_tree(
        paths in any_paths(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let mut stored = Vec::new();
        grow(&paths).encode(&mut stored);
        for (place, byte) in damage {
            let place = place.index(stored.len());
            stored[place] = byte;
        }
        stored.truncate(cut.index(stored.len() * 2));
        survives(&stored)?;
    }

    #[test]
    fn garbage_is_refused_or_is_a_tree(garbage in vec(prop_oneof![any::<u8>(), 0..64_u8], 0..200)) {
        survives(&garbage)?;
    }
}

fn survives(stored: &[u8]) -> Result<(), TestCaseError> {
    match RevTree::decode(stored) {
        Err(StoreError::Damaged(_)) => {}
        Err(other) => prop_assert!(false, "{other}"),
        Ok(mut tree) => {
            let mut again = Vec::new();
            tree.encode(&mut again);
            prop_assert_eq!(&RevTree::decode(&again).unwrap(), &tree);
            let revs: Vec<_> = tree.nodes.iter().map(|node| node.rev.clone()).collect();
            prop_assert!(
                revs.iter().all(|rev| tree.path(rev).is_some() && tree.latest(rev).len() <= tree.leaves().len())
            );
            tree.merge(&path("5-e d c b a"), live(1), 3);
            prop_assert!(tree.contains(&rev("5-e")));
        }
    }
    Ok(())
}

#[test]
fn an_empty_tree_has_nothing_and_takes_no_bytes() {
    let tree = RevTree::decode(&[]).unwrap();
    assert!(tree.is_empty() && tree.winner().is_none() && tree.leaves().is_empty());
    assert_eq!(tree.path(&rev("1-a")), None);
    let mut stored = Vec::new();
    tree.encode(&mut stored);
    assert!(stored.is_empty());
}

#[test]
fn a_document_of_one_revision_is_stored_in_two_dozen_bytes() {
    let mut tree = RevTree::default();
    tree.merge(&path("1-967a00dff5e02add41819138abb3284d"), live(200_000), UNLIMITED);
    let mut stored = Vec::new();
    tree.encode(&mut stored);
    assert_eq!(stored.len(), 21);
}

#[test]
fn a_child_takes_its_parents_place_as_leaf() {
    let mut tree = RevTree::default();
    assert_eq!(tree.merge(&path("1-a"), live(1), UNLIMITED), Merged { added: true, changed: true, dropped: vec![] });
    let merged = tree.merge(&path("2-b a"), live(2), UNLIMITED);
    let dropped = vec![Leaf { rev: rev("1-a"), deleted: false, attached: false, body: 1 }];
    assert_eq!(merged, Merged { added: true, changed: true, dropped });
    assert_eq!(tree.winner().unwrap().rev, rev("2-b"));
    assert!(tree.contains(&rev("1-a")) && !tree.is_leaf(&rev("1-a")));
}

#[test]
fn a_known_leaf_keeps_its_data() {
    let mut tree = RevTree::default();
    tree.merge(&path("2-b"), live(1), UNLIMITED);
    let merged = tree.merge(&path("2-b a"), deleted(2), UNLIMITED);
    assert_eq!(merged, Merged { added: false, changed: true, dropped: vec![] });
    assert_eq!(tree.leaf(&rev("2-b")).unwrap().body, 1);
    assert_eq!(tree.path(&rev("2-b")), Some(path("2-b a")));
}

#[test]
fn a_stemmed_root_is_joined_to_a_leaf_that_turns_out_to_be_its_parent() {
    let mut tree = RevTree::default();
    tree.merge(&path("1-a"), live(1), UNLIMITED);
    tree.merge(&path("3-c b"), live(2), UNLIMITED);
    assert_eq!(tree.leaves().len(), 2);
    let merged = tree.merge(&path("3-c b a"), live(3), UNLIMITED);
    assert_eq!((merged.added, merged.changed), (false, true));
    assert_eq!(merged.dropped[0].rev, rev("1-a"));
    assert_eq!(tree.leaves().len(), 1);
}

#[test]
fn a_deletion_wins_only_over_deletions() {
    let mut tree = RevTree::default();
    tree.merge(&path("1-a"), live(1), UNLIMITED);
    tree.merge(&path("3-z y x"), deleted(2), UNLIMITED);
    assert_eq!(tree.winner().unwrap().rev, rev("1-a"));
    tree.merge(&path("2-b a"), deleted(3), UNLIMITED);
    assert_eq!(tree.winner().unwrap().rev, rev("3-z"));
}

#[test]
fn a_revision_under_two_parents_follows_the_greater_and_makes_leaves_of_neither() {
    for order in [["2-b a", "2-b z"], ["2-b z", "2-b a"]] {
        let tree = grow(&order.map(path));
        assert_eq!(tree.path(&rev("2-b")), Some(path("2-b z")));
        assert_eq!(tree.leaves().len(), 1);
        assert_eq!(tree.latest(&rev("1-a"))[0].rev, rev("2-b"));
    }
}

#[test]
fn possible_ancestors_are_leaves_of_a_lower_generation_than_some_missing_revision() {
    let mut tree = RevTree::default();
    tree.merge(&path("2-b a"), live(1), UNLIMITED);
    tree.merge(&path("2-c a"), deleted(2), UNLIMITED);
    tree.merge(&path("4-f e d a"), live(3), UNLIMITED);
    let near = |missing: &[&str]| tree.possible_ancestors(&missing.iter().map(|text| rev(text)).collect::<Vec<_>>());
    assert_eq!(near(&["2-x"]), []);
    assert_eq!(near(&["1-x", "3-x"]), [rev("2-c"), rev("2-b")]);
    assert_eq!(near(&["5-x"]), [rev("2-c"), rev("2-b"), rev("4-f")]);
    assert_eq!(near(&[]), []);
    assert_eq!(tree.missing(&["3-x", "1-a", "2-b", "1-x"].map(rev)), ["3-x", "1-x"].map(rev));
}

#[test]
fn sixteen_bytes_of_text_are_another_hash_than_sixteen_bytes() {
    let text = path(&format!("1-{}", "a".repeat(16)));
    let bytes = path(&format!("1-{}", "61".repeat(16)));
    let tree = grow([&text, &bytes]);
    assert_eq!(tree.len(), 2);
    let mut stored = Vec::new();
    tree.encode(&mut stored);
    assert_eq!(RevTree::decode(&stored).unwrap(), tree);
}

/// A thousand edits of a document with a long history, and fifty branches of a thousand revisions. Merging is linear in
/// the tree's size: this takes a second without optimisation, and would take hours if each revision were sought.
#[test]
fn long_histories_and_many_branches_merge_fast() {
    let started = Instant::now();
    let mut line = Revisions { start: 0, ids: Vec::new() };
    let mut tree = RevTree::default();
    for number in 0..3000_u64 {
        line.start += 1;
        line.ids.insert(0, RevHash::Md5(u128::from(number).to_be_bytes()));
        line.ids.truncate(1000);
        tree.merge(&line, live(number), 1000);
    }
    assert_eq!(tree.len(), 1000);
    let branch = |branch: u128| {
        let own = (1..1000).map(|number| RevHash::Md5((branch << 64 | number).to_be_bytes()));
        Revisions { start: 3999, ids: own.chain([line.ids[0].clone()]).collect() }
    };
    for number in 1..=50 {
        assert!(tree.merge(&branch(number), live(1), 1000).added);
    }
    assert_eq!(tree.len(), 1 + 50 * 999);
    assert_eq!(tree.leaves().len(), 50);
    assert_eq!(tree.path(&branch(7).newest()), Some(branch(7)));
    let mut stored = Vec::new();
    tree.encode(&mut stored);
    assert_eq!(RevTree::decode(&stored).unwrap(), tree);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
