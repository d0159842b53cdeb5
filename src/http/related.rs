//! Documents with their attachments behind them: `multipart/related`, written and read.
//!
//! Written byte for byte as CouchDB frames it (transcript 08-wire-replicator-to-source): a part's head starts with the
//! line end that closes the boundary before it, stored gzip travels as it is under `Content-Encoding: gzip`. Read as
//! it comes: each part streams into the store, so its size doesn't matter. Parts are matched to the attachments that
//! the document announces by the name in `Content-Disposition`, else by their order.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::document::DocParts;
use crate::multipart::Reader;
use crate::store::{Attachment, Database, Encoding, Uploaded};
use crate::store::{Following, following};
use crate::tasks::Tasks;

use super::answer::{self, Sink, Stopped};
use super::blob::Blob;
use super::documents::Rendered;
use super::error::ApiError;
use super::request::Payload;
use super::welcome;

/// Whether `Accept` names this media type.
pub fn accepted(headers: &HeaderMap, media_type: &str) -> bool {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    ranges.map(|range| range.split(';').next().unwrap_or_default().trim()).any(|r| r.eq_ignore_ascii_case(media_type))
}

/// Answers a document as `multipart/related`.
pub async fn document(tasks: &Tasks, db: Arc<Database>, rendered: Rendered) -> Result<Response, ApiError> {
    let boundary = welcome::uuid();
    let content_type = format!("multipart/related; boundary=\"{boundary}\"");
    let body =
        answer::streamed(
            tasks,
            "multipart document",
            |sink| async move { write(&sink, &db, &boundary, rendered).await },
        )
        .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, content_type)], body).into_response())
}

/// Writes a document and its attachments between boundaries.
pub async fn write(sink: &Sink, db: &Database, boundary: &str, rendered: Rendered) -> Result<(), Stopped> {
    let mut head = format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n").into_bytes();
    // Nothing stands inline where attachments follow: there are no gaps.
    head.extend_from_slice(&rendered.draft.json);
    head.extend_from_slice(format!("\r\n--{boundary}").as_bytes());
    sink.send(head).await?;
    for attachment in &rendered.following {
        sink.send(part_head(attachment)).await?;
        Blob::new(db, attachment, false).send(sink).await?;
        sink.send(format!("\r\n--{boundary}")).await?;
    }
    sink.send("--").await
}

fn part_head(attachment: &Attachment) -> String {
    let name = attachment.name.replace(['\r', '\n'], " ").replace('"', "\\\"");
    let mut head = format!(
        "\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Type: {}\r\nContent-Length: {}",
        attachment.content_type.replace(['\r', '\n'], " "),
        attachment.stored_length
    );
    if attachment.encoding == Encoding::Gzip {
        // Writing to a string can't fail.
        let _ = write!(head, "\r\nContent-Encoding: gzip");
    }
    head + "\r\n\r\n"
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
    let mut announced = following(&DocParts::parse(&text)?)?;
    let mut uploaded = Vec::with_capacity(announced.len());
    while let Some(headers) = reader.next_part().await? {
        let Some(attachment) = claim(&mut announced, file_name(&headers).as_deref()) else {
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

/// Takes the announced attachment of this name, or the first.
fn claim(announced: &mut Vec<Following>, name: Option<&str>) -> Option<Following> {
    let index = match name {
        Some(name) => announced.iter().position(|attachment| attachment.name == name)?,
        None => 0,
    };
    (index < announced.len()).then(|| announced.remove(index))
}

/// The name in `Content-Disposition: attachment; filename="…"`.
fn file_name(headers: &HeaderMap) -> Option<String> {
    let disposition = String::from_utf8_lossy(headers.get(CONTENT_DISPOSITION)?.as_bytes()).into_owned();
    let (_, value) = disposition.split_once("filename=")?;
    Some(match value.strip_prefix('"') {
        None => value.split(';').next().unwrap_or_default().trim().into(),
        Some(quoted) => unquoted(quoted),
    })
}

/// A quoted string's content up to its closing quote.
fn unquoted(quoted: &str) -> String {
    let mut name = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => break,
            '\\' => name.extend(chars.next()),
            char => name.push(char),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Digest;

    fn attachment(name: &str, encoding: Encoding) -> Attachment {
        Attachment {
            name: name.into(),
            content_type: "text/plain".into(),
            revpos: 1,
            digest: Digest([0; 16]),
            length: 11,
            stored_length: 31,
            encoding,
        }
    }

    #[test]
    fn a_parts_head_is_couchdbs() {
        assert_eq!(
            part_head(&attachment("hello.txt", Encoding::Gzip)),
            "\r\nContent-Disposition: attachment; filename=\"hello.txt\"\r\nContent-Type: text/plain\r\n\
             Content-Length: 31\r\nContent-Encoding: gzip\r\n\r\n"
        );
        assert!(!part_head(&attachment("a", Encoding::Identity)).contains("Content-Encoding"));
    }

    #[test]
    fn a_name_survives_the_way_through_a_header() {
        for name in ["a b/c.txt", "q\"uote", "Zoë"] {
            let head = part_head(&attachment(name, Encoding::Identity));
            let line = head.lines().find_map(|line| line.strip_prefix("Content-Disposition: ")).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_DISPOSITION, axum::http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
            assert_eq!(file_name(&headers).as_deref(), Some(name));
        }
    }

    #[test]
    fn media_types_are_accepted_by_name_only() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "*/*".parse().unwrap());
        assert!(!accepted(&headers, "multipart/mixed"));
        headers.insert(ACCEPT, "application/json;q=0.5, Multipart/Mixed".parse().unwrap());
        assert!(accepted(&headers, "multipart/mixed"));
    }

    #[test]
    fn parts_are_claimed_by_name_else_in_order() {
        let announce = |name: &str| Following {
            name: name.into(),
            content_type: String::new(),
            gzip: false,
            length: None,
            digest: None,
        };
        let mut announced = vec![announce("a"), announce("b"), announce("c")];
        assert_eq!(claim(&mut announced, Some("b")).unwrap().name, "b");
        assert_eq!(claim(&mut announced, None).unwrap().name, "a");
        assert_eq!(claim(&mut announced, Some("x")), None);
        assert_eq!(claim(&mut announced, None).unwrap().name, "c");
        assert_eq!(claim(&mut announced, None), None);
    }
}
