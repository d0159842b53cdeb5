//! Documents: read, written, deleted, one at a time.
//!
//! A document's body is the bytes that came, on the way in and on the way out; only its underscore members are looked
//! at. Taking large documents apart and rendering them happens on threads that may block.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;

use crate::access::Caller;
use crate::document::{DocId, DocParts, Rev, Revisions, local_id, validate_id};
use crate::multipart;
use crate::store::{AttachmentsAs, Database, DocOptions, DocRecord, Durability, Edit, EditKind, Leaf};
use crate::store::{Snapshot, StoreError, Uploaded};
use crate::tasks;
use crate::uuids;

use super::error::ApiError;
use super::local_docs::NewLocalDoc;
use super::outgoing::Outgoing;
use super::query::Query;
use super::rendered::render;
use super::request::{Db, DocPath, Payload, durability, parent};
use super::{AppState, answer, batch, open_revs, related};

/// Which of a document's revisions is asked for.
#[derive(Debug, Clone, Default)]
pub struct RequestedRev {
    /// This one, or the winner.
    pub rev: Option<Rev>,
    /// Rather its newest descendant (`latest=true`).
    pub latest: bool,
}

impl RequestedRev {
    /// Reads `rev` and `latest`.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        Ok(Self { rev: query.rev("rev")?, latest: query.flag("latest")? })
    }

    /// Finds it. A winner that is a deletion isn't there; a deletion that is named is.
    pub fn find(&self, snapshot: &Snapshot, id: &str) -> Result<Result<(DocRecord, Leaf), ApiError>, StoreError> {
        let Some(record) = snapshot.document(id)? else {
            return Ok(Err(ApiError::Missing));
        };
        let leaf = match &self.rev {
            None => record.tree.winner(),
            Some(rev) if self.latest => record.tree.latest(rev).into_iter().next(),
            Some(rev) => record.tree.leaf(rev),
        };
        Ok(match leaf {
            None => Err(ApiError::Missing),
            Some(leaf) if leaf.deleted && self.rev.is_none() => Err(ApiError::Deleted),
            Some(leaf) => Ok((record, leaf)),
        })
    }
}

/// `GET /{db}/{doc}`.
pub async fn get(
    State(state): State<AppState>,
    DocPath { db, id }: DocPath,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut options = DocOptions { reader: db.reader(&caller), ..query.doc_options()? };
    if let Some(wanted) = open_revs::Wanted::parse(&query)? {
        return open_revs::get(&state, db, id, wanted, options, &headers).await;
    }
    let which = RequestedRev::parse(&query)?;
    let as_parts = options.attachments == AttachmentsAs::Inline && related::accepted(&headers, "multipart/related");
    if as_parts {
        options.attachments = AttachmentsAs::Follows;
        options.att_encoding_info = true;
    }
    // What else is shown may change while the revision stays.
    let lasting = !(options.revs_info || options.conflicts || options.deleted_conflicts || options.local_seq);
    let (known, outgoing) = (headers.clone(), Outgoing::new(&state.answers));
    let found = state
        .answers
        .read(&db, move |snapshot| {
            let (record, leaf) = match which.find(snapshot, id.as_str())? {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let rev = snapshot.shown_rev(id.as_str(), &record, &leaf, &options)?;
            if lasting && answer::has_already(&known, &rev.to_string()) {
                return Ok(Ok((rev, None)));
            }
            let rendered = render(snapshot, id.as_str(), &record, &leaf, &options, outgoing)?;
            Ok(Ok((rev, Some(rendered))))
        })
        .await?;
    let (rev, rendered) = found?;
    let mut response = match rendered {
        None => StatusCode::NOT_MODIFIED.into_response(),
        Some(rendered) if rendered.following.is_empty() => rendered.outgoing.answer(&state.tasks, db).await?,
        Some(rendered) => related::document(&state.tasks, db, rendered).await?,
    };
    if lasting {
        response.headers_mut().extend(answer::etag(rev));
    }
    Ok(response)
}

/// `PUT /{db}/{doc}`, as JSON or with its attachments as `multipart/related`.
pub async fn put(
    DocPath { db, id }: DocPath,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    validate_id(id.as_str())?;
    let headers = payload.headers().clone();
    let (text, uploaded, in_batch) = match related_boundary(&headers) {
        Some(boundary) => {
            let (text, uploaded) = related::read(&db, payload, &boundary).await?;
            (text, uploaded, false)
        }
        None => (payload.whole().await?, Vec::new(), batch::is_wanted(&query)),
    };
    write(db, &caller, Some(id), (text, uploaded), &query, &headers, in_batch).await
}

/// `POST /{db}`: a document that brings its id, or gets one.
pub async fn create(
    Db(db): Db,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    let headers = payload.headers().clone();
    let text = payload.json().await?;
    let sent = text.clone();
    let local = tasks::blocking("parse document", move || {
        let Some(id) = NewLocalDoc::id(&sent)? else { return Ok(None) };
        NewLocalDoc::parse(&sent).map(|doc| Some((id, doc)))
    });
    let Some((id, doc)) = local.await?? else {
        return write(db, &caller, None, (text, Vec::new()), &query, &headers, batch::is_wanted(&query)).await;
    };
    let written = doc.write(&db, local_id(&id).unwrap_or_default(), !query.flag_or("new_edits", true)?).await;
    if batch::is_wanted(&query) {
        return batch::answer(&id, written.map(drop));
    }
    let rev = written?;
    let response = answer::json(StatusCode::CREATED, &json!({ "ok": true, "id": id, "rev": rev }));
    Ok(answer::located(response, &[db.name().as_str(), &id]))
}

fn related_boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let related = content_type.to_ascii_lowercase().starts_with("multipart/related");
    related.then(|| multipart::boundary(content_type)).flatten()
}

async fn write(
    db: Arc<Database>,
    caller: &Caller,
    id: Option<DocId>,
    (text, uploaded): (Bytes, Vec<(String, Uploaded)>),
    query: &Query,
    headers: &HeaderMap,
    in_batch: bool,
) -> Result<Response, ApiError> {
    let replicated = !query.flag_or("new_edits", true)?;
    let outside = parent(query, headers)?;
    let edit = tasks::blocking("parse document", move || edit(&text, id, replicated, outside, uploaded)).await??;
    let (id, status) = (edit.id.clone(), if edit.deleted { StatusCode::OK } else { StatusCode::CREATED });
    if in_batch {
        return batch::answer(id.as_str(), write_one(&db, edit, caller, Durability::Unsynced).await.map(drop));
    }
    let rev = write_one(&db, edit, caller, durability(headers)).await?;
    let response = answer::written(status, id.as_str(), &rev);
    Ok(answer::located(response, &[db.name().as_str(), id.as_str()]))
}

fn edit(
    text: &[u8],
    id: Option<DocId>,
    replicated: bool,
    outside: Option<Rev>,
    uploaded: Vec<(String, Uploaded)>,
) -> Result<Edit, ApiError> {
    let mut parts = DocParts::parse(text)?;
    if let Some(outside) = outside {
        if parts.rev.as_ref().is_some_and(|rev| *rev != outside) {
            let reason = "Document rev from request body and query string have different values";
            return Err(ApiError::bad_request(reason));
        }
        parts.rev = Some(outside);
    }
    let id = match (id, &parts.id) {
        (Some(id), _) => id,
        (None, Some(id)) => {
            validate_id(id)?;
            DocId::from(id.as_ref())
        }
        (None, None) => uuids::sequential().into(),
    };
    Ok(Edit::new(&parts, id, replicated, uploaded)?)
}

/// Writes one edit; what the store refuses is an error.
pub async fn write_one(db: &Database, edit: Edit, author: &Caller, durability: Durability) -> Result<Rev, ApiError> {
    let mut results = db.write(vec![edit], author, durability).await?;
    Ok(results.pop().ok_or(ApiError::Crashed)??)
}

/// `DELETE /{db}/{doc}?rev=`.
pub async fn delete(
    DocPath { db, id }: DocPath,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let parent = parent(&query, &headers)?;
    let wanted = id.clone();
    db.read(move |snapshot| RequestedRev::default().find(snapshot, wanted.as_str())).await??;
    let edit = Edit {
        id: id.clone(),
        kind: EditKind::New { parent: parent.map(Revisions::single) },
        deleted: true,
        body: b"{}".to_vec(),
        attachments: Vec::new(),
    };
    let rev = write_one(&db, edit, &caller, durability(&headers)).await?;
    Ok(answer::written(StatusCode::OK, id.as_str(), &rev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_multipart_related_brings_attachments_along() {
        let boundary = |content_type: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
            related_boundary(&headers)
        };
        assert_eq!(boundary("multipart/related; boundary=b").as_deref(), Some("b"));
        assert_eq!(boundary("Multipart/Related;boundary=\"b c\"").as_deref(), Some("b c"));
        for other in ["multipart/related", "multipart/mixed; boundary=b", "application/json; boundary=b"] {
            assert_eq!(boundary(other), None, "{other}");
        }
        assert_eq!(related_boundary(&HeaderMap::new()), None);
    }

    #[test]
    fn a_body_with_another_rev_than_the_query_is_refused() {
        let error = edit(br#"{"_rev":"1-a"}"#, Some("x".into()), false, Rev::parse("2-b"), Vec::new());
        assert!(matches!(error, Err(ApiError::BadRequest(_))));
    }
}
