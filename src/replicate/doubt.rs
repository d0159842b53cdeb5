//! Whether a document is to blame for what went wrong with it, or its peer.
//!
//! A peer's own verdict on a document is known where it is said ([`crate::peer::Blame::Document`]). What is left is in
//! doubt: an error in words that nobody knows, a page, a connection that ends in the middle of an answer. It may be the
//! document (CouchDB answers one whose numbers it can't hold with `500 badarith`, whatever else stands in the request),
//! and then the others must not wait for it for ever. Or it may be the peer, or something before it, and then a document
//! that is given up is lost.
//!
//! **A document is given up only if it alone meets trouble again and again, while others of the replication get through
//! between one time and the next**: [`STRIKES`] times, and if nobody said so in CouchDB's words, for as long as anything
//! is tried again. Trouble that a peer calls its own is never a document's. If no others get through there is no proof,
//! and the batch isn't done. What is given up is a recorded failure, as a refusal is.
//!
//! How it may fail: a fault that meets one document alone for that long by chance. It is recorded then, and may be tried
//! again; it isn't lost.

use std::collections::HashMap;

use crate::document::{DocId, Rev};
use crate::peer::{Blame, Doubt, Failure, PeerError};

/// Times that a document must fail again after others got through, and that a revision must be called missing.
const STRIKES: u32 = 3;

/// What is known of the documents of one batch that are in doubt.
#[derive(Debug, Default)]
pub struct Doubts(HashMap<(DocId, Option<Rev>), Case>);

#[derive(Debug)]
struct Case {
    doubt: Doubt,
    strikes: u32,
    /// What [`super::progress::Progress::copies`] said when it last failed.
    copies: u64,
}

impl Doubts {
    /// Notes that a document failed (once more), when the replication had made so many copies. Answers the failure if
    /// that settles it.
    pub fn add(&mut self, doubt: Doubt, copies: u64) -> Option<Failure> {
        let key = (doubt.failure.id.clone(), doubt.failure.rev.clone());
        let new = || Case { doubt: doubt.clone(), strikes: 0, copies };
        let case = self.0.entry(key.clone()).or_insert_with(new);
        let others_got_through = copies > case.copies;
        match doubt.blame {
            Blame::Missing => case.strikes += 1,
            Blame::Unclear { .. } if others_got_through => case.strikes += 1,
            Blame::Unclear { .. } | Blame::Document => {}
            // A peer that tells of its own trouble clears the document.
            Blame::Passing | Blame::Lasting => case.strikes = 0,
        }
        let settled = match doubt.blame {
            Blame::Document => true,
            Blame::Missing | Blame::Unclear { worded: true } => case.strikes >= STRIKES,
            Blame::Unclear { worded: false } | Blame::Passing | Blame::Lasting => false,
        };
        (case.doubt, case.copies) = (doubt, copies);
        settled.then(|| self.0.remove(&key)).flatten().map(|case| case.doubt.failure)
    }

    /// Whether others that get through would tell anything.
    pub fn need_proof(&self) -> bool {
        self.0.values().any(|case| matches!(case.doubt.blame, Blame::Unclear { .. }))
    }

    /// Forgets a document that got through.
    pub fn clear(&mut self, still: impl Fn(&DocId) -> bool) {
        self.0.retain(|(id, _), _| still(id));
    }

    /// Settles what is left when nothing is tried again any more.
    ///
    /// # Errors
    /// If a document may not be given up, what it met last.
    pub fn settle(&mut self) -> Result<Vec<Failure>, PeerError> {
        let alone = |case: &&Case| case.strikes >= STRIKES && matches!(case.doubt.blame, Blame::Unclear { .. });
        match self.0.values().find(|case| !alone(case)) {
            Some(Case { doubt: Doubt { failure: Failure { id, why, .. }, blame }, .. }) => {
                Err(PeerError::NotCopied { id: id.clone(), why: why.clone(), blame: *blame })
            }
            None => Ok(self.0.drain().map(|(_, case)| case.doubt.failure).collect()),
        }
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
        let mut doubts = Doubts::default();
        copies.map(|copies| doubts.add(doubt(blame), copies)).position(|failure| failure.is_some())
    }

    #[test]
    fn a_document_that_fails_alone_again_and_again_is_given_up() {
        assert_eq!(settled_at(Blame::Unclear { worded: true }, 0..20), Some(3));
        assert_eq!(settled_at(Blame::Document, 0..20), Some(0));
        assert_eq!(settled_at(Blame::Missing, std::iter::repeat_n(7, 20)), Some(2));
    }

    #[test]
    fn nothing_is_given_up_while_nothing_else_gets_through() {
        assert_eq!(settled_at(Blame::Unclear { worded: true }, std::iter::repeat_n(7, 20)), None);
        assert_eq!(settled_at(Blame::Unclear { worded: false }, std::iter::repeat_n(7, 20)), None);
    }

    #[test]
    fn a_peers_own_trouble_is_never_a_documents() {
        assert_eq!(settled_at(Blame::Passing, 0..100), None);
        let mut doubts = Doubts::default();
        (0..100).for_each(|copies| assert!(doubts.add(doubt(Blame::Passing), copies).is_none()));
        assert!(doubts.settle().is_err());
    }

    #[test]
    fn what_nobody_said_in_words_is_given_up_at_the_end_alone() {
        let mut doubts = Doubts::default();
        let bare = Blame::Unclear { worded: false };
        (0..20).for_each(|copies| assert!(doubts.add(doubt(bare), copies).is_none()));
        assert_eq!(doubts.settle().unwrap().len(), 1);
        doubts.add(doubt(bare), 0);
        doubts.add(doubt(bare), 0);
        assert!(doubts.settle().is_err());
    }
}
