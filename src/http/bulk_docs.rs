//! `POST /{db}/_bulk_docs`: many documents in one commit.
//!
//! With `new_edits` (the default) every document gets an answer; with `"new_edits":false` only those that weren't
//! written. A document that makes no sense refuses the whole request, as in CouchDB; one that the store refuses, for a
//! conflict or a missing stub, only itself. `_local` documents may be among them: each is written by itself, over the
//! revision that it names, or, replicated, over whatever there is (CouchDB does that always).
//!
//! This is the path of every replicated document: the request is cut into documents without parsing them, on a thread that
//! may block.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::document::{DocId, DocParts, DocumentError, Rev, local_id, validate_id};
use crate::json;
use crate::store::{Edit, EditKind};
use crate::tasks;
use crate::uuids;

use super::error::ApiError;
use super::local_docs::NewLocalDoc;
use super::question::List;
use super::request::{Db, Payload, durability};
use super::{AppState, answer};

/// Bytes that a document takes beside its own, with its answer: an edit, its ids, its row as values and as text.
const DOC_COST: usize = 1536;

/// The handler.
pub async fn post(
    State(state): State<AppState>,
    Db(db): Db,
    Extension(caller): Extension<Arc<Caller>>,
    payload: Payload,
) -> Result<Response, ApiError> {
    state.traffic.bulk_requests().increment();
    let (durability, room) = (durability(payload.headers()), state.question_memory());
    let body = payload.json().await?;
    // Kept to the end: what is written counts among the bodies in memory as long as it waits for its turn.
    let counted = body.clone();
    let read = move || {
        let docs = docs(&body)?;
        let count = docs.count();
        let held = room.take(count.saturating_mul(DOC_COST))?;
        parse(&body, docs, count).map(|parsed| (parsed, held))
    };
    let (Parsed { edits, local, new_edits }, held) = tasks::blocking("parse _bulk_docs", read).await??;
    // Revisions that come with their history are known before they are written, and told where one isn't.
    let sent = edits.iter().map(|(place, edit)| (*place, edit.id.clone(), brought(edit))).collect::<Vec<_>>();
    let results = db.write(edits.into_iter().map(|(_, edit)| edit).collect(), &caller, durability).await?;
    let mut answers = Vec::new();
    for ((place, id, brought), result) in sent.into_iter().zip(results) {
        answers.extend(told((id, brought), result.map_err(Into::into), new_edits).map(|row| (place, row)));
    }
    for (place, id, doc) in local {
        let result = doc.write(&db, local_id(&id).unwrap_or_default(), !new_edits).await;
        answers.extend(told((DocId::from(id), None), result, new_edits).map(|row| (place, row)));
    }
    drop(counted);
    answers.sort_unstable_by_key(|(place, _)| *place);
    let answers = answers.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
    Ok(answer::held(StatusCode::CREATED, &answers, held))
}

fn brought(edit: &Edit) -> Option<Rev> {
    match &edit.kind {
        EditKind::New { .. } => None,
        EditKind::Replicated { path } => Some(path.newest()),
    }
}

fn told(
    (id, brought): (DocId, Option<Rev>),
    result: Result<impl Serialize, ApiError>,
    new_edits: bool,
) -> Option<Value> {
    match result {
        Ok(rev) => new_edits.then(|| json!({ "ok": true, "id": id, "rev": rev })),
        Err(refused) => {
            let (error, reason) = refused.pair();
            Some(match brought {
                Some(rev) => json!({ "id": id, "rev": rev, "error": error, "reason": reason }),
                None => json!({ "id": id, "error": error, "reason": reason }),
            })
        }
    }
}

/// The documents of a request, each with its place in it.
struct Parsed {
    edits: Vec<(usize, Edit)>,
    local: Vec<(usize, String, NewLocalDoc)>,
    new_edits: bool,
}

/// The documents of a request, all of which is checked.
fn docs(body: &Bytes) -> Result<List, ApiError> {
    match List::of(body, "docs", "`docs` parameter must be an array.") {
        Ok(docs) => docs.ok_or_else(|| ApiError::bad_request("POST body must include `docs` parameter.")),
        Err(ApiError::Document(DocumentError::NotAnObject)) => {
            Err(ApiError::bad_request("Request body must be a JSON object"))
        }
        Err(error) => Err(error),
    }
}

/// Reads a checked request's documents, one after the other where they stand.
fn parse(body: &[u8], mut docs: List, count: usize) -> Result<Parsed, ApiError> {
    let new_edits = match json::member(body, "new_edits")? {
        None | Some(b"null" | b"true") => true,
        Some(b"false") => false,
        Some(_) => return Err(ApiError::bad_request("`new_edits` parameter must be a boolean.")),
    };
    let mut parsed = Parsed { edits: Vec::with_capacity(count), local: Vec::new(), new_edits };
    for place in 0..count {
        let Some(text) = docs.element() else { break };
        let parts = match DocParts::parse(text) {
            Ok(parts) if parts.id.as_deref().is_none_or(|id| local_id(id).is_none()) => parts,
            // A `_local` document's `_rev` is none elsewhere.
            other => {
                let Some(id) = NewLocalDoc::id(text)? else {
                    return Err(other.err().unwrap_or(DocumentError::BadRev).into());
                };
                let doc = NewLocalDoc::parse(text)?;
                if !new_edits && !doc.has_rev() {
                    return Err(DocumentError::RevMissing.into());
                }
                parsed.local.push((place, id, doc));
                continue;
            }
        };
        let id = parts.id.clone().map_or_else(|| Cow::Owned(uuids::sequential()), Cow::from);
        validate_id(&id)?;
        parsed.edits.push((place, Edit::new(&parts, DocId::from(id.as_ref()), !new_edits, Vec::new())?));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Refusal;

    fn reason(body: impl Into<Vec<u8>>) -> String {
        let body = Bytes::from(body.into());
        let parsed = docs(&body).and_then(|docs| parse(&body, docs.clone(), docs.count()));
        parsed.err().unwrap().pair().1.into_owned()
    }

    #[test]
    fn a_request_that_makes_no_sense_is_told_why() {
        assert_eq!(reason(""), "invalid UTF-8 JSON");
        assert_eq!(reason("{\"docs\":[}"), "invalid UTF-8 JSON");
        let deep = format!(r#"{{"x":{}{},"docs":[]}}"#, "[".repeat(100_002), "]".repeat(100_002));
        assert_eq!(reason(deep), "invalid UTF-8 JSON");
        assert_eq!(reason(*b"{\"x\":\"\xff\",\"docs\":[{}]}"), "invalid UTF-8 JSON");
        assert_eq!(reason("[]"), "Request body must be a JSON object");
        assert_eq!(reason("{}"), "POST body must include `docs` parameter.");
        assert_eq!(reason("{\"docs\":{}}"), "`docs` parameter must be an array.");
        assert_eq!(reason("{\"docs\":[],\"new_edits\":1}"), "`new_edits` parameter must be a boolean.");
        assert_eq!(reason("{\"docs\":[1]}"), "Document must be a JSON object");
        assert_eq!(reason("{\"docs\":[{\"_id\":\"_x\"}]}"), "Only reserved document ids may start with underscore.");
    }

    #[test]
    fn new_edits_decides_who_is_told() {
        let rev = Rev::parse("1-a").unwrap();
        let sent = || (DocId::from("x"), None);
        assert_eq!(told(sent(), Ok(rev.clone()), true), Some(json!({ "ok": true, "id": "x", "rev": "1-a" })));
        assert_eq!(told(sent(), Ok(rev.clone()), false), None);
        assert_eq!(
            told(sent(), Err::<Rev, _>(ApiError::Conflict), true),
            Some(json!({ "id": "x", "error": "conflict", "reason": "Document update conflict." }))
        );
        let stub = ApiError::from(Refusal::MissingStub { id: "x".into(), name: "a.txt".into() });
        assert_eq!(
            told(("x".into(), Some(rev)), Err::<Rev, _>(stub), false),
            Some(json!({
                "id": "x", "rev": "1-a", "error": "missing_stub", "reason": "Invalid attachment stub in x for a.txt"
            }))
        );
    }
}
