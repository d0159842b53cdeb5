//! `COPY /{db}/{doc}`: a document once more, under the id that `Destination` names.
//!
//! The copy is one new revision of its document: over the revision that `Destination: id?rev=…` names, over nothing, or over
//! a deletion. Its body is the original's, byte for byte, and its attachments are the very bytes that the original has: they
//! are kept once. `_local` documents are copied too, and documents to `_local` ones, without attachments then.
//!
//! Otherwise than CouchDB on purpose: an attachment's `revpos` is the copy's own generation. CouchDB keeps the original's,
//! which tells a replication, where it is smaller, that its target has those bytes already.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Extension;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::access::Caller;
use crate::document::{DocId, DocParts, DocumentError, Rev, Revisions, local_id, validate_id};
use crate::store::{Attachment, AttachmentData, Database, DocOptions, Edit, EditKind, NewAttachment};
use crate::store::{Snapshot, StoreError};

use super::answer;
use super::documents::{RequestedRev, write_one};
use super::error::ApiError;
use super::query::Query;
use super::request::{DocPath, durability, parent};

/// How often an original is read again whose attachments went between reading and writing, because it was edited.
const TRIES: u32 = 3;

/// `COPY /{db}/{doc}`; `?rev=` or `If-Match` name the original's revision. The router has no name for this method: any other
/// that a document doesn't have comes here too.
pub async fn document(
    method: Method,
    DocPath { db, id }: DocPath,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    is_meant(&method, "DELETE,GET,HEAD,POST,PUT,COPY")?;
    let which = RequestedRev { rev: parent(&query, &headers)?, latest: false };
    let destination = Destination::of(&headers)?;
    let mut tries = 0;
    loop {
        let (which, id) = (which.clone(), id.clone());
        let options = DocOptions { reader: db.reader(&caller), ..DocOptions::default() };
        let original = db.read(move |snapshot| Original::read(snapshot, &which, &id, &options)).await??;
        match original.write(&db, &caller, &destination, &headers).await {
            // Whoever edited the original took them from it: its newest revision is copied, or the named one is gone.
            Err(ApiError::MissingStub(_)) if tries < TRIES => tries += 1,
            written => return written,
        }
    }
}

/// `COPY /{db}/_local/{id}`.
pub async fn local(
    method: Method,
    DocPath { db, id }: DocPath,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    is_meant(&method, "DELETE,GET,HEAD,PUT,COPY")?;
    let destination = Destination::of(&headers)?;
    let (_, body) = db.local_doc(id.as_str()).await?.ok_or(ApiError::Missing)?;
    let original = Original { body, deleted: false, attachments: Vec::new() };
    original.write(&db, &caller, &destination, &headers).await
}

/// Anything but COPY is refused: `allowed` is what the resource has.
fn is_meant(method: &Method, allowed: &'static str) -> Result<(), ApiError> {
    match method.as_str() {
        "COPY" => Ok(()),
        _ => Err(ApiError::MethodNotAllowed(allowed.into())),
    }
}

/// Where a copy goes: `id?rev=…`, percent-encoded.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    id: String,
    /// The text of the revision that is written over.
    rev: Option<String>,
}

impl Destination {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let missing = || ApiError::bad_request("Destination header is mandatory for COPY.");
        let text = headers.get("destination").ok_or_else(missing)?;
        Self::parse(&String::from_utf8_lossy(text.as_bytes()))
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err(ApiError::bad_request("Destination URL must be relative."));
        }
        let (id, rev) = match text.split_once('?') {
            None => (text, None),
            // CouchDB takes any name for `rev`.
            Some((id, query)) => (id, Some(query.split_once('=').map_or("", |(_, rev)| rev))),
        };
        let id = id.replace('+', " ");
        let id = percent_decode_str(&id).decode_utf8().map(Cow::into_owned);
        let id = id.map_err(|_| ApiError::bad_request("The destination is not UTF-8."))?;
        let known = match local_id(&id) {
            // A revision that no `_local` document has is a conflict.
            Some(_) => rev.is_none_or(|rev| !rev.is_empty()),
            None => {
                validate_id(&id)?;
                rev.is_none_or(|rev| !rev.contains('?') && Rev::parse(rev).is_some())
            }
        };
        known.then_some(()).ok_or(DocumentError::BadRev)?;
        Ok(Self { id, rev: rev.map(str::to_owned) })
    }
}

/// What is copied.
struct Original {
    body: Vec<u8>,
    deleted: bool,
    attachments: Vec<Attachment>,
}

impl Original {
    fn read(
        snapshot: &Snapshot,
        which: &RequestedRev,
        id: &DocId,
        options: &DocOptions,
    ) -> Result<Result<Self, ApiError>, StoreError> {
        let (record, leaf) = match which.find(snapshot, id.as_str())? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let mut text = Vec::new();
        snapshot.render(id.as_str(), &record, &leaf, options, &mut text)?;
        let (body, attachments) = (DocParts::parse(&text)?.body(), snapshot.attachments(&leaf)?);
        Ok(Ok(Self { body, deleted: leaf.deleted, attachments }))
    }

    async fn write(
        self,
        db: &Database,
        author: &Caller,
        to: &Destination,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let rev = match local_id(&to.id) {
            Some(local) => db.put_local_doc(local, to.rev.as_deref(), Some(self.body)).await??,
            None => write_one(db, self.into_edit(to), author, durability(headers)).await?.to_string(),
        };
        let body = json!({ "ok": true, "id": to.id, "rev": rev });
        let mut response = answer::json(StatusCode::CREATED, &body);
        response.headers_mut().extend(answer::etag(rev));
        Ok(answer::located(response, &[db.name().as_str(), &to.id]))
    }

    fn into_edit(self, to: &Destination) -> Edit {
        let parent = to.rev.as_deref().and_then(Rev::parse).map(Revisions::single);
        let copied = |attachment: Attachment| NewAttachment {
            name: attachment.name.clone(),
            revpos: None,
            data: AttachmentData::Copied(attachment),
        };
        Edit {
            id: to.id.as_str().into(),
            kind: EditKind::New { parent },
            deleted: self.deleted,
            body: self.body,
            attachments: self.attachments.into_iter().map(copied).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Result<(String, Option<String>), String> {
        let parsed = Destination::parse(text).map(|destination| (destination.id, destination.rev));
        parsed.map_err(|error| error.pair().1.into_owned())
    }

    #[test]
    fn a_destination_is_an_id_and_may_name_a_revision() {
        for (text, id, rev) in [
            ("copy", "copy", None),
            ("a%20b%2Fc", "a b/c", None),
            ("a+b", "a b", None),
            ("_design/d", "_design/d", None),
            ("_design%2Fd?rev=1-a", "_design/d", Some("1-a")),
            ("_local/x?rev=0-1", "_local/x", Some("0-1")),
            ("/db/x", "/db/x", None),
        ] {
            assert_eq!(destination(text), Ok((id.to_owned(), rev.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn a_destination_that_couchdb_refuses_is_refused() {
        for (text, reason) in [
            ("http://127.0.0.1:5984/db/x", "Destination URL must be relative."),
            ("", "Document id must not be empty"),
            ("_bad", "Only reserved document ids may start with underscore."),
            ("x?rev=", "Invalid rev format"),
            ("x?rev=xyz", "Invalid rev format"),
            ("x?foo=bar", "Invalid rev format"),
            ("x?rev=1-a?rev=2-b", "Invalid rev format"),
        ] {
            assert_eq!(destination(text), Err(reason.to_owned()), "{text}");
        }
    }
}
