//! A transaction's attachments: where their bytes are, who refers to them, which may go.

use redb::ReadableTable as _;

use super::Transaction;
use crate::document::{DocId, Revisions};
use crate::store::StoreError;
use crate::store::attachments::{Attachment, CHUNK_BYTES, Stored};
use crate::store::keys::{BlobRef, Body};
use crate::store::prepared::{PreparedAttachment, PreparedData};
use crate::store::revtree::RevTree;
use crate::store::stubs;
use crate::store::work::Refusal;

impl Transaction<'_> {
    /// Finds out where each attachment's bytes are, without changing anything.
    #[expect(clippy::type_complexity, reason = "an answer and a refusal")]
    pub(super) fn resolve(
        &mut self,
        id: &DocId,
        tree: &RevTree,
        ancestors: Option<&Revisions>,
        generation: u64,
        attachments: Vec<PreparedAttachment>,
    ) -> Result<Result<(Vec<Attachment>, Vec<PreparedData>), Refusal>, StoreError> {
        if attachments.is_empty() {
            return Ok(Ok(Default::default()));
        }
        let mut resolved = Vec::with_capacity(attachments.len());
        let mut data = Vec::with_capacity(attachments.len());
        for attachment in attachments {
            let make = |content_type: &str, stored: &Stored| Attachment {
                name: attachment.name.clone(),
                content_type: content_type.to_owned(),
                revpos: attachment.revpos.unwrap_or(generation),
                digest: stored.digest,
                length: stored.length,
                stored_length: stored.stored_length,
                encoding: stored.encoding,
                tells_stored: stored.tells_stored,
            };
            let missing = || Refusal::MissingStub { id: id.as_str().into(), name: attachment.name.clone() };
            resolved.push(match &attachment.data {
                PreparedData::Copied(other) if self.att_refs.get(other.digest.0)?.is_none() => {
                    return Ok(Err(missing()));
                }
                PreparedData::Copied(other) => Attachment {
                    name: attachment.name.clone(),
                    revpos: attachment.revpos.unwrap_or(generation),
                    ..other.clone()
                },
                PreparedData::Packed { content_type, stored, .. } => make(content_type, stored),
                PreparedData::Uploaded { content_type, upload } => make(content_type, &upload.stored),
                PreparedData::Stub { digest } => {
                    match stubs::find(tree, ancestors, &attachment, *digest, |body| self.attachments(body))? {
                        Some(stored) => stored,
                        None => return Ok(Err(missing())),
                    }
                }
            });
            data.push(attachment.data);
        }
        Ok(Ok((resolved, data)))
    }

    fn attachments(&self, body: u64) -> Result<Vec<Attachment>, StoreError> {
        match self.bodies.get(body)? {
            Some(stored) => Body::decode(stored.value())?.attachments(),
            None => Ok(Vec::new()),
        }
    }

    /// Books one more reference to an attachment's bytes, and the bytes themselves where they are new.
    pub(super) fn refer(&mut self, attachment: &Attachment, data: PreparedData) -> Result<(), StoreError> {
        let known = self.att_refs.get(attachment.digest.0)?.map(|stored| BlobRef::decode(stored.value()));
        let booked = match (known, data) {
            (Some(known), data) => {
                if let PreparedData::Uploaded { upload, .. } = data {
                    self.discard(upload.blob)?;
                    upload.orphan.adopt();
                }
                BlobRef { references: known.references + 1, ..known }
            }
            (None, PreparedData::Packed { data, .. }) => {
                let blob = rand::random();
                self.put_chunks(blob, 0, &data)?;
                self.info.active_size += attachment.stored_length;
                BlobRef { blob, references: 1 }
            }
            (None, PreparedData::Uploaded { upload, .. }) => {
                let blob = upload.blob;
                self.uploads.remove(blob)?;
                upload.orphan.adopt();
                self.info.active_size += attachment.stored_length;
                BlobRef { blob, references: 1 }
            }
            (None, PreparedData::Stub { .. } | PreparedData::Copied(_)) => {
                return Err(StoreError::Damaged("an attachment has no bytes"));
            }
        };
        self.att_refs.insert(attachment.digest.0, booked.encode())?;
        self.note_digest(attachment.digest.0);
        Ok(())
    }

    /// Stores a blob's bytes from its chunk `first` on; all but the last of them are whole chunks.
    pub(in crate::store) fn put_chunks(&mut self, blob: u64, first: u32, data: &[u8]) -> Result<(), StoreError> {
        for (chunk, number) in data.chunks(CHUNK_BYTES).zip(first..) {
            self.atts.insert((blob, number), chunk)?;
        }
        self.note(|changed| _ = changed.blobs.insert(blob));
        Ok(())
    }

    /// Notes that no document refers to a blob.
    pub(in crate::store) fn note_upload(&mut self, blob: u64) -> Result<(), StoreError> {
        self.uploads.insert(blob, ())?;
        Ok(())
    }

    /// Drops a blob's bytes.
    pub(in crate::store) fn discard(&mut self, blob: u64) -> Result<(), StoreError> {
        self.atts.retain_in((blob, 0)..=(blob, u32::MAX), |_, _| false)?;
        self.note(|changed| _ = changed.blobs.insert(blob));
        self.uploads.remove(blob)?;
        Ok(())
    }

    /// Drops the blobs that no document refers to.
    pub(in crate::store) fn discard_uploads(&mut self) -> Result<(), StoreError> {
        let blobs: Vec<u64> = self.uploads.iter()?.map(|row| Ok(row?.0.value())).collect::<Result<_, StoreError>>()?;
        blobs.into_iter().try_for_each(|blob| self.discard(blob))
    }
}
