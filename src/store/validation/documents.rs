//! The two documents that a validation is asked about, as CouchDB gives them (`couch_query_servers:validate_doc_update/6`).
//!
//! The new one shows the revision that its author names, its parent's if the edit makes one, with `_revisions`; nothing
//! of it if none is named. Attachments that come with it are stubs without a digest, of `revpos` 0 if none is known.

use std::io::Write as _;

use crate::document::Revisions;
use crate::json::push_string;
use crate::store::attachments::Attachment;
use crate::store::edit::EditKind;
use crate::store::prepared::{Prepared, PreparedAttachment, PreparedData};
use crate::store::read::render::DocOptions;
use crate::store::read::{DocRecord, Snapshot};
use crate::store::replaced::{Old, new_edit_parent};
use crate::store::revtree::RevTree;
use crate::store::work::Refusal;
use crate::store::{StoreError, stubs};

/// What is stored of the document that an edit is about.
pub(super) struct Documents {
    record: Option<DocRecord>,
    /// What the edit replaces.
    pub(super) old: Old,
}

impl Documents {
    pub(super) fn find(snapshot: &Snapshot, edit: &Prepared) -> Result<Result<Self, Refusal>, StoreError> {
        let record = snapshot.document(edit.id.as_str())?;
        let none = RevTree::default();
        let tree = record.as_ref().map_or(&none, |record| &record.tree);
        Ok(Old::find(tree, &edit.kind, edit.deleted).map(|old| Self { record, old }))
    }

    /// See [`Old::is_branch`].
    pub(super) fn is_branch(&self) -> bool {
        self.record.as_ref().is_some_and(|record| self.old.is_branch(&record.tree))
    }

    /// Appends `[newDoc,oldDoc]`, or tells why there can be no such edit.
    pub(super) fn write(
        &self,
        snapshot: &Snapshot,
        edit: &Prepared,
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        out.push(b'[');
        if let Err(refusal) = self.write_new(snapshot, edit, out)? {
            return Ok(Err(refusal));
        }
        out.push(b',');
        match (&self.old, &self.record) {
            (Old::Leaf(leaf), Some(record)) => {
                let options = DocOptions { revs: true, ..DocOptions::default() };
                snapshot.render(edit.id.as_str(), record, leaf, &options, out)?;
            }
            _ => out.extend_from_slice(b"null"),
        }
        out.push(b']');
        Ok(Ok(()))
    }

    fn write_new(
        &self,
        snapshot: &Snapshot,
        edit: &Prepared,
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let path = match &edit.kind {
            EditKind::New { parent } => parent.as_ref(),
            EditKind::Replicated { path } => Some(path),
        };
        out.reserve(edit.body.len() + edit.id.as_str().len() + 160);
        out.extend_from_slice(b"{\"_id\":");
        push_string(out, edit.id.as_str());
        if let Some(path) = path {
            out.extend_from_slice(b",\"_rev\":");
            push_string(out, &path.newest().to_string());
        }
        let fields = &edit.body[1..edit.body.len() - 1];
        if !fields.is_empty() {
            out.push(b',');
            out.extend_from_slice(fields);
        }
        if edit.deleted {
            out.extend_from_slice(b",\"_deleted\":true");
        }
        if let Some(path) = path {
            write_revisions(path, out)?;
        }
        if !edit.attachments.is_empty() {
            out.extend_from_slice(b",\"_attachments\":{");
            for (index, attachment) in edit.attachments.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if let Err(refusal) = self.write_attachment(snapshot, edit, attachment, out)? {
                    return Ok(Err(refusal));
                }
            }
            out.push(b'}');
        }
        out.push(b'}');
        Ok(Ok(()))
    }

    fn write_attachment(
        &self,
        snapshot: &Snapshot,
        edit: &Prepared,
        attachment: &PreparedAttachment,
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let came = attachment.revpos.unwrap_or(0);
        let (content_type, revpos, digest, length) = match &attachment.data {
            PreparedData::Packed { content_type, stored, .. } => (content_type.clone(), came, None, stored.length),
            PreparedData::Uploaded { content_type, upload } => (content_type.clone(), came, None, upload.stored.length),
            PreparedData::Copied(other) => {
                (other.content_type.clone(), other.revpos, Some(other.digest), other.told_length())
            }
            PreparedData::Stub { .. } => match self.stub(snapshot, edit, attachment)? {
                Some(found) => {
                    let length = found.told_length();
                    (found.content_type, found.revpos, Some(found.digest), length)
                }
                None => {
                    let (id, name) = (edit.id.as_str().into(), attachment.name.clone());
                    return Ok(Err(Refusal::MissingStub { id, name }));
                }
            },
        };
        push_string(out, &attachment.name);
        out.extend_from_slice(b":{\"content_type\":");
        push_string(out, &content_type);
        write!(out, ",\"revpos\":{revpos}")?;
        if let Some(digest) = digest {
            write!(out, ",\"digest\":\"{digest}\"")?;
        }
        write!(out, ",\"length\":{length},\"stub\":true}}")?;
        Ok(Ok(()))
    }

    fn stub(
        &self,
        snapshot: &Snapshot,
        edit: &Prepared,
        stub: &PreparedAttachment,
    ) -> Result<Option<Attachment>, StoreError> {
        let (PreparedData::Stub { digest }, Some(DocRecord { tree, .. })) = (&stub.data, &self.record) else {
            return Ok(None);
        };
        let ancestors = match &edit.kind {
            EditKind::New { parent } => new_edit_parent(tree, parent.as_ref(), edit.deleted).ok().flatten(),
            EditKind::Replicated { path } => Some(path.clone()),
        };
        stubs::find(tree, ancestors.as_ref(), stub, *digest, |body| snapshot.stored_attachments(body))
    }
}

fn write_revisions(path: &Revisions, out: &mut Vec<u8>) -> Result<(), StoreError> {
    write!(out, ",\"_revisions\":{{\"start\":{},\"ids\":[", path.start)?;
    for (index, hash) in path.ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_string(out, &hash.to_string());
    }
    out.extend_from_slice(b"]}");
    Ok(())
}
