//! Why nothing is taken over, or given back.

use super::nodes::CouchDbJob;
use super::note::NoteOwner;
use crate::beside::AdminError;

/// Nothing was taken over, or not all was given back.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// CouchDB doesn't do what it is asked for.
    #[error(transparent)]
    CouchDb(#[from] AdminError),
    /// Another process has taken over, and is living.
    #[error("{0} has taken its replications over, and is living: stop it first")]
    Living(NoteOwner),
    /// Whoever asked for it doesn't want it any more; nothing was changed.
    #[error("it was told to stop before it was known whether another couchrep is living")]
    Stopped,
    /// Another process was faster.
    #[error("{0} is just taking its replications over too, and was faster")]
    LostRace(NoteOwner),
    /// Every try to leave a note took too long.
    #[error("it is too slow to leave a note in `_replicator`")]
    TooSlow,
    /// They would be run by nobody.
    #[error(
        "{} of its replications can't be taken over, since they were asked for at its own _replicate: {}; cancel them, or give \
         --take-over=force to have them stand still meanwhile",
        .0.len(),
        list(.0)
    )]
    WithoutDocuments(Vec<CouchDbJob>),
    /// These nodes' own values couldn't be put back.
    #[error("max_jobs couldn't be put back on {}", .0.join(", "))]
    NotPutBack(Vec<String>),
}

/// Those that fit a message.
const LISTED: usize = 10;

pub(super) fn list(jobs: &[CouchDbJob]) -> String {
    let shown: Vec<_> = jobs.iter().take(LISTED).map(CouchDbJob::shown).collect();
    let more = if jobs.len() > LISTED { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
