//! Documents with attachments out of the embedded store and into it, their bytes streaming.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _};

use super::LocalPeer;
use super::refusal::{bad_document, blame, refused_by_store};
use crate::document::{Announced, AttachmentHead, AttachmentPiece, DocId, DocParts, Rev};
use crate::effort::budget::{STREAMED_JSON_BYTES, Share, cost};
use crate::effort::pulse::Pulse;
use crate::peer::documents::{AttachedDoc, Opened, Put};
use crate::peer::error::{Blame, PeerError};
use crate::peer::failure::Why;
use crate::store::{
    AttachmentsAs, Database, DocOptions, DocRecord, Durability, Edit, Leaf, OpenAttachment, Refusal, Upload, Uploaded,
};

impl LocalPeer {
    /// See [`crate::peer::Peer::open_rev`].
    pub async fn open_rev(
        &self,
        id: &DocId,
        rev: &Rev,
        atts_since: &[Rev],
        mut share: Share,
    ) -> Result<Opened, PeerError> {
        let database = self.readable().await?;
        let (asked_id, asked) = (id.clone(), rev.clone());
        let size = database.read(move |snapshot| {
            let Some(record) = snapshot.document(asked_id.as_str())? else { return Ok(0) };
            newest(&record, &asked).map_or(Ok(0), |leaf| Ok(snapshot.stored(&leaf)?.size()))
        });
        let size = size.await?;
        if size > share.max_document() {
            return Err(PeerError::TooLong { request: format!("{}/{id}", self.name), limit: share.max_document() });
        }
        if size > STREAMED_JSON_BYTES {
            share.hold(cost(size), 0).await;
        }
        let (id, rev, atts_since) = (id.clone(), rev.clone(), atts_since.to_vec());
        let opened = database.read(move |snapshot| {
            let Some(record) = snapshot.document(id.as_str())? else { return Ok(None) };
            let Some(leaf) = newest(&record, &rev) else { return Ok(None) };
            let attachments = snapshot.attachments_since(&record, &leaf, &atts_since)?;
            let options = DocOptions {
                revs: true,
                attachments: AttachmentsAs::Follows,
                atts_since: Some(atts_since),
                ..DocOptions::default()
            };
            let mut json = Vec::new();
            snapshot.render(id.as_str(), &record, &leaf, &options, &mut json)?;
            let held = attachments.into_iter().map(|attachment| snapshot.hold(attachment));
            Ok(Some((id, leaf.rev, json, held.collect::<Result<Vec<_>, _>>()?)))
        });
        let Some((id, rev, json, attachments)) = opened.await? else { return Ok(Opened::Missing) };
        let pulse = self.pulse.clone();
        let parts = stream::iter(attachments)
            .flat_map(move |attachment| attachment_pieces(database.clone(), attachment, pulse.clone()));
        Ok(Opened::Doc(AttachedDoc { id, rev, json: share.around(json), parts: parts.boxed() }))
    }

    /// See [`crate::peer::Peer::put_doc`].
    pub async fn put_doc(&self, doc: AttachedDoc) -> Result<Put, PeerError> {
        let AttachedDoc { id, json, parts, .. } = doc;
        let database = self.database().await?;
        let checked = DocParts::parse(&json).and_then(|document| Ok((Announced::all(document.attachments)?, document)));
        let (announced, document) = match checked {
            Ok(checked) => checked,
            Err(error) => return Ok(Put::Refused(bad_document(&error))),
        };
        let uploads = match take_uploads(&database, &announced, parts).await? {
            Ok(uploads) => uploads,
            Err(name) => {
                let reason = format!("the bytes of attachment `{name}` don't have the digest that the document names");
                return Ok(Put::Refused(Why::new("content_md5_mismatch", reason)));
            }
        };
        let edit = match Edit::new(&document, id.clone(), true, uploads) {
            Ok(edit) => edit,
            Err(error) => return Ok(Put::Refused(bad_document(&error))),
        };
        match database.write(vec![edit], &self.caller, Durability::Unsynced).await?.pop() {
            Some(Err(refusal @ Refusal::MissingStub { .. })) => {
                Err(PeerError::MissingStub { database: self.name.to_string(), reason: refusal.to_string() })
            }
            Some(Err(refusal)) => match blame(&refusal) {
                Blame::Document => Ok(Put::Refused(refused_by_store(&refusal))),
                blame => {
                    let request = format!("{}/{id}", self.name);
                    Err(PeerError::Answered { request, status: None, why: refused_by_store(&refusal), blame })
                }
            },
            Some(Ok(_)) | None => Ok(Put::Written),
        }
    }
}

/// The leaf that is the revision, or the first of those that it became (`latest=true`).
pub(super) fn newest(record: &DocRecord, rev: &Rev) -> Option<Leaf> {
    record.tree.leaf(rev).or_else(|| record.tree.latest(rev).into_iter().next())
}

/// An attachment's head and bytes, read as they are asked for.
fn attachment_pieces(
    database: Arc<Database>,
    held: OpenAttachment,
    pulse: Pulse,
) -> impl stream::Stream<Item = Result<AttachmentPiece, PeerError>> {
    let head = held.attachment().head();
    let data = stream::try_unfold(0, move |offset| {
        let (database, held, pulse) = (database.clone(), held.clone(), pulse.clone());
        async move {
            let piece = database.attachment_piece(&held, offset).await?;
            pulse.moved(piece.len());
            let end = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then_some((AttachmentPiece::Data(piece), end)))
        }
    });
    stream::once(async { Ok(AttachmentPiece::Head(head)) }).chain(data)
}

/// Stores the attachments that follow a document; `Err` is the name of one whose bytes aren't what was announced.
async fn take_uploads(
    database: &Database,
    announced: &[Announced],
    mut parts: stream::BoxStream<'static, Result<AttachmentPiece, PeerError>>,
) -> Result<Result<Vec<(String, Uploaded)>, String>, PeerError> {
    let mut uploads = Vec::with_capacity(announced.len());
    let mut current: Option<(AttachmentHead, Upload)> = None;
    loop {
        let piece = parts.next().await.transpose()?;
        if let Some(AttachmentPiece::Data(data)) = piece {
            if let Some((_, upload)) = &mut current {
                upload.push(data).await?;
            }
            continue;
        }
        if let Some((head, upload)) = current.take() {
            let (uploaded, digest) = upload.finish().await?;
            let promised = announced.iter().find(|announced| announced.name == head.name);
            if promised.and_then(|announced| announced.digest).is_some_and(|promised| promised != digest) {
                return Ok(Err(head.name));
            }
            uploads.push((head.name, uploaded));
        }
        match piece {
            Some(AttachmentPiece::Head(head)) => {
                let upload = database.upload(&head.content_type, head.gzip);
                current = Some((head, upload));
            }
            Some(AttachmentPiece::Data(_)) | None => return Ok(Ok(uploads)),
        }
    }
}
