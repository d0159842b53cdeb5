//! Stage 2: asks the target which of a page's revisions it lacks.
//!
//! Reads nothing from the source and writes nothing, so it may be repeated; a batch that broke off starts again here,
//! and asks only for what the target still lacks.
//! `POST /{db}/_revs_diff`: an id absent from the answer lacks nothing.

use super::ReplicateError;
use super::life::Life;
use super::progress::Counts;
use crate::document::Wanted;
use crate::peer::Change;

/// Asks. `first` says that these changes weren't asked for before, and are to be counted.
pub async fn ask(life: &Life, changes: &[Change], first: bool) -> Result<Vec<Wanted>, ReplicateError> {
    let _work = life.progress.pulse().work();
    let wanted = life.unless_stopped(life.target.revs_diff(changes)).await??;
    if first {
        life.progress.count(Counts {
            missing_checked: changes.iter().map(|change| change.revs.len() as u64).sum(),
            missing_found: wanted.iter().map(|wanted| wanted.revs.len() as u64).sum(),
            ..Counts::default()
        });
    }
    Ok(wanted)
}
