//! A database that isn't what it was when the session began: it may have lost what was written since.
//!
//! Then nothing is recorded, and the session starts again from the last checkpoint. A database that does so again and again,
//! with no progress between, doesn't tell the truth. Does no I/O.

use super::ReplicateError;
use crate::peer::PeerError;

/// Sessions in a row that end so, from one checkpoint, after which the replication fails.
pub const MAX_LOSSES: u32 = 10;

/// Why a checkpoint wasn't recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A side may have lost writes: start again from the last checkpoint.
    #[error("{database} was restarted and may have lost writes")]
    Restarted {
        /// The peer's name.
        database: String,
    },
    /// The log on a side isn't the one that was read or written there last: start again from what both logs have in common.
    #[error("{database} has another checkpoint than the last one, or none")]
    Replaced {
        /// The peer's name.
        database: String,
    },
    /// A side didn't do what it was asked for.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl RecordError {
    /// Whether to start again.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Restarted { .. } | Self::Replaced { .. } => true,
            Self::Peer(_) => false,
        }
    }

    /// What [`MAX_LOSSES`] of this in a row mean.
    pub fn again_and_again(&self) -> ReplicateError {
        let (request, expected, found) = match self {
            Self::Replaced { database } => {
                (format!("GET {database}_local"), "the checkpoint that was there last", "checkpoints")
            }
            _ => ("_ensure_full_commit".into(), "an instance_start_time that stays the same", "ones"),
        };
        let found = format!("{MAX_LOSSES} different {found} in a row");
        ReplicateError::from(PeerError::Malformed { request, expected, found })
    }
}

/// Whether a database that has had these two `instance_start_time`s has lost nothing between; `"0"` equals anything.
pub fn same_life(earlier: &str, later: &str) -> bool {
    earlier == later || earlier == "0" || later == "0"
}
