//! Stage 2: asks the target which of a page's revisions it lacks.
//!
//! Reads nothing from the source and writes nothing, so it may be repeated; a batch that broke off starts again here,
//! and asks only for what the target still lacks. A target that was empty when the life began isn't asked the first time
//! ([`super::seen`]).
//! `POST /{db}/_revs_diff`: an id absent from the answer lacks nothing.

use std::borrow::Cow;
use std::collections::HashSet;

use super::ReplicateError;
use super::life::Life;
use super::progress::Counts;
use crate::document::{DocId, Rev, Wanted};
use crate::peer::Change;

/// Asks. `first` says that these changes weren't asked for before, and are to be counted.
pub async fn ask(life: &Life, changes: &[Change], first: bool) -> Result<Vec<Wanted>, ReplicateError> {
    let (mut wanted, doubtful) = match &life.seen {
        Some(seen) if first => {
            let (new, doubtful): (Vec<_>, Vec<_>) = changes.iter().cloned().partition(|change| seen.is_new(change));
            let doubtful = Cow::Owned(without(doubtful, &new));
            (
                new.into_iter().map(|Change { id, revs, .. }| Wanted { id, revs, atts_since: Vec::new() }).collect(),
                doubtful,
            )
        }
        _ => (Vec::new(), Cow::Borrowed(changes)),
    };
    if !doubtful.is_empty() {
        let _work = life.progress.pulse().work();
        wanted.extend(life.unless_stopped(life.target.revs_diff(&doubtful)).await??);
    }
    if first {
        life.progress.count(Counts {
            missing_checked: changes.iter().map(|change| change.revs.len() as u64).sum(),
            missing_found: wanted.iter().map(|wanted| wanted.revs.len() as u64).sum(),
            ..Counts::default()
        });
    }
    Ok(wanted)
}

/// Changes without what is wanted already, since a page may have a row twice.
fn without(mut changes: Vec<Change>, wanted: &[Change]) -> Vec<Change> {
    if !changes.is_empty() {
        let wanted: HashSet<(&DocId, &Rev)> =
            wanted.iter().flat_map(|change| change.revs.iter().map(|rev| (&change.id, rev))).collect();
        changes.iter_mut().for_each(|Change { id, revs, .. }| revs.retain(|rev| !wanted.contains(&(id, rev))));
        changes.retain(|change| !change.revs.is_empty());
    }
    changes
}
