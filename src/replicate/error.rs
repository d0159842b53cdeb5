//! Why a replication wasn't started, or didn't come to its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Denied;
use crate::beside::{AdminError, SessionOver};
use crate::databases::OpenError;
use crate::endpoint::{InvalidEndpoint, SecretRefused};
use crate::json::fields::BadField;
use crate::peer::{Blame, PeerError};
use crate::policy::Forbidden;

/// Why a replication wasn't started, or didn't come to its end. Never with credentials.
///
/// Cheap to clone, because everyone who waits for a replication gets its error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplicateError {
    /// A field of the request is wrong; says which.
    #[error("{0}")]
    BadRequest(String),
    /// An endpoint of the request can't be one.
    #[error("{0}")]
    InvalidReplication(String),
    /// `source` or `target` isn't there.
    #[error("`{0}` is missing")]
    MissingDatabase(&'static str),
    /// The database isn't there: its URL, ending in `/`, without credentials.
    #[error("could not open {0}")]
    DatabaseNotFound(String),
    /// Nobody, or nobody who may, asked.
    #[error("{0}")]
    Unauthorized(String),
    /// The settings forbid a connection.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A peer doesn't take the credentials.
    #[error("{message}")]
    WrongCredentials {
        /// The database's URL as above.
        database: String,
        /// What it said.
        message: String,
    },
    /// What is to be cancelled doesn't run.
    #[error("{0}")]
    NotFound(String),
    /// The host of a database stands for no address: the database's URL as above.
    #[error("could not resolve {0}")]
    Unresolved(String),
    /// A peer failed.
    #[error("the replication failed")]
    Peer(#[source] Arc<PeerError>),
    /// The CouchDB beside which this server stands, asked by us as its admin.
    #[error(transparent)]
    CouchDb(Arc<AdminError>),
    /// The session of its caller, under which it ran, isn't renewed any more.
    #[error("the replication has ended: {0}")]
    SessionOver(SessionOver),
    /// Somebody has paused the job that would do it.
    #[error("the replication is paused")]
    Paused,
    /// What is to be kept in a document has one, which isn't as asked for, or no longer works: says why.
    #[error("{0}")]
    KeptOtherwise(String),
    /// Nobody would run the document that is to keep it: says why.
    #[error("documents of replications aren't run now, so nothing can be kept: {0}")]
    NotRunNow(&'static str),
    /// It was cancelled.
    #[error("the replication was cancelled")]
    Cancelled,
    /// It ended in a panic, which was logged where it happened.
    #[error("the replication crashed")]
    Crashed,
    /// It stood still: its peers keep within their limits and give next to nothing.
    #[error("the replication stood still for {0:?}")]
    Stalled(Duration),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl From<InvalidEndpoint> for ReplicateError {
    fn from(error: InvalidEndpoint) -> Self {
        match error {
            InvalidEndpoint::Missing(field) => Self::MissingDatabase(field),
            InvalidEndpoint::Url | InvalidEndpoint::Header(_) | InvalidEndpoint::TooLong(_) => {
                Self::InvalidReplication(error.to_string())
            }
            InvalidEndpoint::Name(name) => Self::DatabaseNotFound(name),
            InvalidEndpoint::Field(error) => error.into(),
        }
    }
}

impl From<BadField> for ReplicateError {
    fn from(error: BadField) -> Self {
        Self::BadRequest(error.0)
    }
}

impl From<OpenError> for ReplicateError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoStore(_) => Self::BadRequest(error.to_string()),
            OpenError::TemporaryProof(..) => Self::Unauthorized(error.to_string()),
            OpenError::Denied(denied) => denied.into(),
            OpenError::Secret(refused) => refused.into(),
            OpenError::Peer(error) => error.into(),
        }
    }
}

impl From<Denied> for ReplicateError {
    fn from(denied: Denied) -> Self {
        Self::Unauthorized(denied.to_string())
    }
}

impl From<SecretRefused> for ReplicateError {
    fn from(refused: SecretRefused) -> Self {
        Self::Unauthorized(refused.to_string())
    }
}

impl From<PeerError> for ReplicateError {
    /// What is wrong with a whole database has its own answer to the caller.
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::DatabaseMissing { database } => Self::DatabaseNotFound(database),
            PeerError::Unauthorized { .. } => Self::Unauthorized(error.to_string()),
            PeerError::WrongCredentials { ref database, .. } => {
                Self::WrongCredentials { database: database.clone(), message: error.to_string() }
            }
            PeerError::Unresolved { database } => Self::Unresolved(database),
            PeerError::Forbidden(forbidden) => forbidden.into(),
            other => Self::Peer(Arc::new(other)),
        }
    }
}

/// What ended a life may be met by others too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared<'a> {
    /// The server of this URL is down, or nobody gets through to it.
    Server(&'a str),
    /// The server of this URL refuses the login.
    Login(&'a str),
}

impl ReplicateError {
    /// Whether others will meet the same: a server that isn't there, or that a gateway says isn't there; a refused login.
    pub fn shared(&self) -> Option<Shared<'_>> {
        match self {
            Self::WrongCredentials { database, .. } => Some(Shared::Login(database)),
            Self::Unresolved(database) => Some(Shared::Server(database)),
            Self::Peer(error) => match &**error {
                // `POST http://host/db/_revs_diff`
                PeerError::Unreachable { request, .. }
                | PeerError::Answered {
                    request,
                    status: Some(502..=504),
                    blame: Blame::Passing | Blame::Lasting,
                    ..
                } => request.split(' ').nth(1).map(Shared::Server),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error with its causes, for logs.
    pub fn chain(&self) -> impl fmt::Display {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
