//! An edit with all that takes time done before it reaches the writer.
//!
//! Inline attachments are packed and a new edit's body is read here, where nobody waits for it.

use bytes::Bytes;

use super::StoreError;
use super::attachments::{self, Stored};
use super::edit::{AttachmentData, Edit, EditKind};
use super::replaced::Old;
use crate::document::{Digest, DocId};
use crate::term::Shape;

/// An edit that is ready for its transaction.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its place in its call.
    pub(super) place: usize,
    pub(super) id: DocId,
    pub(super) kind: EditKind,
    pub(super) deleted: bool,
    pub(super) body: Vec<u8>,
    /// The shape of the body, which the revision id of a new edit needs.
    pub(super) shape: Option<Shape>,
    pub(super) attachments: Vec<PreparedAttachment>,
    /// By validations, if it was.
    pub(super) judged: Option<Judged>,
}

/// What an edit was judged under.
#[derive(Debug)]
pub(super) struct Judged {
    /// How often what judges writes had been changed.
    pub(super) generation: u64,
    /// What it replaces; `None` if that doesn't matter.
    pub(super) old: Option<Old>,
    /// Whether it is a branch beside a document that lives.
    pub(super) is_branch: bool,
}

#[derive(Debug)]
pub(super) struct PreparedAttachment {
    pub(super) name: String,
    pub(super) revpos: Option<u64>,
    pub(super) data: PreparedData,
}

#[derive(Debug)]
pub(super) enum PreparedData {
    Packed { content_type: String, data: Bytes, stored: Stored },
    Stub { digest: Option<Digest> },
    Copied(attachments::Attachment),
    Uploaded { content_type: String, upload: attachments::Uploaded },
}

impl Prepared {
    /// Prepares an edit, which may take long.
    pub(super) fn new((place, edit): (usize, Edit)) -> Result<Self, StoreError> {
        let attachments = edit.attachments.into_iter().map(|attachment| {
            let data = match attachment.data {
                AttachmentData::Inline { content_type, data, gzip } => {
                    let (data, stored) = attachments::pack(&content_type, data, gzip)?;
                    PreparedData::Packed { content_type, data, stored }
                }
                AttachmentData::Stub { digest } => PreparedData::Stub { digest },
                AttachmentData::Copied(attachment) => PreparedData::Copied(attachment),
                AttachmentData::Uploaded { content_type, upload } => PreparedData::Uploaded { content_type, upload },
            };
            Ok(PreparedAttachment { name: attachment.name, revpos: attachment.revpos, data })
        });
        Ok(Self {
            place,
            judged: None,
            shape: matches!(edit.kind, EditKind::New { .. }).then(|| Shape::of(&edit.body)),
            attachments: attachments.collect::<Result<_, StoreError>>()?,
            id: edit.id,
            kind: edit.kind,
            deleted: edit.deleted,
            body: edit.body,
        })
    }
}
