//! `POST /{db}/{doc}`: files of an HTML form, as the page of a document in Futon sends them.
//!
//! The form names the revision that they are added to (`_rev`, which may come after them), and each file is called `_attachments`. The
//! document keeps its body and its other attachments. A browser sends such a form to any site without asking, so it must come from
//! a page of this server ([`cross_origin::check_referer`]): where there are no admins, nothing else would stop another site's.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::Revision;
use crate::access::Caller;
use crate::document::{DocumentError, Rev, validate_id};
use crate::http::documents::write_one;
use crate::http::error::ApiError;
use crate::http::request::{DocPath, Payload, durability};
use crate::http::{answer, cross_origin};
use crate::multipart::{self, Reader};
use crate::store::{AttachmentData, Database, NewAttachment};

/// Bytes of a revision's text.
const MAX_REV_BYTES: usize = 256;
/// Parts of a form, and bytes of what is said of its files: both stay in memory.
const MAX_PARTS: usize = 1000;
const MAX_NAMES_BYTES: usize = 1 << 20;

/// Adds the files of a form to a document.
pub async fn post(
    DocPath { db, id }: DocPath,
    Extension(caller): Extension<Arc<Caller>>,
    payload: Payload,
) -> Result<Response, ApiError> {
    let headers = payload.headers().clone();
    cross_origin::check_referer(&headers)?;
    validate_id(id.as_str())?;
    let Some(boundary) = boundary(&headers) else {
        return Err(ApiError::BadContentType("Content-Type must be multipart/form-data".into()));
    };
    let Form { rev, files } = Form::read(&db, payload, &boundary).await?;
    let mut revision = Revision::open(&db, &id, Some(rev.ok_or(DocumentError::BadRev)?)).await?;
    for file in &files {
        revision.remove(&file.name);
    }
    revision.attachments.splice(0..0, files);
    let rev = write_one(&db, revision.into_edit(id.clone()), &caller, durability(&headers)).await?;
    Ok(answer::written(StatusCode::CREATED, id.as_str(), &rev))
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let form = content_type.to_ascii_lowercase().starts_with("multipart/form-data");
    form.then(|| multipart::boundary(content_type)).flatten()
}

/// What of a form is looked at.
#[derive(Default)]
struct Form {
    rev: Option<Rev>,
    files: Vec<NewAttachment>,
}

impl Form {
    /// Reads it, and stores its files. They are nobody's until an edit refers to them.
    async fn read(db: &Database, payload: Payload, boundary: &str) -> Result<Self, ApiError> {
        let mut form = Self::default();
        let mut reader = Reader::new(payload.stream(), boundary);
        let (mut parts, mut bytes) = (0, 0);
        while let Some(headers) = reader.next_part().await? {
            (parts, bytes) = (parts + 1, bytes + headers.iter().map(|(_, value)| value.len()).sum::<usize>());
            if parts > MAX_PARTS || bytes > MAX_NAMES_BYTES {
                return Err(ApiError::TooLarge);
            }
            let Some((field, file)) = headers.get(CONTENT_DISPOSITION).and_then(multipart::form_field) else {
                return Err(ApiError::bad_request(
                    "a part of the form has no Content-Disposition in UTF-8 with a name",
                ));
            };
            match (field.as_str(), file) {
                ("_rev", None) => {
                    let mut text = Vec::new();
                    while let Some(chunk) = reader.next_chunk().await? {
                        text.extend_from_slice(&chunk);
                        if text.len() > MAX_REV_BYTES {
                            return Err(DocumentError::BadRev.into());
                        }
                    }
                    let rev = std::str::from_utf8(&text).ok().and_then(Rev::parse);
                    form.rev = Some(rev.ok_or(DocumentError::BadRev)?);
                }
                ("_attachments", Some(name)) => {
                    if name.is_empty() || name.starts_with('_') {
                        return Err(DocumentError::BadAttachmentName(name).into());
                    }
                    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
                    let mut upload = db.upload(&content_type, false);
                    while let Some(chunk) = reader.next_chunk().await? {
                        upload.push(chunk).await?;
                    }
                    let (upload, _) = upload.finish().await?;
                    let data = AttachmentData::Uploaded { content_type, upload };
                    form.files.retain(|file| file.name != name);
                    form.files.push(NewAttachment { name, revpos: None, data });
                }
                ("_doc", _) => {
                    return Err(ApiError::Absent { name: "_doc", feature: "forms with a document's JSON in them" });
                }
                _ => {}
            }
        }
        if form.files.is_empty() {
            return Err(ApiError::bad_request("the form has no file called `_attachments`"));
        }
        Ok(form)
    }
}
