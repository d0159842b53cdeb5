//! A document that someone sends, made ready for the store.
//!
//! Takes [`DocParts`] and decides what CouchDB's `couch_doc:from_json_obj/1` and `couch_att:from_json/2` decide: which
//! revision the document has or replaces, and where each attachment's bytes are. It doesn't look into the store;
//! whether a parent is a leaf and a stub's attachment is there, the write finds out.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::attachments::{Attachment, Uploaded};
use crate::document::{Digest, DocId, DocParts, DocumentError, Revisions, each_described};

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Attachments of a document at most: each takes many times its text, which may be short.
const MAX_ATTACHMENTS: usize = 100_000;

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
        /// The leaf that is replaced, with what its author knows of its ancestors; `None` for a document that is new, or
        /// deleted.
        parent: Option<Revisions>,
    },
    /// It comes with its history (`new_edits=false`); nothing conflicts, a known revision changes nothing.
    Replicated {
        /// Revision and ancestors.
        path: Revisions,
    },
}

/// An attachment of an edit.
#[derive(Debug)]
pub struct NewAttachment {
    /// File name.
    pub name: String,
    /// What a replicated document says of its data, and what a stub must agree with. `None` for the data of a new edit,
    /// whatever its author wrote: it is of the generation that the edit makes.
    pub revpos: Option<u64>,
    /// Where its bytes are.
    pub data: AttachmentData,
}

/// Where the bytes of an edit's attachment are.
#[derive(Debug)]
pub enum AttachmentData {
    /// Here.
    Inline {
        /// Media type.
        content_type: String,
        /// The bytes, base64 already decoded.
        data: Vec<u8>,
        /// Whether `data` is gzipped (`"encoding":"gzip"`).
        gzip: bool,
    },
    /// In the revision's nearest stored ancestor, under the same name.
    Stub {
        /// What the stub claims.
        digest: Option<Digest>,
    },
    /// In another document, which has this attachment. Where it has gone since, that is a missing stub.
    Copied(Attachment),
    /// Uploaded before.
    Uploaded {
        /// Media type.
        content_type: String,
        /// The bytes.
        upload: Uploaded,
    },
}

impl Edit {
    /// Makes an edit of a document's parts. `id` wins over the document's own `_id`.
    ///
    /// `uploaded` hands over the bytes of the attachments that follow, by name; see [`Announced`](crate::document::Announced).
    pub fn new(
        parts: &DocParts<'_>,
        id: DocId,
        replicated: bool,
        mut uploaded: Vec<(String, Uploaded)>,
    ) -> Result<Self, DocumentError> {
        if parts.odd {
            return Err(DocumentError::InvalidJson);
        }
        let kind = match replicated {
            true => EditKind::Replicated { path: parts.path().ok_or(DocumentError::RevMissing)? },
            false => EditKind::New { parent: parts.path() },
        };
        let mut attachments = Vec::new();
        each_described(parts.attachments.unwrap_or(b"{}"), |name, described, _| {
            let bad = || DocumentError::BadAttachment(name.to_owned());
            if attachments.len() == MAX_ATTACHMENTS {
                return Err(bad());
            }
            if !replicated && name.starts_with('_') {
                return Err(DocumentError::BadAttachmentName(name.to_owned()));
            }
            let data = if let Some(data) = &described.data {
                let data = decode_base64(data).ok_or_else(bad)?;
                AttachmentData::Inline { content_type: described.content_type(), data, gzip: described.is_gzipped() }
            } else if described.follows {
                let place = uploaded.iter().position(|(uploaded, _)| uploaded == name).ok_or_else(bad)?;
                let upload = uploaded.swap_remove(place).1;
                let tells_stored = described.is_gzipped()
                    && described.length.is_some()
                    && described.length == described.encoded_length;
                let upload = if tells_stored { upload.telling_stored() } else { upload };
                AttachmentData::Uploaded { content_type: described.content_type(), upload }
            } else if described.stub {
                AttachmentData::Stub { digest: described.digest() }
            } else {
                return Err(bad());
            };
            let kept = replicated || matches!(data, AttachmentData::Stub { .. });
            attachments.push(NewAttachment { name: name.to_owned(), revpos: described.revpos.filter(|_| kept), data });
            Ok(())
        })?;
        Ok(Self { id, kind, deleted: parts.deleted, body: parts.body(), attachments })
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        let dense: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        return BASE64.decode(dense).ok();
    }
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(json: &str, replicated: bool) -> Result<Edit, DocumentError> {
        Edit::new(&DocParts::parse(json.as_bytes())?, "a".into(), replicated, Vec::new())
    }

    #[test]
    fn a_replicated_document_brings_its_path() {
        let json = r#"{"_id":"a","_rev":"2-b","_revisions":{"start":2,"ids":["b","a"]},"n":1.0}"#;
        let edit = edit(json, true).unwrap();
        let path = Revisions { start: 2, ids: vec!["b".into(), "a".into()] };
        assert_eq!(edit.kind, EditKind::Replicated { path });
        assert_eq!(edit.body, br#"{"n":1.0}"#);
    }

    #[test]
    fn a_replicated_document_without_a_revision_is_refused() {
        assert_eq!(edit("{}", true).unwrap_err(), DocumentError::RevMissing);
    }

    #[test]
    fn data_of_a_new_edit_has_no_revpos_of_its_own() {
        let json = r#"{"_rev":"1-a","_attachments":{"a":{"data":"","revpos":1},"b":{"stub":true,"revpos":1}}}"#;
        let revpos =
            |replicated| edit(json, replicated).unwrap().attachments.iter().map(|a| a.revpos).collect::<Vec<_>>();
        assert_eq!(revpos(false), [None, Some(1)]);
        assert_eq!(revpos(true), [Some(1), Some(1)]);
    }

    #[test]
    fn attachments_are_read_in_order_and_bad_ones_are_named() {
        let json = r#"{"_attachments":{"b":{"data":"aGVsbG8="},"a":{"stub":true,"revpos":1}}}"#;
        let edit_with = edit(json, false).unwrap();
        let names: Vec<_> = edit_with.attachments.iter().map(|attachment| attachment.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        for bad in [r#"{"data":"*"}"#, "{}", "1", r#"{"follows":true}"#] {
            let json = format!(r#"{{"_attachments":{{"x":{bad}}}}}"#);
            assert_eq!(edit(&json, false).unwrap_err(), DocumentError::BadAttachment("x".into()), "{bad}");
        }
        let many =
            |count: usize| format!(r#"{{"_attachments":{{{}}}}}"#, vec![r#""x":{"stub":true}"#; count].join(","));
        assert_eq!(edit(&many(MAX_ATTACHMENTS), true).unwrap_err(), DocumentError::RevMissing);
        assert_eq!(edit(&many(MAX_ATTACHMENTS), false).unwrap().attachments.len(), MAX_ATTACHMENTS);
        let error = edit(&many(MAX_ATTACHMENTS + 1), false).unwrap_err();
        assert_eq!(error, DocumentError::BadAttachment("x".into()));
        let json = r#"{"_attachments":{"_x":{"data":""}}}"#;
        assert_eq!(edit(json, false).unwrap_err(), DocumentError::BadAttachmentName("_x".into()));
    }
}
