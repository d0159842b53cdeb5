//! Why the store didn't do what it was asked for.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::filter::FilterError;
use crate::document::DocumentError;
use crate::json::JsonError;
use crate::tasks::Panicked;

/// Why the store didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum StoreError {
    #[error("no such database")]
    NoDatabase,
    #[error("the database exists already")]
    AlreadyExists,
    #[error("`{0}` is no database name")]
    IllegalName(String),
    #[error("the database is closing")]
    Closing,
    /// A document's revision went while its text was read.
    #[error("a document was changed or deleted while it was read")]
    TextGone,
    #[error("a database is changed faster than it can be compacted")]
    Overtaken,
    #[error("a stored record is damaged: {0}")]
    Damaged(&'static str),
    #[error("the data directory")]
    Io(#[from] io::Error),
    #[error("the storage engine")]
    Engine(#[source] Box<redb::Error>),
    #[error("the directory of a compacted file")]
    Unnamed(#[source] io::Error),
    #[error("the write failed")]
    WriteFailed(#[source] Arc<StoreError>),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("gzipped data is damaged")]
    BadGzip(#[source] io::Error),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl From<JsonError> for StoreError {
    fn from(error: JsonError) -> Self {
        Self::Document(error.into())
    }
}

impl StoreError {
    /// Whether there was no room on the disk for what was to be written.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::WriteFailed(cause) => cause.is_disk_full(),
            Self::Io(error) => no_room(error),
            Self::Engine(error) => matches!(&**error, redb::Error::Io(error) if no_room(error)),
            _ => false,
        }
    }

    /// Whether the disk has failed under the engine, which then does nothing more with the file until it is opened anew.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Engine(error) if matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo))
    }
}

/// The disk is full, or this user's or this process's part of it.
fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

macro_rules! engine_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Engine(Box::new(error.into()))
            }
        }
    )*};
}

engine_errors!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    SetDurabilityError,
    CompactionError
);
