//! Documents with their attachments after them: `multipart/related`, written and read.
//!
//! Written byte for byte as CouchDB frames it: stored gzip travels as it is
//! under `Content-Encoding: gzip`. Read as it comes: each part streams into the store, so its size doesn't matter. Parts
//! are matched to the attachments that the document announces by the name in `Content-Disposition`, else by their order.

use std::sync::Arc;

use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::document::{Announced, DocParts};
use crate::multipart::{self, Framing, Reader};
use crate::store::{Database, Uploaded};
use crate::tasks::{self, Tasks};

use super::answer::{self, Sink, Stopped};
use super::blob::Blob;
use super::error::ApiError;
use super::rendered::Rendered;
use super::request::Payload;

/// Whether `Accept` names this media type.
pub fn accepted(headers: &HeaderMap, media_type: &str) -> bool {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    ranges.map(|range| range.split(';').next().unwrap_or_default().trim()).any(|r| r.eq_ignore_ascii_case(media_type))
}

/// Answers a document as `multipart/related`.
pub async fn document(tasks: &Tasks, db: Arc<Database>, rendered: Rendered) -> Result<Response, ApiError> {
    let framing = Framing::new();
    let heads = rendered.following.iter().map(|held| held.attachment().head()).collect::<Vec<_>>();
    let length = framing.related_length(rendered.outgoing.length(), &heads);
    let head = [(CONTENT_TYPE, framing.content_type("related")), (CONTENT_LENGTH, length.to_string())];
    let write = |sink| async move { write(&sink, &db, framing, rendered).await };
    let body = answer::streamed(tasks, "multipart document", write).await?;
    Ok((StatusCode::OK, head, body).into_response())
}

/// Writes a document and its attachments between boundaries.
pub async fn write(sink: &Sink, db: &Database, mut framing: Framing, rendered: Rendered) -> Result<(), Stopped> {
    sink.send(framing.part("application/json")).await?;
    rendered.outgoing.send(sink, db).await?;
    for held in &rendered.following {
        sink.send(framing.attachment(&held.attachment().head())).await?;
        Blob::new(db, held, false).send(sink).await?;
    }
    sink.send(framing.close()).await
}

/// Reads a document and stores the attachments that follow it.
///
/// Until an edit refers to them they are nobody's: a request that breaks off leaves no trace.
pub async fn read(
    db: &Database,
    payload: Payload,
    boundary: &str,
) -> Result<(Bytes, Vec<(String, Uploaded)>), ApiError> {
    let mut text = payload.gathering();
    let mut reader = Reader::new(payload.stream(), boundary);
    reader.next_part().await?.ok_or_else(|| ApiError::bad_request("The multipart body has no parts."))?;
    while let Some(chunk) = reader.next_chunk().await? {
        text.push(&chunk)?;
    }
    let text = text.whole();
    let document = text.clone();
    let announced = move || DocParts::parse(&document).and_then(|parts| Announced::all(parts.attachments));
    let mut announced = tasks::blocking("parse document", announced).await??;
    let mut uploaded = Vec::with_capacity(announced.len());
    while let Some(headers) = reader.next_part().await? {
        let Some(attachment) = claim(&mut announced, &headers) else {
            return Err(ApiError::bad_request("A part follows that the document doesn't announce."));
        };
        let mut upload = db.upload(&attachment.content_type, attachment.gzip);
        let mut length = 0;
        while let Some(chunk) = reader.next_chunk().await? {
            length += chunk.len() as u64;
            upload.push(chunk).await?;
        }
        let (blob, digest) = upload.finish().await?;
        // A digest of stored bytes says nothing of bytes that travel decoded.
        let altered = attachment.gzip && attachment.digest.is_some_and(|announced| announced != digest);
        if altered || attachment.length.is_some_and(|announced| announced != length) {
            return Err(ApiError::bad_request(format!("Attachment `{}` isn't what was announced.", attachment.name)));
        }
        uploaded.push((attachment.name, blob));
    }
    match announced.first() {
        Some(missing) => Err(ApiError::bad_request(format!("Attachment `{}` doesn't follow.", missing.name))),
        None => Ok((text, uploaded)),
    }
}

/// Takes out the announced attachment that a part is.
fn claim(announced: &mut Vec<Announced>, headers: &HeaderMap) -> Option<Announced> {
    let coming = announced.iter().map(|attachment| attachment.name.as_str());
    let place = multipart::place(headers.get(CONTENT_DISPOSITION), coming);
    (place < announced.len()).then(|| announced.remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_accepted_by_name_only() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "*/*".parse().unwrap());
        assert!(!accepted(&headers, "multipart/mixed"));
        headers.insert(ACCEPT, "application/json;q=0.5, Multipart/Mixed".parse().unwrap());
        assert!(accepted(&headers, "multipart/mixed"));
    }
}
