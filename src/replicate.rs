//! A stand-in of the replicator's errors, for this branch only.

use crate::peer::PeerError;

/// Why a replication wasn't done.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a stand-in")]
pub enum ReplicateError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    InvalidReplication(String),
    #[error("Missing replicator database")]
    MissingDatabase,
    #[error("{0}")]
    DatabaseNotFound(String),
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Unresolved(String),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the replication was cancelled")]
    Cancelled,
    #[error("the replication crashed")]
    Crashed,
    #[error("the server is shutting down")]
    ShuttingDown,
}
