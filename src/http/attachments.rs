//! Attachments, one at a time: read, written and deleted as streams.
//!
//! Text is stored gzipped, as CouchDB does, and goes out gzipped only to who accepts that; for others it is decoded
//! piece by piece. Of one that isn't gzipped parts may be asked for ([`ranges`]). Writing or deleting one makes a new revision of its document: the body stays byte for byte, the
//! other attachments stay as stubs.

mod form;
mod ranges;

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde_json::json;

use crate::access::Caller;
use crate::document::{Digest, DocId, DocParts, DocumentError, Encoding, Rev, Revisions, validate_id};
use crate::store::{Attachment, AttachmentData, Database, DocOptions, Edit, EditKind, NewAttachment, OpenAttachment};
use crate::store::{Snapshot, StoreError, Uploaded};

pub use self::form::post;
use self::ranges::{Byteranges, Part};
use super::AppState;
use super::answer::{self, Sink};
use super::blob::Blob;
use super::documents::{RequestedRev, write_one};
use super::error::ApiError;
use super::query::Query;
use super::request::{AttachmentPath, Payload, durability, parent};

/// `GET /{db}/{doc}/{attachment}`.
pub async fn get(
    State(state): State<AppState>,
    AttachmentPath { db, id, name }: AttachmentPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let which = RequestedRev::parse(&query)?;
    let held = db
        .read(move |snapshot| {
            let leaf = match which.find(snapshot, id.as_str())? {
                Ok((_, leaf)) => leaf,
                Err(error) => return Ok(Err(error)),
            };
            match snapshot.attachments(&leaf)?.into_iter().find(|attachment| attachment.name == name) {
                Some(attachment) => Ok(Ok(snapshot.hold(attachment)?)),
                None => Ok(Err(ApiError::MissingAttachment)),
            }
        })
        .await??;
    let attachment = held.attachment();
    let tag = STANDARD.encode(attachment.digest.0);
    let mut response = match answer::has_already(&headers, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => read(&state, db, held, &headers, &tag).await?,
    };
    response.headers_mut().extend(answer::etag(tag));
    Ok(response)
}

/// Answers an attachment, or the part of it that is asked for.
async fn read(
    state: &AppState,
    db: Arc<Database>,
    held: OpenAttachment,
    headers: &HeaderMap,
    tag: &str,
) -> Result<Response, ApiError> {
    let (attachment, tasks) = (held.attachment(), &state.tasks);
    let decode = attachment.encoding == Encoding::Gzip && !accepts_gzip(headers);
    let mut head = head(attachment, decode);
    let length = attachment.stored_length;
    let part = match attachment.encoding {
        Encoding::Identity => Part::wanted(headers, tag, length),
        Encoding::Gzip => Part::Whole,
    };
    match part {
        Part::Whole => {
            let write = move |sink: Sink| async move { Blob::new(&db, &held, decode).send(&sink).await };
            Ok((head, answer::streamed(tasks, "attachment", write).await?).into_response())
        }
        Part::Of(range) => {
            head.insert(CONTENT_LENGTH, (range.end - range.start).into());
            let content_range = ranges::content_range(&range, length);
            let write = move |sink: Sink| async move { Blob::part(&db, &held, range).send(&sink).await };
            let body = answer::streamed(tasks, "attachment", write).await?;
            Ok((StatusCode::PARTIAL_CONTENT, head, [(CONTENT_RANGE, content_range)], body).into_response())
        }
        Part::Several(ranges) => {
            let parts = Byteranges::new(ranges);
            let head = parts.head();
            let write = move |sink: Sink| async move { parts.send(&db, &held, &sink).await };
            let body = answer::streamed(tasks, "attachment", write).await?;
            Ok((StatusCode::PARTIAL_CONTENT, head, body).into_response())
        }
        Part::Unsatisfiable => {
            let head = [(CONTENT_RANGE, format!("bytes */{length}"))];
            Ok((head, ApiError::RangeNotSatisfiable).into_response())
        }
    }
}

fn head(attachment: &Attachment, decode: bool) -> HeaderMap {
    let mut head = HeaderMap::new();
    let content_type = HeaderValue::from_str(&attachment.content_type);
    head.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    // What others uploaded must not act in this server's name.
    head.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    let ranges = if attachment.encoding == Encoding::Identity { "bytes" } else { "none" };
    head.insert(ACCEPT_RANGES, HeaderValue::from_static(ranges));
    let gzipped = attachment.encoding == Encoding::Gzip && !decode;
    if gzipped {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let length = if decode { attachment.length } else { attachment.stored_length };
    head.insert(CONTENT_LENGTH, length.into());
    head
}

pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        matches!(name.trim(), "gzip" | "x-gzip" | "*") && !refused
    })
}

/// `PUT /{db}/{doc}/{attachment}`; makes the document if there is none.
pub async fn put(
    AttachmentPath { db, id, name }: AttachmentPath,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    validate_id(id.as_str())?;
    if name.starts_with('_') {
        return Err(DocumentError::BadAttachmentName(name).into());
    }
    let headers = payload.headers().clone();
    let parent = parent(&query, &headers)?;
    let mut revision = Revision::open(&db, &id, parent).await?;
    let content_type = payload.content_type().unwrap_or("application/octet-stream").to_owned();
    let blob = upload(&db, &content_type, &headers, payload).await?;
    revision.remove(&name);
    revision.attachments.insert(
        0,
        NewAttachment {
            name: name.clone(),
            revpos: None,
            data: AttachmentData::Uploaded { content_type, upload: blob },
        },
    );
    let rev = write_one(&db, revision.into_edit(id.clone()), &caller, durability(&headers)).await?;
    let body = json!({ "ok": true, "id": id.as_str(), "rev": rev });
    let segments = [db.name().as_str(), id.as_str()].into_iter().chain(name.split('/')).collect::<Vec<_>>();
    Ok(answer::located(answer::json(StatusCode::CREATED, &body), &segments))
}

async fn upload(
    db: &Database,
    content_type: &str,
    headers: &HeaderMap,
    payload: Payload,
) -> Result<Uploaded, ApiError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let gzipped = match header(CONTENT_ENCODING.as_str()) {
        None | Some("identity") => false,
        Some("gzip" | "x-gzip") => true,
        Some(_) => {
            return Err(ApiError::BadContentType("Only gzip and identity content-encodings are supported".into()));
        }
    };
    let announced = header("content-md5").map(|md5| Digest::parse(&format!("md5-{md5}")));
    let mut upload = db.upload(content_type, gzipped);
    let mut stream = payload.stream();
    while let Some(chunk) = stream.next().await {
        upload.push(chunk?).await?;
    }
    let (blob, digest) = upload.finish().await?;
    match announced {
        Some(announced) if announced != Some(digest) => {
            Err(ApiError::bad_request("Content-MD5 does not match the body"))
        }
        _ if gzipped => Ok(blob.telling_stored()),
        _ => Ok(blob),
    }
}

/// `DELETE /{db}/{doc}/{attachment}?rev=`.
pub async fn delete(
    AttachmentPath { db, id, name }: AttachmentPath,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let parent = parent(&query, &headers)?.ok_or(ApiError::Conflict)?;
    let mut revision = Revision::open(&db, &id, Some(parent)).await?;
    if !revision.remove(&name) {
        return Err(ApiError::MissingAttachment);
    }
    let rev = write_one(&db, revision.into_edit(id.clone()), &caller, durability(&headers)).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true, "id": id.as_str(), "rev": rev })))
}

/// A revision whose successor differs in its attachments only.
struct Revision {
    parent: Option<Rev>,
    body: Vec<u8>,
    attachments: Vec<NewAttachment>,
}

impl Revision {
    /// Opens the leaf `parent`, or a document that is new or deleted. Anything else is a conflict.
    async fn open(db: &Arc<Database>, id: &DocId, parent: Option<Rev>) -> Result<Self, ApiError> {
        let id = id.clone();
        db.read(move |snapshot| Self::read(snapshot, id.as_str(), parent)).await?
    }

    fn read(snapshot: &Snapshot, id: &str, parent: Option<Rev>) -> Result<Result<Self, ApiError>, StoreError> {
        let record = snapshot.document(id)?;
        let Some(parent) = parent else {
            let exists = record.and_then(|record| record.tree.winner()).is_some_and(|winner| !winner.deleted);
            let new = Self { parent: None, body: b"{}".to_vec(), attachments: Vec::new() };
            return Ok(if exists { Err(ApiError::Conflict) } else { Ok(new) });
        };
        let found = record.and_then(|record| record.tree.leaf(&parent).map(|leaf| (record, leaf)));
        let Some((record, leaf)) = found else {
            return Ok(Err(ApiError::Conflict));
        };
        let mut text = Vec::new();
        snapshot.render(id, &record, &leaf, &DocOptions::default(), &mut text)?;
        let stub = |a: Attachment| NewAttachment {
            name: a.name,
            revpos: Some(a.revpos),
            data: AttachmentData::Stub { digest: Some(a.digest) },
        };
        let attachments = snapshot.attachments(&leaf)?.into_iter().map(stub).collect();
        Ok(Ok(Self { parent: Some(parent), body: DocParts::parse(&text)?.body(), attachments }))
    }

    /// Leaves an attachment out; `false` if there is none of this name.
    fn remove(&mut self, name: &str) -> bool {
        let before = self.attachments.len();
        self.attachments.retain(|attachment| attachment.name != name);
        self.attachments.len() < before
    }

    fn into_edit(self, id: DocId) -> Edit {
        let kind = EditKind::New { parent: self.parent.map(Revisions::single) };
        Edit { id, kind, deleted: false, body: self.body, attachments: self.attachments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_by_name_and_not_at_quality_zero() {
        let accepts = |text: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))]))
        };
        assert!(accepts("deflate, gzip;q=0.5") && accepts("*"));
        assert!(!accepts("identity") && !accepts("gzip;q=0") && !accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn an_answers_head_says_how_its_bytes_travel() {
        let attachment = Attachment {
            name: "hello.txt".into(),
            content_type: "text/plain".into(),
            revpos: 1,
            digest: Digest([0; 16]),
            length: 11,
            stored_length: 31,
            encoding: Encoding::Gzip,
            tells_stored: false,
        };
        let stored = head(&attachment, false);
        assert_eq!(
            (&stored[CONTENT_LENGTH], &stored[CONTENT_ENCODING]),
            (&"31".parse().unwrap(), &"gzip".parse().unwrap())
        );
        let decoded = head(&attachment, true);
        assert_eq!(decoded[CONTENT_LENGTH], "11");
        assert!(!decoded.contains_key(CONTENT_ENCODING));
        assert_eq!(decoded[CONTENT_SECURITY_POLICY], "sandbox");
    }

    #[test]
    fn a_successor_keeps_its_other_attachments() {
        let stub =
            |name: &str| NewAttachment { name: name.into(), revpos: None, data: AttachmentData::Stub { digest: None } };
        let mut revision = Revision { parent: None, body: Vec::new(), attachments: vec![stub("a"), stub("b")] };
        assert!(revision.remove("a"));
        assert!(!revision.remove("a"));
        assert_eq!(revision.into_edit("x".into()).attachments.len(), 1);
    }
}
