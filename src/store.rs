//! The embedded store: databases that are files.

pub mod keys;
pub mod revtree;
pub mod edit;
pub mod database;
pub mod write;
pub mod read;
pub mod changes;
pub mod attachments;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use attachments::{Attachment, Digest, Encoding, Upload, Uploaded};
pub use database::{Database, DatabaseStats};
pub use edit::{Edit, EditKind, NewAttachment};
pub use read::{AttachmentsAs, DocOptions, DocRecord, Snapshot};
pub use revtree::{Leaf, RevTree};
pub use write::{Durability, Refusal};

use crate::config::StoreSettings;
use crate::document::DocumentError;
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
    #[error("an attachment's data is gone")]
    AttachmentGone,
    #[error("a stored record is damaged: {0}")]
    Damaged(&'static str),
    #[error("the data directory")]
    Io(#[from] std::io::Error),
    #[error("the storage engine")]
    Engine(#[source] Box<redb::Error>),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// A database's name, valid by CouchDB's rule: `^[a-z][a-z0-9_$()+/-]*$`, or one of the system databases' names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DbName(Box<str>);

impl DbName {
    /// Checks a name. At most 238 bytes, as in CouchDB.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        let system = matches!(name, "_users" | "_replicator" | "_global_changes");
        let mut bytes = name.bytes();
        let valid = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_$()+/-".contains(&b))
            && name.len() <= 238;
        (system || valid).then(|| Self(name.into())).ok_or_else(|| StoreError::IllegalName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All databases under one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens the store in `dir`, which is made where absent; only one process may have it open.
    pub async fn open(dir: &Path, settings: StoreSettings) -> Result<Self, StoreError> {
        let _ = (dir, settings);
        todo!()
    }

    /// Makes a database. [`StoreError::AlreadyExists`] where it is there.
    pub async fn create(&self, name: &DbName) -> Result<Arc<Database>, StoreError> {
        let _ = name;
        todo!()
    }

    /// Deletes a database and all that is in it. [`StoreError::NoDatabase`] where it isn't there.
    pub async fn delete(&self, name: &DbName) -> Result<(), StoreError> {
        let _ = name;
        todo!()
    }

    /// Opens a database. [`StoreError::NoDatabase`] where it isn't there.
    pub async fn database(&self, name: &DbName) -> Result<Arc<Database>, StoreError> {
        let _ = name;
        todo!()
    }

    /// The names of all databases, sorted.
    pub fn names(&self) -> Vec<DbName> {
        todo!()
    }

    /// Syncs and closes all databases; later operations answer [`StoreError::Closing`].
    pub async fn close(&self) {
        todo!()
    }
}
