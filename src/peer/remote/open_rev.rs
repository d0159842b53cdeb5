//! Fetches one revision with its attachments, which stream.
//!
//! `GET {db}/{id}?revs=true&open_revs=["rev"]&latest=true&atts_since=[…]` with `Accept: multipart/mixed`: one part a
//! revision, which is JSON where nothing follows, else `multipart/related`: the document, then its attachments in the
//! order of its JSON, gzipped where they are stored so. With `latest=true` a revision whose descendants branch is
//! answered with all leaves; the first is taken, the others have changes of their own in the feed.
//!
//! express-pouchdb answers JSON with stubs: they are made to follow, and each is fetched by its name.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap};

use super::answer::{Answer, malformed, too_long};
use super::attachments::{following, let_stubs_follow};
use super::bulk_get::{DocumentAnswer, open_revs_path};
use super::call::Call;
use super::results::{DocumentHead, Item, document_head, not_fetched};
use super::shown::beginning;
use super::*;
use crate::document::{AttachmentHead, AttachmentPiece};
use crate::effort::budget::{STREAMED_JSON_BYTES, cost};
use crate::json::Cursor;
use crate::multipart::{self, MultipartError, Reader};

type Body = BoxStream<'static, Result<Bytes, PeerError>>;
type Parts = BoxStream<'static, Result<AttachmentPiece, PeerError>>;

impl RemotePeer {
    /// Fetches one revision.
    pub async fn open_rev(&self, id: &DocId, rev: &Rev, atts_since: &[Rev], share: Share) -> Result<Opened, PeerError> {
        if let Some(why) = path::unnameable(id) {
            return Ok(Opened::Forbidden(why));
        }
        let mut call = Call::get(Operation::Fetch, open_revs_path(id, std::slice::from_ref(rev), atts_since));
        call.accept = "multipart/mixed";
        let answer = match self.send_about_one(&call).await? {
            DocumentAnswer::Answer(answer) => answer,
            DocumentAnswer::Missing => return Ok(Opened::Missing),
            DocumentAnswer::Forbidden(why) => return Ok(Opened::Forbidden(why)),
        };
        match answer.header(CONTENT_TYPE.as_str()).and_then(multipart::boundary) {
            Some(boundary) => read_mixed(answer, &boundary, share).await,
            None => self.read_json(answer, share).await,
        }
    }

    /// Reads an answer that came as JSON.
    async fn read_json(&self, mut answer: Answer, mut share: Share) -> Result<Opened, PeerError> {
        let request = answer.request().clone();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            gather(&mut text, &chunk, &request, &mut share).await?;
        }
        let wrong = |found: &dyn std::fmt::Display| {
            malformed(&request, "an array of revisions", format!("`{}` ({found})", beginning(&text)))
        };
        let items: &RawValue = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        if !items.get().starts_with('[') {
            return Err(wrong(&"no array"));
        }
        let (mut cursor, mut doc, mut refusal, mut any) = (Cursor::default(), None, None, false);
        while let Some(item) = cursor.element(items.get().as_bytes()).filter(|_| doc.is_none()) {
            let item: Item<'_> = serde_json::from_slice(item).map_err(|error| wrong(&error))?;
            any = true;
            doc = item.ok;
            if refusal.is_none() {
                refusal = item.refusal();
            }
        }
        let Some(text) = doc else {
            return match refusal {
                Some(why) => not_given(&request, why),
                None if any => Ok(Opened::Missing),
                None => Err(malformed(&request, EXPECTED, "no revision".into())),
            };
        };
        let DocumentHead { id, rev, .. } = checked_head(&request, text.get().as_bytes())?;
        let (json, heads) = let_stubs_follow(text.get().as_bytes())?;
        let (peer, doc_id, doc_rev) = (self.clone(), id.clone(), rev.clone());
        let attachments = stream::iter(heads).then(move |head| {
            let (peer, path) = (peer.clone(), format!("{}?rev={doc_rev}", path::attachment(&doc_id, &head.name)));
            async move { peer.attachment(head, path).await }
        });
        Ok(Opened::Doc(AttachedDoc { id, rev, json: share.around(json), parts: attachments.try_flatten().boxed() }))
    }

    /// Fetches one attachment by its name.
    async fn attachment(&self, head: AttachmentHead, path: String) -> Result<Parts, PeerError> {
        let call = Call { accept: "*/*", ..Call::get(Operation::Fetch, path) };
        let answer = self.open(&call).await?;
        let request = answer.request().clone();
        let measure = LengthCheck { left: head.length };
        let data = stream::try_unfold((answer, measure), move |(mut answer, mut measure)| {
            let request = request.clone();
            async move {
                let Some(chunk) = answer.chunk().await? else { return measure.end(&request).map(|()| None) };
                measure.take(&request, &chunk)?;
                Ok(Some((AttachmentPiece::Data(chunk), (answer, measure))))
            }
        });
        Ok(stream::once(async { Ok(AttachmentPiece::Head(head)) }).chain(data).boxed())
    }
}

/// Reads an answer that came as `multipart/mixed`, up to the document's JSON.
async fn read_mixed(answer: Answer, boundary: &str, mut share: Share) -> Result<Opened, PeerError> {
    let request = answer.request().clone();
    let mut mixed = Reader::new(answer.into_stream(), boundary);
    let headers = mixed.next_part().await.map_err(|error| broken(&request, error))?;
    let content_type = headers.as_ref().and_then(content_type);
    let Some(content_type) = content_type else { return Err(malformed(&request, EXPECTED, "no part".into())) };
    let Some(boundary) = multipart::boundary(content_type) else {
        let json = whole_part(&mut mixed, &request, &mut share).await?;
        mixed.skip_rest().await;
        return alone(&request, content_type, json, share);
    };
    let part: Body = mixed
        .into_part()
        .map_err({
            let request = request.clone();
            move |error| broken(&request, error)
        })
        .boxed();
    let mut related = Reader::new(part, &boundary);
    if related.next_part().await.map_err(|error| broken(&request, error))?.is_none() {
        return Err(malformed(&request, EXPECTED, "no document".into()));
    }
    let json = whole_part(&mut related, &request, &mut share).await?;
    let DocumentHead { id, rev, .. } = checked_head(&request, &json)?;
    let heads = following(&json)?;
    let json = share.around(json);
    if heads.is_empty() {
        related.skip_rest().await;
        return Ok(Opened::Doc(AttachedDoc { id, rev, json, parts: stream::empty().boxed() }));
    }
    let parts = RelatedParts { related, heads: heads.into(), measure: None, request };
    let parts =
        stream::try_unfold(parts, |mut parts| async move { Ok(parts.next().await?.map(|piece| (piece, parts))) });
    Ok(Opened::Doc(AttachedDoc { id, rev, json, parts: parts.boxed() }))
}

const EXPECTED: &str = "a document in multipart";

/// What is said of a revision in place of the document.
fn not_given(request: &str, why: Why) -> Result<Opened, PeerError> {
    match judgement::of_document(&why) {
        Blame::Missing => Ok(Opened::Missing),
        blame => Err(PeerError::Answered { request: request.to_owned(), status: None, why, blame }),
    }
}

/// A part that is JSON: a document that nothing follows, or `{"missing":"rev"}`, or what a cluster in trouble says.
fn alone(request: &str, content_type: &str, json: Vec<u8>, share: Share) -> Result<Opened, PeerError> {
    #[derive(serde::Deserialize)]
    struct Missing {
        #[serde(rename = "missing")]
        _rev: String,
    }
    if content_type.contains("error") {
        return match serde_json::from_slice::<Missing>(&json) {
            Ok(_) => Ok(Opened::Missing),
            Err(_) => {
                let why = serde_json::from_slice::<Item<'_>>(&json).ok().and_then(|item| item.refusal());
                let unworded = || PeerError::Answered {
                    request: request.to_owned(),
                    status: None,
                    why: Why::new("an error", beginning(&json)),
                    blame: Blame::Unclear { worded: false },
                };
                why.map_or_else(|| Err(unworded()), |why| not_given(request, why))
            }
        };
    }
    let DocumentHead { id, rev, .. } = checked_head(request, &json)?;
    Ok(Opened::Doc(AttachedDoc { id, rev, json: share.around(json), parts: stream::empty().boxed() }))
}

fn checked_head(request: &str, json: &[u8]) -> Result<DocumentHead, PeerError> {
    let head = document_head(json).map_err(|error| not_fetched(request, json, &error))?;
    head.ok_or_else(|| not_fetched(request, json, &"a document without `_id` and `_rev`"))
}

/// The attachments after a document, as they stream in.
struct RelatedParts {
    related: Reader<Body>,
    /// What hasn't come yet.
    heads: VecDeque<AttachmentHead>,
    /// Of the attachment in hand.
    measure: Option<LengthCheck>,
    request: Arc<str>,
}

impl RelatedParts {
    async fn next(&mut self) -> Result<Option<AttachmentPiece>, PeerError> {
        if let Some(measure) = &mut self.measure {
            let chunk = self.related.next_chunk().await.map_err(|error| broken(&self.request, error))?;
            if let Some(chunk) = chunk {
                measure.take(&self.request, &chunk)?;
                return Ok(Some(AttachmentPiece::Data(chunk)));
            }
            measure.end(&self.request)?;
            self.measure = None;
        }
        match self.related.next_part().await.map_err(|error| broken(&self.request, error))? {
            Some(headers) => {
                let head = self.take_head(&headers)?;
                self.measure = Some(LengthCheck { left: head.length });
                Ok(Some(AttachmentPiece::Head(head)))
            }
            None if self.heads.is_empty() => Ok(None),
            None => Err(short(&self.request)),
        }
    }

    /// Which attachment a part is: the one it names, else the next one in the document's order.
    fn take_head(&mut self, headers: &HeaderMap) -> Result<AttachmentHead, PeerError> {
        let coming = self.heads.iter().map(|head| head.name.as_str());
        let place = multipart::place(headers.get(CONTENT_DISPOSITION), coming);
        let unnamed = || malformed(&self.request, EXPECTED, "more attachments than it names".into());
        self.heads.remove(place).ok_or_else(unnamed)
    }
}

/// Compares an attachment's bytes with the length that its document tells.
struct LengthCheck {
    left: u64,
}

impl LengthCheck {
    fn take(&mut self, request: &str, chunk: &Bytes) -> Result<(), PeerError> {
        let left = self.left.checked_sub(chunk.len() as u64);
        self.left = left.ok_or_else(|| malformed(request, EXPECTED, "an attachment longer than it says".into()))?;
        Ok(())
    }

    fn end(&self, request: &str) -> Result<(), PeerError> {
        if self.left == 0 { Ok(()) } else { Err(short(request)) }
    }
}

fn short(request: &str) -> PeerError {
    PeerError::Broken { request: request.to_owned(), reason: "the attachments end early".into() }
}

fn broken(request: &str, error: MultipartError<PeerError>) -> PeerError {
    match error {
        MultipartError::Stream(error) => error,
        MultipartError::Truncated => PeerError::Broken { request: request.to_owned(), reason: error.to_string() },
        MultipartError::Headers => malformed(request, EXPECTED, error.to_string()),
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

async fn whole_part<S>(reader: &mut Reader<S>, request: &str, share: &mut Share) -> Result<Vec<u8>, PeerError>
where
    S: Stream<Item = Result<Bytes, PeerError>> + Unpin,
{
    let mut whole = Vec::new();
    while let Some(chunk) = reader.next_chunk().await.map_err(|error| broken(request, error))? {
        gather(&mut whole, &chunk, request, share).await?;
    }
    Ok(whole)
}

/// Adds a chunk; where there are many, within the share.
async fn gather(whole: &mut Vec<u8>, chunk: &[u8], request: &str, share: &mut Share) -> Result<(), PeerError> {
    let length = whole.len() + chunk.len();
    if length > share.max_document() {
        return Err(too_long(request, share.max_document()));
    }
    if length > STREAMED_JSON_BYTES {
        share.hold(cost(length), 0).await;
    }
    whole.extend_from_slice(chunk);
    Ok(())
}
