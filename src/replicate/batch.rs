//! One batch: missing, fetch, write, for one page of the feed.
//!
//! A batch either ends with everything that the page named on the target (or given up, and noted as a failure), or with an
//! error, and then may be done again from its start: what is there already is not fetched again.
//!
//! What goes wrong is tried again in rounds, with growing pauses between them. A request that fails as a whole may fail
//! for one of its documents: the next round asks for half as many at once, until that one is alone; the others get
//! through meanwhile. Whether it is to blame, [`super::doubt`] decides. If nothing gets through, the peer is in trouble:
//! a round ends after [`MOST_FAILED`] failed requests then, so that a server that is down or a gateway that answers for
//! it isn't asked for document after document; and the batch ends with an error when the rounds are over.
//!
//! Documents with small attachments are copied in bulk with the data in them, which costs two CouchDBs a quarter of what it
//! costs them one by one. It is a short cut and no more: what doesn't get through in it, for whatever reason, goes the way
//! of large attachments, and is judged there.
//!
//! Memory: what is copied in bulk is held within a share of the budget ([`crate::effort::budget`]), which is given back before
//! documents with attachments stream.

mod piece;
mod copying;
mod proof;

use std::collections::HashSet;

use self::piece::{Piece, count};
use super::ReplicateError;
use super::doubt::Doubts;
use super::life::Life;
use super::progress::Counts;
use crate::document::{DocId, Rev, Seq};
use crate::effort::pauses::Pauses;
use crate::peer::{Blame, Change, Doubt, Failure, Why};

/// Tries left in which a batch of which nothing gets through is halved everywhere, if both sides work: each half may hold a bad
/// document.
const LAST_TRIES: u32 = 2;
/// Requests of a round that fail before any gets through, after which the round ends.
const MOST_FAILED: usize = 2;

/// Copies what the target lacks of a page's changes.
pub async fn copy(life: Life, changes: Vec<Change>) -> Result<(), ReplicateError> {
    Batch::new(&life, true, changes.len()).copy(changes).await
}

/// Copies all leaves of these documents, whether the target has them or not. Documents that don't exist are passed over.
pub async fn copy_docs(life: Life, ids: Vec<DocId>) -> Result<(), ReplicateError> {
    let all_leaves = |id| Change { seq: Seq::zero(), id, revs: Vec::new() };
    Batch::new(&life, false, ids.len()).copy(ids.into_iter().map(all_leaves).collect()).await
}

struct Batch<'a> {
    life: &'a Life,
    /// The target is asked what it lacks.
    asks: bool,
    /// What won't get to the target: counted once, and not asked for again. Other revisions of the same document are. Without
    /// a revision, nobody told which it was.
    given_up: HashSet<(DocId, Option<Rev>)>,
    doubts: Doubts,
    /// Why the last request failed as a whole.
    error: Option<ReplicateError>,
}

impl<'a> Batch<'a> {
    fn new(life: &'a Life, asks: bool, documents: usize) -> Self {
        let doubts = Doubts::of_batch(documents);
        Self { life, asks, given_up: HashSet::new(), doubts, error: None }
    }

    async fn copy(&mut self, changes: Vec<Change>) -> Result<(), ReplicateError> {
        let mut pieces = Piece::new(changes).of_bounded_questions();
        let tries = self.life.tries;
        let (mut pauses, mut tries_left) = (Pauses::between_tries(tries), tries);
        let mut proven = false;
        while !pieces.is_empty() {
            let before = count(&pieces);
            self.error = None;
            pieces = self.round(pieces, proven).await?;
            if pieces.is_empty() {
                break;
            }
            let left: HashSet<&DocId> =
                pieces.iter().flat_map(|piece| &piece.changes).map(|change| &change.id).collect();
            self.doubts.keep_only(|id| left.contains(id));
            if count(&pieces) < before {
                (pauses, tries_left) = (Pauses::between_tries(tries), tries);
            }
            tries_left = tries_left.saturating_sub(1);
            let Some(pause) = pauses.next() else { return self.settle(&pieces) };
            tracing::warn!(documents = count(&pieces), pause_ms = pause.as_millis() as u64, "trying again");
            self.life.unless_stopped(tokio::time::sleep(pause)).await?;
            let is_stuck = tries_left <= LAST_TRIES && self.may_be_a_documents();
            proven = (is_stuck || self.doubts.need_proof(tries_left)) && self.both_sides_work().await;
        }
        Ok(())
    }

    /// Whether the last error may be one document's, of many.
    fn may_be_a_documents(&self) -> bool {
        matches!(&self.error, Some(ReplicateError::Peer(error)) if matches!(error.blame(), Blame::Unclear { .. }))
    }

    /// Copies pieces; answers those that are to be tried again, those that had no turn first. `proven` says that both
    /// sides have just been seen to work.
    async fn round(&mut self, pieces: Vec<Piece>, proven: bool) -> Result<Vec<Piece>, ReplicateError> {
        let (mut untried, mut left, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let (mut failed, mut any_got_through) = (0, proven);
        for mut piece in pieces {
            if failed >= MOST_FAILED && !any_got_through {
                untried.push(piece);
                continue;
            }
            match self.copy_piece(&mut piece).await {
                Ok(doubts) => {
                    let doubtful = self.note(doubts, &piece);
                    any_got_through |= doubtful.len() < piece.changes.len();
                    again.extend(doubtful);
                }
                Err(error) => {
                    failed += 1;
                    left.extend(self.split_or_doubt(error, piece)?);
                }
            }
        }
        if !again.is_empty() {
            left.extend(Piece { changes: again, asked: true, doubtful: true }.of_bounded_questions());
        }
        untried.extend(left);
        Ok(untried)
    }

    /// What is to be tried again after a request failed as a whole.
    fn split_or_doubt(&mut self, error: ReplicateError, piece: Piece) -> Result<Vec<Piece>, ReplicateError> {
        // Whoever asked for the end needn't hear of it.
        if matches!(error, ReplicateError::Cancelled) {
            return Err(error);
        }
        let blame = match &error {
            ReplicateError::Peer(error) => error.blame(),
            _ => Blame::Lasting,
        };
        let why = match &error {
            ReplicateError::Peer(error) => error.without_address(),
            error => error.to_string(),
        };
        tracing::warn!(error = %error.chain(), documents = piece.changes.len(), "a part of a batch failed");
        match blame {
            Blame::Lasting => return Err(error),
            Blame::Passing => {
                self.error = Some(error);
                self.doubts.clear(|id| piece.changes.iter().any(|change| change.id == *id));
                return Ok(vec![Piece { doubtful: false, ..piece }]);
            }
            Blame::Document | Blame::Missing | Blame::Unclear { .. } => self.error = Some(error),
        }
        if let Some(halves) = piece.halves() {
            return Ok(halves.into());
        }
        let doubt = |change: &Change| {
            let failure = Failure {
                id: change.id.clone(),
                rev: change.revs.first().cloned(),
                why: Why::new("not_copied", why.clone()),
            };
            Doubt { failure, blame }
        };
        let doubtful = self.note(piece.changes.iter().map(doubt).collect(), &piece);
        Ok(if doubtful.is_empty() { Vec::new() } else { vec![Piece { changes: doubtful, doubtful: true, ..piece }] })
    }

    /// Notes what is in doubt; answers what is to be tried again.
    fn note(&mut self, doubts: Vec<Doubt>, piece: &Piece) -> Vec<Change> {
        let mut again: Vec<Change> = Vec::new();
        for doubt in doubts {
            let (id, rev) = (doubt.failure.id.clone(), doubt.failure.rev.clone());
            if let Some(failure) = self.doubts.add(doubt, self.life.progress.copies()) {
                self.give_up(failure, false);
                continue;
            }
            let revs = match rev {
                Some(rev) => vec![rev],
                // A page may have a document twice.
                None => piece.changes.iter().filter(|one| one.id == id).flat_map(|one| one.revs.clone()).collect(),
            };
            match again.last_mut() {
                Some(last) if last.id == id => last.revs.extend(revs),
                _ => again.push(Change { seq: Seq::zero(), id, revs }),
            }
        }
        again
    }

    /// Notes a document that won't get to the target, once however often it is met: a batch that is done again meets a
    /// descendant that came in place of what was asked for, and what nobody told the revision of.
    fn give_up(&mut self, failure: Failure, read: bool) {
        let unnamed = (failure.id.clone(), None);
        if self.given_up.contains(&unnamed) || !self.given_up.insert((failure.id.clone(), failure.rev.clone())) {
            return;
        }
        self.life.failures.add(failure);
        let docs_read = u64::from(read);
        self.life.progress.count(Counts { docs_read, doc_write_failures: 1, ..Counts::default() });
    }

    /// Ends the batch when nothing is tried again any more.
    fn settle(&mut self, left: &[Piece]) -> Result<(), ReplicateError> {
        match self.error.take() {
            Some(error) if left.iter().any(|piece| !piece.doubtful) => return Err(error),
            _ => {}
        }
        for failure in self.doubts.settle()? {
            self.give_up(failure, false);
        }
        Ok(())
    }
}
