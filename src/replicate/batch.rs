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

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::doubt::Doubts;
use super::life::Life;
use super::progress::Counts;
use super::write::Attached;
use super::{ReplicateError, fetch, missing, write};
use crate::document::{DocId, Rev, RevHash, Seq, Wanted};
use crate::effort::budget::PAGE_BYTES;
use crate::effort::pauses::Pauses;
use crate::peer::{Blame, Change, ChangesQuery, Doubt, Failure, Filter, PeerError, Why};

/// Documents with attachments on their way at once, a batch.
const ATTACHED_AT_ONCE: usize = 4;
/// Times in a row that bulk requests with attachments in them fail, after which they aren't made any more.
const MOST_INLINE_FAILURES: u32 = 3;
/// Rows of the feed among which a document is sought that both sides have.
const LOOKED_AT: usize = 20;
/// Bytes of a question for documents at most: a row of the feed with a long id and thousands of revisions would make one of
/// gigabytes.
const MAX_QUESTION_BYTES: usize = 1 << 20;
/// Bytes in which a question names a revision, beside its document's id.
const NAMED_BYTES: usize = 60;
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

/// Documents with attachments, those with small ones, and what is in doubt.
type Sorted = (Vec<(DocId, Rev)>, Vec<(DocId, Rev)>, Vec<Doubt>);

/// Changes that are copied with one request to each side.
#[derive(Debug, Clone)]
struct Piece {
    changes: Vec<Change>,
    /// The target was asked about them before: they are counted.
    asked: bool,
    /// What each of them met is noted among the doubts.
    doubtful: bool,
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
            proven = self.doubts.need_proof(tries_left) && self.both_sides_work().await;
        }
        Ok(())
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

    /// Whether both sides work: copies once more, uncounted, documents that got through before, or, if there are none, one
    /// that both have. If they have none in common, each is asked by itself. A failed proof proves nothing.
    async fn both_sides_work(&self) -> bool {
        let life = Life { progress: Arc::default(), failures: Arc::default(), ..self.life.clone() };
        let mut known = self.life.progress.known(|id| !self.doubts.contains(id));
        let mut others = Vec::new();
        if known.is_empty() {
            (known, others) = self.first_of_the_feed().await.unwrap_or_default();
        }
        let proven = match known.is_empty() {
            true => source_gives(&life, others).await.unwrap_or(false) && life.target.takes_documents().await.is_ok(),
            false => {
                let change = |(id, rev)| Change { seq: Seq::zero(), id, revs: vec![rev] };
                let mut piece = Piece::new(known.into_iter().map(change).collect());
                let mut batch = Batch::new(&life, false, piece.changes.len());
                let copied = batch.copy_piece(&mut piece).await;
                copied.is_ok_and(|doubts| doubts.is_empty()) && batch.given_up.is_empty()
            }
        };
        if proven {
            self.life.progress.copied(1, None);
        }
        proven
    }

    /// Documents from the beginning of the source's feed, whatever is filtered, that aren't in doubt: one that the target
    /// has too, which changes nothing there if it comes again, and all of them.
    async fn first_of_the_feed(&self) -> Result<(Vec<(DocId, Rev)>, Vec<Change>), PeerError> {
        let query = ChangesQuery {
            since: Seq::zero(),
            limit: LOOKED_AT,
            max_bytes: PAGE_BYTES,
            filter: Filter::None,
            winners_only: false,
        };
        let mut changes = self.life.source.changes(&query).await?.changes;
        changes.retain(|change| !self.doubts.contains(&change.id));
        let lacking = self.life.target.revs_diff(&changes).await?;
        let both_have = changes.iter().find(|change| !lacking.iter().any(|wanted| wanted.id == change.id));
        let known = both_have.and_then(|change| Some((change.id.clone(), change.revs.first()?.clone())));
        Ok((known.into_iter().collect(), changes))
    }

    /// Copies a piece; answers what is in doubt.
    async fn copy_piece(&mut self, piece: &mut Piece) -> Result<Vec<Doubt>, ReplicateError> {
        let all_of =
            |change: &Change| Wanted { id: change.id.clone(), revs: change.revs.clone(), atts_since: Vec::new() };
        let mut wanted = match self.asks {
            true => missing::ask(self.life, &piece.changes, !piece.asked).await?,
            false => piece.changes.iter().map(all_of).collect(),
        };
        piece.asked = true;
        if !self.given_up.is_empty() {
            wanted.retain_mut(|Wanted { id, revs, .. }| {
                let all_leaves = revs.is_empty();
                revs.retain(|rev| !self.given_up.contains(&(id.clone(), Some(rev.clone()))));
                all_leaves || !revs.is_empty()
            });
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let atts_since: HashMap<DocId, Vec<Rev>> = wanted
            .iter()
            .filter(|wanted| !wanted.atts_since.is_empty())
            .map(|wanted| (wanted.id.clone(), wanted.atts_since.clone()))
            .collect();
        let (mut attached, small, mut doubts) = self.copy_plain(wanted).await?;
        // Of what the target had before, it has most attachments: they needn't travel again.
        let (again, small): (Vec<_>, Vec<_>) =
            small.into_iter().partition(|(id, _)| atts_since.contains_key(id) && id.has_url());
        attached.extend(again);
        attached.extend(self.copy_small(small).await?);
        for copied in self.copy_attached(attached, &atts_since).await? {
            match copied {
                Attached::Written => {}
                Attached::Refused { failure, read } => self.give_up(failure, read),
                Attached::Doubtful(doubt) => doubts.push(doubt),
            }
        }
        Ok(doubts)
    }

    /// Copies documents with attachments, some at once. After the first error none is begun, yet those under way end.
    async fn copy_attached(
        &self,
        attached: Vec<(DocId, Rev)>,
        atts_since: &HashMap<DocId, Vec<Rev>>,
    ) -> Result<Vec<Attached>, ReplicateError> {
        let mut waiting = attached.into_iter();
        let mut under_way = FuturesUnordered::new();
        let (mut copied, mut failure) = (Vec::new(), None);
        loop {
            while under_way.len() < ATTACHED_AT_ONCE
                && failure.is_none()
                && let Some((id, rev)) = waiting.next()
            {
                let since = atts_since.get(&id).map_or(&[][..], Vec::as_slice);
                under_way.push(write::attached(self.life, id, rev, since));
            }
            match under_way.next().await {
                None => break,
                Some(Ok(attached)) => copied.push(attached),
                Some(Err(error)) => _ = failure.get_or_insert(error),
            }
        }
        failure.map_or(Ok(copied), Err)
    }

    /// Copies documents with small attachments in bulk; answers those that didn't get to the target in this way. Nothing is
    /// judged here, whatever goes wrong, unless it is the whole peer's.
    async fn copy_small(&self, mut small: Vec<(DocId, Rev)>) -> Result<Vec<(DocId, Rev)>, ReplicateError> {
        if small.is_empty() || self.life.inline_failures.load(Ordering::Relaxed) >= MOST_INLINE_FAILURES {
            return Ok(small);
        }
        let mut copied = HashSet::new();
        let failures = match self.copy_inline(small.clone(), &mut copied).await {
            Ok(()) => 0,
            // Whatever it is, one by one they may get through: a gateway cuts what takes long, a source builds the whole answer
            // before it sends any of it. After a long silence it isn't tried again.
            Err(ReplicateError::Peer(error)) => {
                tracing::debug!(%error, "small attachments didn't travel within their documents");
                match error.blame() {
                    Blame::Lasting => MOST_INLINE_FAILURES,
                    _ => self.life.inline_failures.load(Ordering::Relaxed) + 1,
                }
            }
            Err(error) => return Err(error),
        };
        self.life.inline_failures.store(failures, Ordering::Relaxed);
        small.retain(|one| !copied.contains(one));
        Ok(small)
    }

    async fn copy_inline(
        &self,
        small: Vec<(DocId, Rev)>,
        copied: &mut HashSet<(DocId, Rev)>,
    ) -> Result<(), ReplicateError> {
        let _work = self.life.progress.pulse().work();
        let mut fetching = fetch::ask_inline(self.life, small).await?;
        while let Some(fetched) = fetching.next().await? {
            copied.extend(write::inline(self.life, fetched.docs).await?);
        }
        Ok(())
    }

    /// Copies documents without attachments; answers those that have some, those whose attachments are small, and what is
    /// in doubt.
    async fn copy_plain(&mut self, wanted: Vec<Wanted>) -> Result<Sorted, ReplicateError> {
        let _work = self.life.progress.pulse().work();
        let (mut attached, mut small, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
        let mut fetching = fetch::ask(self.life, wanted).await?;
        while let Some(fetched) = fetching.next().await? {
            fetched.refused.into_iter().for_each(|refused| self.give_up(refused, false));
            let written = write::docs(self.life, fetched.docs).await?;
            written.refused.into_iter().for_each(|refused| self.give_up(refused, true));
            attached.extend(fetched.attached);
            small.extend(fetched.small);
            doubts.extend(fetched.doubtful);
            doubts.extend(written.doubtful);
        }
        Ok((attached, small, doubts))
    }
}

/// Whether the source gives one of these documents, or, if there are none, says in its own words that it lacks one which
/// nobody has.
async fn source_gives(life: &Life, others: Vec<Change>) -> Result<bool, ReplicateError> {
    let nobodys = || {
        let hash = RevHash::Md5(rand::random());
        Change { seq: Seq::zero(), id: DocId::from(format!("couchrep-{hash}")), revs: vec![Rev { pos: 1, hash }] }
    };
    let is_there = !others.is_empty();
    let Change { id, revs, .. } = others.into_iter().next().unwrap_or_else(nobodys);
    // One suffices, and the question for it is short.
    let revs = revs.into_iter().take(1).collect();
    let mut fetching = fetch::ask(life, vec![Wanted { id, revs, atts_since: Vec::new() }]).await?;
    let (mut gives, mut lacks) = (false, false);
    while let Some(fetched) = fetching.next().await? {
        gives |= !fetched.docs.is_empty() || !fetched.attached.is_empty() || !fetched.small.is_empty();
        lacks |= fetched.doubtful.iter().any(|doubt| doubt.blame == Blame::Missing);
    }
    Ok(if is_there { gives } else { lacks })
}

impl Piece {
    fn new(changes: Vec<Change>) -> Self {
        Self { changes, asked: false, doubtful: false }
    }

    /// The same in pieces, none of whose questions is longer than [`MAX_QUESTION_BYTES`], unless it is about one revision.
    fn of_bounded_questions(self) -> Vec<Self> {
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
    fn halves(&self) -> Option<[Self; 2]> {
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
fn count(pieces: &[Piece]) -> usize {
    pieces.iter().flat_map(|piece| &piece.changes).map(|change| change.revs.len().max(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
