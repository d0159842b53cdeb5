//! A document that someone sends, made ready for the store.

use crate::document::{DocId, DocParts, DocumentError, Rev, Revisions};

use super::attachments::{Digest, Uploaded};

/// One document to write.
#[derive(Debug)]
pub struct Edit {
    /// Whose.
    pub id: DocId,
    /// How its revision comes about.
    pub kind: EditKind,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// The document's own members, a JSON object.
    pub body: Vec<u8>,
    /// All its attachments, in order.
    pub attachments: Vec<NewAttachment>,
}

/// How an edit's revision comes about.
#[derive(Debug, PartialEq, Eq)]
pub enum EditKind {
    /// The store makes it, over this parent (`new_edits=true`); a conflict is refused.
    New {
        /// The leaf that is replaced; `None` for a document that is new, or deleted.
        parent: Option<Rev>,
    },
    /// It comes with its history (`new_edits=false`); nothing conflicts, a known revision changes nothing.
    Replicated {
        /// Revision and ancestors.
        path: Revisions,
    },
}

/// An attachment of an edit.
#[derive(Debug)]
pub enum NewAttachment {
    /// Its bytes came within the document, base64 already decoded.
    Inline {
        /// File name.
        name: String,
        /// Media type.
        content_type: String,
        /// The bytes as they are (`gzip` says how).
        data: Vec<u8>,
        /// Whether `data` is gzipped (`"encoding":"gzip"`).
        gzip: bool,
        /// `revpos` of a replicated document.
        revpos: Option<u64>,
    },
    /// It is there already: in the revision's nearest stored ancestor.
    Stub {
        /// File name.
        name: String,
        /// What the stub claims.
        digest: Option<Digest>,
        /// What the stub claims.
        revpos: Option<u64>,
    },
    /// Its bytes were uploaded before.
    Uploaded {
        /// File name.
        name: String,
        /// Media type.
        content_type: String,
        /// Where the bytes are.
        blob: Uploaded,
        /// `revpos` of a replicated document.
        revpos: Option<u64>,
    },
}

/// An attachment that a document announces with `"follows":true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Whether its bytes come gzipped (`"encoding":"gzip"`).
    pub gzip: bool,
    /// Bytes that come, where the document says so (`encoded_length`, else `length`).
    pub length: Option<u64>,
    /// The digest of the bytes that come, where the document says so.
    pub digest: Option<Digest>,
}

impl Edit {
    /// Makes an edit of a document's parts. `id` (from the path) wins over the document's own `_id`.
    ///
    /// `uploaded` hands over the bytes of attachments that follow, by name; see [`following`].
    pub fn new(
        parts: &DocParts<'_>,
        id: DocId,
        replicated: bool,
        uploaded: Vec<(String, Uploaded)>,
    ) -> Result<Self, DocumentError> {
        let _ = (parts, id, replicated, uploaded);
        todo!()
    }
}

/// The attachments of a document that follow it, in order.
pub fn following(parts: &DocParts<'_>) -> Result<Vec<Following>, DocumentError> {
    let _ = parts;
    todo!()
}
