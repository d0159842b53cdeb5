//! Proof that both sides work, before a document is given up for what both may have met in it.

use std::sync::Arc;

use super::Batch;
use super::piece::Piece;
use crate::document::{DocId, Rev, RevHash, Seq, Wanted};
use crate::effort::budget::PAGE_BYTES;
use crate::peer::{Blame, Change, ChangesQuery, Filter, PeerError};
use crate::replicate::life::Life;
use crate::replicate::{ReplicateError, fetch};

/// Rows of the feed among which a document is sought that both sides have.
const LOOKED_AT: usize = 20;

impl Batch<'_> {
    /// Whether both sides work: copies once more, uncounted, documents that got through before, or, if there are none, one
    /// that both have. If they have none in common, each is asked by itself. A failed proof proves nothing.
    pub(super) async fn both_sides_work(&self) -> bool {
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
