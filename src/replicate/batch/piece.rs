//! Pieces of a batch: what is asked for with one request, and halved until one document is alone.

use crate::document::{Rev, Seq};
use crate::peer::Change;

/// Bytes of a question for documents at most: a row of the feed with a long id and thousands of revisions would make one of
/// gigabytes.
const MAX_QUESTION_BYTES: usize = 1 << 20;
/// Bytes in which a question names a revision, beside its document's id.
const NAMED_BYTES: usize = 60;

/// Changes that are copied with one request to each side.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) changes: Vec<Change>,
    /// The target was asked about them before: they are counted.
    pub(super) asked: bool,
    /// What each of them met is noted among the doubts.
    pub(super) doubtful: bool,
}

impl Piece {
    pub(super) fn new(changes: Vec<Change>) -> Self {
        Self { changes, asked: false, doubtful: false }
    }

    /// The same in pieces, none of whose questions is longer than [`MAX_QUESTION_BYTES`], unless it is about one revision.
    pub(super) fn of_bounded_questions(self) -> Vec<Self> {
        let (mut left, mut pieces) = (vec![self], Vec::new());
        while let Some(piece) = left.pop() {
            match piece.halves().filter(|_| piece.question_bytes() > MAX_QUESTION_BYTES) {
                Some([first, second]) => left.extend([second, first]),
                None => pieces.push(piece),
            }
        }
        pieces.retain(|piece| !piece.changes.is_empty());
        pieces
    }

    /// Bytes of the question for all that it names, about: `_bulk_get` tells the id with each revision.
    fn question_bytes(&self) -> usize {
        let bytes = |change: &Change| (change.id.as_str().len() + NAMED_BYTES) * change.revs.len().max(1);
        self.changes.iter().map(bytes).sum()
    }

    /// Two pieces with half as much each; `None` for a single revision.
    pub(super) fn halves(&self) -> Option<[Self; 2]> {
        let half = |changes: Vec<Change>| Self { changes, ..*self };
        match self.changes.as_slice() {
            [] => None,
            [Change { id, revs, .. }] => {
                let (first, second) =
                    revs.split_at_checked(revs.len().div_ceil(2)).filter(|(_, second)| !second.is_empty())?;
                let some = |revs: &[Rev]| vec![Change { seq: Seq::zero(), id: id.clone(), revs: revs.to_vec() }];
                Some([first, second].map(some).map(half))
            }
            changes => {
                let (first, second) = changes.split_at(changes.len() / 2);
                Some([first, second].map(<[Change]>::to_vec).map(half))
            }
        }
    }
}

/// Revisions that are left; a document whose leaves aren't known counts as one.
pub(super) fn count(pieces: &[Piece]) -> usize {
    pieces.iter().flat_map(|piece| &piece.changes).map(|change| change.revs.len().max(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocId, Rev};

    #[test]
    fn a_piece_is_halved_until_one_revision_is_alone() {
        let rev = |text: &str| Rev::parse(text).unwrap();
        let change = |id: &str, revs: &[&str]| Change {
            seq: Seq::zero(),
            id: DocId::from(id),
            revs: revs.iter().map(|text| rev(text)).collect(),
        };
        let piece = Piece::new(vec![change("a", &["1-a", "1-b", "1-c"]), change("b", &["1-a"]), change("c", &[])]);
        let (mut left, mut alone) = (vec![piece], 0);
        while let Some(piece) = left.pop() {
            match piece.halves() {
                Some(halves) => left.extend(halves),
                None => alone += 1,
            }
        }
        assert_eq!(alone, 5);
    }

    /// An id of 64 KiB with thousands of revisions, one row of the feed, made a question of gigabytes.
    #[test]
    fn no_question_is_longer_than_a_mebibyte_however_long_an_id_and_its_revisions_are() {
        let revs = |count: u64| (1..=count).map(|pos| Rev::parse(&format!("{pos}-a")).unwrap()).collect::<Vec<_>>();
        let long = Change { seq: Seq::zero(), id: DocId::from("i".repeat(64 << 10)), revs: revs(1000) };
        let short = Change { seq: Seq::zero(), id: DocId::from("a"), revs: revs(2) };
        let pieces = Piece::new(vec![short.clone(), long, short.clone()]).of_bounded_questions();
        assert!(pieces.iter().all(|piece| piece.question_bytes() <= MAX_QUESTION_BYTES));
        assert_eq!((count(&pieces), pieces[0].changes[0].id.as_str()), (1004, "a"));
        assert_eq!(Piece::new(vec![short.clone(), short]).of_bounded_questions().len(), 1);
        assert!(Piece::new(Vec::new()).of_bounded_questions().is_empty());
    }
}
