//! Whether a document is to blame for what went wrong with it, or its peer.
//!
//! A peer's own verdict on a document is known where it is said ([`crate::peer::Blame::Document`]). What is left is in
//! doubt: an error in words that nobody knows, a page, a connection that ends in the middle of an answer. It may be the
//! document (CouchDB answers one whose numbers it can't hold with `500 badarith`, whatever else stands in the request),
//! and then the others must not wait for it for ever. Or it may be the peer, or something before it, and then a document
//! that is given up is lost.
//!
//! A document is given up in three ways only. By the peer's own verdict, at once. When the source has called its revision
//! missing [`STRIKES`] times. Or **when it alone fails again and again, while others of the replication get through
//! between one time and the next**: [`STRIKES`] times, and if nobody said so in CouchDB's words, only when all tries are
//! over. Trouble that a peer calls its own is never a document's. If no others get through there is no proof, and the
//! batch isn't done. What is given up is a recorded failure, as a refusal is.
//!
//! So that others get through, some that did before are copied again ([`Doubts::need_proof`]). That costs a fetch and a
//! write, so it waits until a document has failed twice, as long as tries are left for it: most of what fails once was a
//! hiccup.
//!
//! How it may fail: a fault that meets one document alone for that long by chance. It is recorded then, and may be tried
//! again; it isn't lost. Or a part of a peer that is down for longer than that, in words that nobody knows: so few are in doubt
//! then only by chance ([`MOST_ALONE`]), and if more are, none is given up.

use std::collections::HashMap;

use crate::document::{DocId, Rev};
use crate::peer::{Blame, Doubt, Failure, PeerError};

/// Times that a document must fail again after others got through.
const STRIKES: u32 = 3;
/// Times that a revision must be called missing: some seconds, since a copy of a cluster may be behind another.
const TIMES_MISSING: u32 = 6;
/// Documents of a batch that may be given up for what nobody judged, at once: more of them aren't each alone.
const MOST_ALONE: usize = 4;
/// The same, as a part of the batch.
const SHARE_ALONE: usize = 20;

/// What is known of the documents of one batch that are in doubt.
#[derive(Debug)]
pub struct Doubts {
    cases: HashMap<(DocId, Option<Rev>), Case>,
    /// Documents in doubt at once that count as alone.
    most_alone: usize,
}

#[derive(Debug)]
struct Case {
    doubt: Doubt,
    strikes: u32,
    /// How often it failed.
    times: u32,
    /// What [`super::progress::Progress::copies`] said when it last failed.
    copies: u64,
}

impl Doubts {
    /// None yet, of a batch of so many documents.
    pub fn of_batch(documents: usize) -> Self {
        Self { cases: HashMap::new(), most_alone: MOST_ALONE.max(documents / SHARE_ALONE) }
    }

    /// Notes that a document failed (once more), when the replication had made so many copies. Answers the failure if
    /// that settles it.
    pub fn add(&mut self, doubt: Doubt, copies: u64) -> Option<Failure> {
        let key = (doubt.failure.id.clone(), doubt.failure.rev.clone());
        let new = || Case { doubt: doubt.clone(), strikes: 0, times: 0, copies };
        let case = self.cases.entry(key.clone()).or_insert_with(new);
        let others_got_through = copies > case.copies;
        case.times += 1;
        match doubt.blame {
            Blame::Missing => case.strikes += 1,
            Blame::Unclear { .. } if others_got_through => case.strikes += 1,
            Blame::Unclear { .. } | Blame::Document => {}
            // A peer that tells of its own trouble clears the document.
            Blame::Passing | Blame::Lasting => case.strikes = 0,
        }
        let (blame, strikes) = (doubt.blame, case.strikes);
        (case.doubt, case.copies) = (doubt, copies);
        let settled = match blame {
            Blame::Document => true,
            Blame::Missing => strikes >= TIMES_MISSING,
            Blame::Unclear { worded: true } => strikes >= STRIKES && self.each_is_alone(),
            Blame::Unclear { worded: false } | Blame::Passing | Blame::Lasting => false,
        };
        settled.then(|| self.cases.remove(&key)).flatten().map(|case| case.doubt.failure)
    }

    /// Whether so few are in doubt that each may be to blame: a part of a peer that is down looks like many bad documents.
    fn each_is_alone(&self) -> bool {
        self.cases.values().filter(|case| case.is_unclear()).count() <= self.most_alone
    }

    /// Whether this document is in doubt.
    pub fn contains(&self, id: &DocId) -> bool {
        self.cases.keys().any(|(other, _)| other == id)
    }

    /// A peer told of its own trouble, asked about these documents: that clears them.
    pub fn clear(&mut self, of: impl Fn(&DocId) -> bool) {
        self.cases.iter_mut().filter(|((id, _), _)| of(id)).for_each(|(_, case)| case.strikes = 0);
    }

    /// Whether others that get through would tell anything, before the first of so many tries that are left: one that failed
    /// once is tried again first, unless each try that is left is needed for a strike.
    pub fn need_proof(&self, tries_left: u32) -> bool {
        self.cases.values().any(|case| case.is_unclear() && (case.times > 1 || tries_left <= STRIKES))
    }

    /// Forgets the documents that aren't left: they got through.
    pub fn keep_only(&mut self, left: impl Fn(&DocId) -> bool) {
        self.cases.retain(|(id, _), _| left(id));
    }

    /// Settles what is left when nothing is tried again any more.
    ///
    /// # Errors
    /// If a document may not be given up, what it met last.
    pub fn settle(&mut self) -> Result<Vec<Failure>, PeerError> {
        let each_is_alone = self.each_is_alone();
        let may_go = |case: &&Case| {
            let alone = each_is_alone && case.is_unclear() || case.doubt.blame == Blame::Missing;
            alone && case.strikes >= STRIKES
        };
        match self.cases.values().find(|case| !may_go(case)) {
            Some(Case { doubt: Doubt { failure: Failure { id, why, .. }, blame }, .. }) => {
                Err(PeerError::NotCopied { id: id.clone(), why: why.clone(), blame: *blame })
            }
            None => Ok(self.cases.drain().map(|(_, case)| case.doubt.failure).collect()),
        }
    }
}

impl Case {
    fn is_unclear(&self) -> bool {
        matches!(self.doubt.blame, Blame::Unclear { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Why;

    fn doubt(blame: Blame) -> Doubt {
        let failure = Failure { id: "a".into(), rev: Rev::parse("1-a"), why: Why::new("unknown_error", "badarith") };
        Doubt { failure, blame }
    }

    /// Which of the times it fails settles it, with so many copies made each time.
    fn settled_at(blame: Blame, copies: impl Iterator<Item = u64>) -> Option<usize> {
        let mut doubts = Doubts::of_batch(500);
        copies.map(|copies| doubts.add(doubt(blame), copies)).position(|failure| failure.is_some())
    }

    #[test]
    fn a_document_that_fails_alone_again_and_again_is_given_up() {
        assert_eq!(settled_at(Blame::Unclear { worded: true }, 0..20), Some(3));
        assert_eq!(settled_at(Blame::Document, 0..20), Some(0));
        assert_eq!(settled_at(Blame::Missing, std::iter::repeat_n(7, 20)), Some(5));
    }

    #[test]
    fn nothing_is_given_up_while_nothing_else_gets_through() {
        assert_eq!(settled_at(Blame::Unclear { worded: true }, std::iter::repeat_n(7, 20)), None);
        assert_eq!(settled_at(Blame::Unclear { worded: false }, std::iter::repeat_n(7, 20)), None);
    }

    /// A quarter of a cluster's documents whose copies are gone failed each alone, in words that nobody knew.
    #[test]
    fn many_documents_that_fail_at_once_are_not_each_to_blame() {
        let of = |number: usize, blame: Blame| {
            let doubt = doubt(blame);
            Doubt { failure: Failure { id: DocId::from(number.to_string()), ..doubt.failure }, ..doubt }
        };
        for (bad, given_up) in [(25, 25), (26, 0)] {
            let mut doubts = Doubts::of_batch(500);
            let times = (0..10).flat_map(|copies| (0..bad).map(move |number| (copies, number)));
            let settled = times
                .filter(|(copies, number)| doubts.add(of(*number, Blame::Unclear { worded: true }), *copies).is_some());
            assert_eq!(settled.take(bad).count(), given_up);
            assert_eq!(doubts.settle().is_err(), given_up == 0);
        }
    }

    #[test]
    fn a_peers_own_trouble_is_never_a_documents() {
        assert_eq!(settled_at(Blame::Passing, 0..100), None);
        let mut doubts = Doubts::of_batch(500);
        (0..100).for_each(|copies| assert!(doubts.add(doubt(Blame::Passing), copies).is_none()));
        assert!(doubts.settle().is_err());
    }

    #[test]
    fn what_failed_once_is_tried_again_before_others_are_copied_for_proof_unless_tries_are_few() {
        for (tries_left, needs) in [(9, [false, true]), (4, [false, true]), (3, [true, true])] {
            let mut doubts = Doubts::of_batch(500);
            let needed = needs.map(|_| {
                doubts.add(doubt(Blame::Unclear { worded: false }), 0);
                doubts.need_proof(tries_left)
            });
            assert_eq!(needed, needs, "{tries_left}");
        }
    }

    #[test]
    fn what_nobody_said_in_words_is_given_up_at_the_end_alone() {
        let mut doubts = Doubts::of_batch(500);
        let bare = Blame::Unclear { worded: false };
        (0..20).for_each(|copies| assert!(doubts.add(doubt(bare), copies).is_none()));
        assert_eq!(doubts.settle().unwrap().len(), 1);
        doubts.add(doubt(bare), 0);
        doubts.add(doubt(bare), 0);
        assert!(doubts.settle().is_err());
    }
}
