//! What is read of documents and written to them, wherever they are.

use serde_json::{Map, Value};

use crate::document::{DocId, Seq};

/// Documents of a feed that are looked at together.
pub const ROWS: usize = 500;
/// Bytes of documents after which no more are looked at together: values take many times their length.
pub const PAGE_BYTES: usize = 1 << 20;

/// A document as it is stored.
#[derive(Debug)]
pub struct Stored {
    /// Bytes of its text, as far as they are known.
    pub bytes: usize,
    /// Its members, `_id` and `_rev` among them; `None`: no values are made of it, since it is too large or nested too deeply.
    pub document: Option<Map<String, Value>>,
}

/// A document that isn't written, though the database could be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPut {
    /// Somebody else was there before.
    #[error("Document update conflict.")]
    Conflict,
    /// In the database's words: a validation, or someone who may not.
    #[error("{0}")]
    Refused(String),
}

/// How far a database was read.
#[derive(Debug, Default)]
pub struct ReadPlace {
    /// The last row that was read.
    pub since: Option<Seq>,
    /// What was purged until then.
    pub purge_seq: u64,
}

/// Documents that were written after a place.
#[derive(Default)]
pub struct ReadPage {
    /// In the order of the feed; `None`: deleted, or no replication.
    pub rows: Vec<(DocId, Option<Stored>)>,
    /// There may be more.
    pub more: bool,
    /// Documents were purged, which stand nowhere in the feed.
    pub purged: bool,
}
