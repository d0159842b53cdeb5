//! Writes one document with its attachments, which stream through.
//!
//! `PUT {db}/{id}?new_edits=false`: JSON where nothing follows, else `multipart/related` with an exact length, which the
//! document's JSON tells beforehand. The bytes can't be sent twice: what may pass comes out as [`PeerError::Broken`], and
//! the caller fetches the document again. If the source's stream fails, its error is the one that comes out.
//!
//! A cluster with a dead copy stores such a document and never answers. The caller asks what is missing again
//! after that silence; from then on, small attachments travel within the document's JSON, which such a cluster answers.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::answer::Reply;
use super::attachments::{following, let_plain_follow, put_inline};
use super::bulk_docs::{NoRow, first_failure};
use super::call::{Call, Streamed};
use super::exchange::Failed;
use super::plain::Plain;
use super::retry::{self, Trouble, Verdict};
use super::*;
use crate::document::{AttachmentHead, AttachmentPiece};
use crate::effort::guarded::guarded;
use crate::multipart::Framing;

impl RemotePeer {
    /// Writes one document with its attachments.
    pub async fn put_doc(&self, doc: AttachedDoc) -> Result<Put, PeerError> {
        if let Some(why) = path::unnameable(&doc.id) {
            return Ok(Put::Refused(why));
        }
        match self.write(doc).await? {
            Put::Forbidden(why) => self.let_in_to_write().await.map(|()| Put::Forbidden(why)),
            put => Ok(put),
        }
    }

    /// What a document's answer says of it.
    fn told(&self, reply: Reply) -> Result<Put, PeerError> {
        match reply.meaning() {
            // A portal's or a proxy's page is no proof that the document was written.
            // express-pouchdb answers as if it were `_bulk_docs`: what wasn't written, so `[]` is a success.
            Meaning::Done if reply.body.trim_ascii_start().starts_with(b"[") => {
                match first_failure(&reply, EXPECTED)? {
                    None => Ok(Put::Written),
                    Some(Ok(failure)) => said(&reply, failure.why),
                    Some(Err(NoRow)) => Err(reply.into_error()),
                }
            }
            Meaning::Done => reply.json::<Written>(EXPECTED).map(|_| Put::Written),
            Meaning::NotAllowed => Ok(Put::Forbidden(reply.why())),
            Meaning::MissingStub => {
                Err(PeerError::MissingStub { database: self.inner.name.clone(), reason: reply.why().reason })
            }
            Meaning::NoDatabase => Err(PeerError::DatabaseMissing { database: self.inner.name.clone() }),
            Meaning::NotThere
            | Meaning::NotTaken
            | Meaning::NotSupported
            | Meaning::Conflict
            | Meaning::TooLarge
            | Meaning::Failed(_) => match reply.said() {
                Some(why) => said(&reply, why),
                None => Err(reply.into_error()),
            },
        }
    }

    async fn write(&self, doc: AttachedDoc) -> Result<Put, PeerError> {
        let doc = self.readable(doc)?;
        let path = format!("{}?new_edits=false", path::document(&doc.id));
        let heads = following(&doc.json)?;
        if heads.is_empty() {
            return self.ask(&Call::put(Operation::PutDoc, path, doc.json), |reply| self.told(reply)).await;
        }
        if self.inner.ignores_multipart.load(Ordering::Relaxed) {
            let plain = let_plain_follow(&doc.json)?;
            let heads = following(&plain)?;
            if length_of(&heads) <= SMALL_BYTES {
                let json = inline(&plain, Plain::new(doc.parts, heads).into_stream()).await?;
                return self.ask(&Call::put(Operation::PutDoc, path, json), |reply| self.told(reply)).await;
            }
        }
        let call = Call::new(Operation::StreamDoc, Method::PUT, path);
        let mut framing = Framing::new();
        let content_type = framing.content_type("related");
        let length = framing.related_length(doc.json.len(), &heads);
        let opening = [Ok(framing.part("application/json")), Ok(doc.json)];
        let framed = Framed { parts: doc.parts, framing, heads, left: 0, closed: false };
        let framed =
            stream::try_unfold(
                framed,
                |mut framed| async move { Ok(framed.next().await?.map(|piece| (piece, framed))) },
            );
        // Guards the error of the source's stream until the request that it ended has failed.
        let source_error = Arc::new(Mutex::new(None));
        let pieces = noting_errors(stream::iter(opening).chain(framed), source_error.clone());
        let answered = self.send_streamed(&call, Streamed { content_type, length, pieces }).await;
        if let Some(error) = source_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            return Err(error);
        }
        let answer = answered.map_err(|failed| self.again(&call, failed))?;
        self.told(answer.whole().await?.uncut()?)
    }

    /// The document as this peer understands it: only CouchDB and couchrep are known to take gzipped parts.
    fn readable(&self, doc: AttachedDoc) -> Result<AttachedDoc, PeerError> {
        let gzipped = following(&doc.json)?.iter().any(|head| head.gzip);
        if self.inner.takes_gzip.load(Ordering::Relaxed) || !gzipped {
            return Ok(doc);
        }
        // The text before keeps its share of the budget.
        let json = guarded(let_plain_follow(&doc.json)?, doc.json);
        let plain = Plain::new(doc.parts, following(&json)?);
        Ok(AttachedDoc { json, parts: plain.into_stream(), ..doc })
    }

    /// What may pass is the caller's to repeat, since only it can fetch the document again.
    fn again(&self, call: &Call, failed: Failed) -> PeerError {
        match (failed.trouble, failed.error) {
            (Trouble::Unresolved, _) => PeerError::Unresolved { database: self.inner.name.clone() },
            (Trouble::Silent, PeerError::Unreachable { reason, .. }) => {
                self.inner.ignores_multipart.store(true, Ordering::Relaxed);
                PeerError::Broken { request: self.request_name(call), reason }
            }
            (trouble, PeerError::Unreachable { reason, .. })
                if retry::verdict(Operation::PutDoc, trouble) != Verdict::Stop =>
            {
                PeerError::Broken { request: self.request_name(call), reason }
            }
            (_, error) => error,
        }
    }
}

fn length_of(heads: &[AttachmentHead]) -> u64 {
    heads.iter().fold(0, |sum, head| head.length.saturating_add(sum))
}

/// A document with its attachments in it, decoded, as base64; [`SMALL_BYTES`] of them at most, whatever it announces.
async fn inline(
    plain: &[u8],
    mut parts: BoxStream<'static, Result<AttachmentPiece, PeerError>>,
) -> Result<Vec<u8>, PeerError> {
    let mut data: HashMap<String, Vec<u8>> = HashMap::new();
    let (mut name, mut left) = (String::new(), SMALL_BYTES);
    while let Some(piece) = parts.try_next().await? {
        match piece {
            AttachmentPiece::Head(head) => name = head.name,
            AttachmentPiece::Data(bytes) => {
                let rest = left.checked_sub(bytes.len() as u64);
                left = rest.ok_or_else(|| DocumentError::BadAttachment(name.clone()))?;
                data.entry(name.clone()).or_default().extend_from_slice(&bytes);
            }
        }
    }
    Ok(put_inline(plain, &data)?)
}

/// What the words about a document are worth.
fn said(reply: &Reply, why: Why) -> Result<Put, PeerError> {
    match judgement::of_written(&why) {
        _ if judgement::is_about_rights(&why) => Ok(Put::Forbidden(why)),
        Blame::Document => Ok(Put::Refused(why)),
        blame => Err(PeerError::Answered { request: reply.request().to_owned(), status: None, why, blame }),
    }
}

const EXPECTED: &str = "a written document's `rev`";

/// How CouchDB tells that a document was written: `{"ok":true,"id":…,"rev":…}`.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "rev")]
    _rev: String,
}

/// Attachments as the parts of a body, checked against what the document announces.
struct Framed {
    parts: BoxStream<'static, Result<AttachmentPiece, PeerError>>,
    framing: Framing,
    /// Announced and not begun.
    heads: Vec<AttachmentHead>,
    /// Bytes to come of the attachment in hand.
    left: u64,
    closed: bool,
}

impl Framed {
    async fn next(&mut self) -> Result<Option<Bytes>, PeerError> {
        if self.closed {
            return Ok(None);
        }
        let unannounced = |name: &str| PeerError::Document(DocumentError::BadAttachment(name.to_owned()));
        match self.parts.try_next().await? {
            Some(AttachmentPiece::Head(head)) => {
                let place = self.heads.iter().position(|announced| {
                    (&announced.name, announced.length, announced.gzip) == (&head.name, head.length, head.gzip)
                });
                let place = place.filter(|_| self.left == 0).ok_or_else(|| unannounced(&head.name))?;
                let announced = self.heads.remove(place);
                self.left = announced.length;
                Ok(Some(self.framing.attachment(&announced)))
            }
            Some(AttachmentPiece::Data(data)) => {
                let left = self.left.checked_sub(data.len() as u64);
                self.left = left.ok_or_else(|| unannounced("too long"))?;
                Ok(Some(data))
            }
            None if self.left == 0 && self.heads.is_empty() => {
                self.closed = true;
                Ok(Some(self.framing.close()))
            }
            None => Err(unannounced("too short")),
        }
    }
}

/// Keeps a stream's error where the caller finds it, and gives the HTTP client one of its own to stop at.
fn noting_errors(
    pieces: impl Stream<Item = Result<Bytes, PeerError>> + Send + 'static,
    noted: Arc<Mutex<Option<PeerError>>>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
    pieces.map_err(move |error| {
        *noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
        io::Error::other("the document's own stream failed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gzip bomb from a source was decoded into memory, outside of every budget.
    #[tokio::test]
    async fn attachments_that_are_larger_than_they_say_are_not_gathered() {
        let head = AttachmentHead { name: "a".into(), content_type: "a/b".into(), length: 1, gzip: false };
        let data = std::iter::repeat_with(|| Ok(AttachmentPiece::Data(Bytes::from(vec![0; 64 << 10]))));
        let pieces = std::iter::once(Ok(AttachmentPiece::Head(head))).chain(data.take(1000));
        let gathered = inline(b"{}", stream::iter(pieces).boxed()).await;
        assert!(matches!(gathered, Err(PeerError::Document(_))));
    }

    #[test]
    fn announced_lengths_do_not_wrap() {
        let head = |length| AttachmentHead { name: "a".into(), content_type: "a/b".into(), length, gzip: true };
        assert_eq!(length_of(&[head(1 << 63), head(1 << 63)]), u64::MAX);
    }
}
