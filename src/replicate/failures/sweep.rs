//! Strikes out failures of documents that did arrive later.
//!
//! A document was edited so that the target takes it now, or the target's rules changed and somebody copied it: then the
//! target has the revision, or one that came after it and knows it (`_revs_diff`). Reads nothing from the source but
//! the list, and writes nothing else. Failures of which nobody named the revision stay, until they are tried again.

use std::collections::HashSet;

use super::super::loss::same_life;
use super::{FailureList, RecordedFailure, by_document};
use crate::peer::{Peer, PeerError};

/// Looks through the list, and answers how many still stand.
///
/// If the target was restarted meanwhile, it may have lost what it said it had: then nothing more is struck out.
pub async fn sweep(list: &FailureList, target: &Peer) -> Result<u64, PeerError> {
    let mut review = list.review().await?;
    let mut started = None;
    while let Some(failures) = review.next().await? {
        let started = match &started {
            Some(started) => started,
            None => started.insert(target.ensure_full_commit().await?),
        };
        review.stand(lacking(target, failures).await?);
        if review.is_due() {
            if !same_life(started, &target.ensure_full_commit().await?) {
                return Ok(list.part(0, 0).await?.0);
            }
            review.settle().await?;
        }
    }
    Ok(review.standing())
}

/// The same; `None` if it can't be found out, which changes nothing about what was copied.
pub async fn standing(list: &FailureList, target: &Peer) -> Option<u64> {
    let swept = sweep(list, target).await;
    swept.inspect_err(|error| tracing::warn!(%error, "it could not be found out which failures still stand")).ok()
}

/// Those of which the target lacks the revision.
async fn lacking(target: &Peer, mut failures: Vec<RecordedFailure>) -> Result<Vec<RecordedFailure>, PeerError> {
    let (changes, _) = by_document(&failures);
    if changes.is_empty() {
        return Ok(failures);
    }
    let wanted = target.revs_diff(&changes).await?;
    let lacking: HashSet<_> =
        wanted.iter().flat_map(|wanted| wanted.revs.iter().map(|rev| (&wanted.id, rev))).collect();
    failures.retain(|RecordedFailure { failure, .. }| {
        failure.rev.as_ref().is_none_or(|rev| lacking.contains(&(&failure.id, rev)))
    });
    Ok(failures)
}
