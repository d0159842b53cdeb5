//! How a piece is copied: without attachments, with small ones in bulk, with large ones one by one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::Batch;
use super::piece::Piece;
use crate::document::{DocId, Rev, Wanted};
use crate::peer::{Blame, Change, Doubt};
use crate::replicate::write::Attached;
use crate::replicate::{ReplicateError, fetch, missing, write};

/// Documents with attachments on their way at once, a batch.
const ATTACHED_AT_ONCE: usize = 4;
/// Times in a row that bulk requests with attachments in them fail, after which they aren't made any more.
const MOST_INLINE_FAILURES: u32 = 3;

/// Documents with attachments, those with small ones, and what is in doubt.
type Sorted = (Vec<(DocId, Rev)>, Vec<(DocId, Rev)>, Vec<Doubt>);

impl Batch<'_> {
    /// Copies a piece; answers what is in doubt.
    pub(super) async fn copy_piece(&mut self, piece: &mut Piece) -> Result<Vec<Doubt>, ReplicateError> {
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
