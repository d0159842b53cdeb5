//! A document that didn't get to the target, and why: [`Failure`] is the one word for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::document::{DocId, Rev};

/// A document that didn't get to the target, and why. The rest of its batch did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The document.
    pub id: DocId,
    /// Its revision; `None` if nobody names it.
    pub rev: Option<Rev>,
    /// In whose words.
    #[serde(flatten)]
    pub why: Why,
}

/// What a peer says, in CouchDB's two members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// `forbidden`, `unauthorized`, …; `unavailable` if the source says that it has no such revision, `not_copied` if it was
    /// given up for what no peer has put in words.
    pub error: String,
    /// The peer's words.
    pub reason: String,
}

impl Why {
    /// The source says that it has no such revision.
    pub fn missing() -> Self {
        Self::new("unavailable", "missing")
    }

    /// Whether the source said so.
    pub fn is_missing(&self) -> bool {
        *self == Self::missing()
    }

    /// In these words.
    pub fn new(error: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { error: error.into(), reason: reason.into() }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.reason)
    }
}

impl Failure {
    /// A document may not be held, because it is larger than any may be.
    pub(crate) fn too_large(id: DocId, rev: Option<Rev>, max_document: usize) -> Self {
        let reason = format!("larger than {max_document} bytes, a quarter of the memory budget");
        Self { id, rev, why: Why::new("document_too_large", reason) }
    }
}
