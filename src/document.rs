//! The field's words as types: document ids, revisions, sequence numbers, and the few parts of a document that
//! replication looks at.
//!
//! A document's body is never parsed into values here: it stays the bytes that came. [`DocParts`] finds the
//! underscore members of a document and leaves the rest alone; [`DocBatch`] holds documents laid out as the
//! `_bulk_docs` request that will carry them.

mod rev;
mod parts;
mod batch;
mod attachments;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::JsonError;

pub use attachments::{Announced, AttachmentHead, AttachmentPiece, Described, Digest, Encoding, each_described};
pub use batch::{DocBatch, DocSpan};
pub use parts::DocParts;
pub use rev::{MAX_POS, Rev, RevHash, Revisions};

/// A document's id, decoded: `_design/d`, `a/b`, `Zoë`. A copy takes no memory: one id may have thousands of revisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(from = "Box<str>")]
pub struct DocId(Arc<str>);

impl DocId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a URL can name this document: whoever parses one takes `..` for the directory above.
    pub fn has_url(&self) -> bool {
        !matches!(self.as_str(), "." | "..")
    }

    /// Whether this is a design document's id.
    pub fn is_design(&self) -> bool {
        self.0.starts_with("_design/")
    }
}

/// The id of a `_local` document without its prefix; `None` for any other id.
pub fn local_id(id: &str) -> Option<&str> {
    id.strip_prefix("_local/").filter(|id| !id.is_empty())
}

impl<T: Into<Arc<str>>> From<T> for DocId {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Serialize for DocId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes of a seq in logs.
const SHOWN_SEQ_BYTES: usize = 200;
/// Bytes of a seq at most. One of a CouchDB of 256 shards has some 20 KB; each is asked with, logged and kept in
/// checkpoints.
const MAX_SEQ_BYTES: usize = 64 << 10;

/// A place in a source's feed: opaque JSON, a number here, a string there. Never parsed, never compared by order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seq(Arc<str>);

impl Seq {
    /// Before the first change.
    pub fn zero() -> Self {
        Self("0".into())
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Its beginning, for logs.
    pub fn shown(&self) -> &str {
        &self.0[..self.0.floor_char_boundary(SHOWN_SEQ_BYTES)]
    }

    /// The value of a `since` query parameter: a string bare, anything else as JSON.
    pub fn as_query(&self) -> Cow<'_, str> {
        match serde_json::from_str::<Cow<'_, str>>(&self.0) {
            Ok(text) => Cow::Owned(text.into_owned()),
            Err(_) => Cow::Borrowed(&self.0),
        }
    }
}

impl From<u64> for Seq {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Seq {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Seq {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        match raw.get().len() {
            0..=MAX_SEQ_BYTES => Ok(Self(raw.get().into())),
            length => {
                Err(D::Error::custom(format!("a seq of {length} bytes, where {MAX_SEQ_BYTES} are too many for any")))
            }
        }
    }
}

/// What is wrong with a document that someone sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "each message says it")]
pub enum DocumentError {
    #[error("invalid UTF-8 JSON")]
    InvalidJson,
    #[error("Document must be a JSON object")]
    NotAnObject,
    #[error("Document id must be a string")]
    IdNotAString,
    #[error("Document id must not be empty")]
    IdEmpty,
    #[error("Only reserved document ids may start with underscore.")]
    IdReserved,
    #[error("Illegal document id `{0}`")]
    IdIllegal(&'static str),
    #[error("Invalid rev format")]
    BadRev,
    #[error("When `new_edits: false`, the document needs `_rev` or `_revisions` specified")]
    RevMissing,
    #[error("Invalid _revisions member")]
    BadRevisions,
    #[error("Bad special document member: {0}")]
    BadMember(String),
    #[error("Invalid attachment data for {0}")]
    BadAttachment(String),
    #[error("Attachment name '{0}' starts with prohibited character '_'")]
    BadAttachmentName(String),
}

impl From<JsonError> for DocumentError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Invalid => Self::InvalidJson,
            JsonError::NotAnObject => Self::NotAnObject,
        }
    }
}

/// Checks an id that a client chose for a document with revisions: CouchDB's `couch_doc:validate_docid/1`, but for
/// `_local` documents, which have none: they would stand in the feed and be replicated.
pub fn validate_id(id: &str) -> Result<(), DocumentError> {
    match id {
        "" => Err(DocumentError::IdEmpty),
        "_design/" => Err(DocumentError::IdIllegal("_design/")),
        "_local/" => Err(DocumentError::IdIllegal("_local/")),
        _ if id.starts_with('_') && !id.starts_with("_design/") => Err(DocumentError::IdReserved),
        _ => Ok(()),
    }
}

/// Revisions of one document that the target lacks, and what it has that is near them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose revisions.
    pub id: DocId,
    /// The missing ones.
    pub revs: Vec<Rev>,
    /// `possible_ancestors` of the target's answer: attachments that these have needn't travel.
    pub atts_since: Vec<Rev>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seq_stays_the_json_that_it_was() {
        for (json, query) in
            [("5", "5"), (r#""5-g1A\u0041""#, "5-g1AA"), (r#"[88,"g1A"]"#, r#"[88,"g1A"]"#), ("null", "null")]
        {
            let seq: Seq = serde_json::from_str(&format!(" {json} ")).unwrap();
            assert_eq!(seq.as_json(), json);
            assert_eq!(seq.as_query(), query);
            assert_eq!(serde_json::to_string(&seq).unwrap(), json);
        }
        assert_eq!(Seq::zero(), Seq::from(0));
    }

    /// A source's seq of megabytes went into every request, log line and checkpoint.
    #[test]
    fn a_seq_that_is_longer_than_any_is_refused() {
        let seq = |bytes: usize| serde_json::from_str::<Seq>(&format!("\"{}\"", "s".repeat(bytes)));
        assert!(seq(MAX_SEQ_BYTES - 2).is_ok());
        assert!(seq(MAX_SEQ_BYTES - 1).is_err());
    }

    #[test]
    fn ids_with_a_leading_underscore_are_reserved() {
        for id in ["a", "a/b", "Zoë", "_design/d", "-", " "] {
            assert_eq!(validate_id(id), Ok(()));
        }
        for id in ["_", "_x", "_designs/x", "_Design/x", "_local/l"] {
            assert_eq!(validate_id(id), Err(DocumentError::IdReserved));
        }
        assert_eq!(validate_id(""), Err(DocumentError::IdEmpty));
        for id in ["_design/", "_local/"] {
            assert_eq!(validate_id(id), Err(DocumentError::IdIllegal(id)));
        }
    }
}
