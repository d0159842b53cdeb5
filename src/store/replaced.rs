//! What an edit replaces: which parent it has, and which stored document a validation is told of. The same in a snapshot and in
//! the writer's transaction.

use super::edit::EditKind;
use super::revtree::{Leaf, RevTree};
use super::work::Refusal;
use crate::document::{MAX_POS, Rev, Revisions};

/// What an edit replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Old {
    /// The revision that it brings: nothing is written.
    Known,
    /// Nothing that is stored: CouchDB gives `null`, also where a new document comes after a deleted one.
    Nothing,
    /// This leaf: its parent, or, of a replicated revision, the nearest ancestor whose body is stored.
    Leaf(Leaf),
}

impl Old {
    /// Whether whatever replaces this is a branch beside a document that lives, since it replaces nothing of it that lives.
    pub(super) fn is_branch(&self, tree: &RevTree) -> bool {
        let replaces_living = match self {
            Self::Known => true,
            Self::Nothing => false,
            Self::Leaf(leaf) => !leaf.deleted,
        };
        !replaces_living && tree.winner().is_some_and(|winner| !winner.deleted)
    }

    /// Finds it, or why there can be no such edit.
    pub(super) fn find(tree: &RevTree, kind: &EditKind, deletes: bool) -> Result<Self, Refusal> {
        let leaf = match kind {
            EditKind::New { parent } => {
                new_edit_parent(tree, parent.as_ref(), deletes)?;
                parent.as_ref().and_then(|parent| tree.leaf(&parent.newest()))
            }
            EditKind::Replicated { path } if tree.contains(&path.newest()) => return Ok(Self::Known),
            EditKind::Replicated { path } => nearest_leaf(tree, path),
        };
        Ok(leaf.map_or(Self::Nothing, Self::Leaf))
    }
}

/// The leaf that a new edit replaces, or the refusal.
///
/// A document that is deleted is made anew on top of its winning deletion, by an edit that names no parent; it can't be
/// deleted again, nor edited by the name of its deletion (`couch_db_updater:merge_rev_tree/4`). Of a document that was
/// never here the author may know more: his edit goes over the revision that he names. None goes over the greatest
/// generation: nobody could read the revision after it.
pub(super) fn new_edit_parent(
    tree: &RevTree,
    named: Option<&Revisions>,
    deletes: bool,
) -> Result<Option<Revisions>, Refusal> {
    let parent = match (named, tree.winner()) {
        (None, None) => None,
        (Some(named), None) => Some(named.clone()),
        (None, Some(winner)) if winner.deleted && !deletes => Some(Revisions::single(winner.rev)),
        (Some(named), Some(winner)) if !winner.deleted && tree.leaf(&named.newest()).is_some() => {
            Some(Revisions::single(named.newest()))
        }
        _ => return Err(Refusal::Conflict),
    };
    match parent {
        Some(parent) if parent.start >= MAX_POS => Err(Refusal::Conflict),
        parent => Ok(parent),
    }
}

/// The newest revision of a path that is a leaf: the only ones whose bodies are stored.
pub(super) fn nearest_leaf(tree: &RevTree, path: &Revisions) -> Option<Leaf> {
    leaves_on(tree, path).next().map(|(_, leaf)| leaf)
}

/// As much of a path as its author was judged by: up to the nearest leaf, and, of a revision that is known, up to before any
/// other one. Whoever makes up ancestors would else replace leaves that no function was asked about.
pub(super) fn judged_part(tree: &RevTree, mut path: Revisions) -> Revisions {
    let known = usize::from(tree.contains(&path.newest()));
    let other = leaves_on(tree, &path).map(|(age, _)| age).find(|age| *age >= known);
    if let Some(age) = other {
        path.ids.truncate(age + 1 - known);
    }
    path
}

/// The leaves on a path, the newest first, each with its distance from the path's end.
fn leaves_on<'a>(tree: &'a RevTree, path: &'a Revisions) -> impl Iterator<Item = (usize, Leaf)> + 'a {
    let revs = path.ids.iter().zip(0..).map(|(hash, age)| Rev { pos: path.start - age, hash: hash.clone() });
    revs.enumerate().filter_map(|(age, rev)| Some((age, tree.leaf(&rev)?)))
}
