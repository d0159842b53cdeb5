//! `_local` documents: no history, no conflicts, never replicated; replicators keep their checkpoints in them.
//!
//! Their revisions are `0-1`, `0-2`, …, which no other document has, so they are taken apart here.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::document::{DocId, DocumentError, local_id};
use crate::json::{self, push_string};
use crate::store::{Database, LocalDoc, Snapshot, StoreError};
use crate::tasks;

use super::answer::{APPLICATION_JSON, Answers, CHUNK, Sink, Stopped};
use super::error::ApiError;
use super::outgoing::Outgoing;
use super::query::Query;
use super::request::{Db, DocPath, Payload, parent_text};
use super::{AppState, answer, batch};

/// `GET /{db}/_local/{id}`.
pub async fn get(State(state): State<AppState>, DocPath { db, id }: DocPath) -> Result<Response, ApiError> {
    let mut out = Outgoing::new(&state.answers);
    let found = state.answers.read(&db, move |snapshot| {
        let mut found = false;
        snapshot.local_docs(id.as_str(), |doc| {
            found = doc.id == id.as_str();
            if found {
                render(&doc, &mut out);
            }
            Ok(false)
        })?;
        Ok(found.then_some(out))
    });
    found.await?.ok_or(ApiError::Missing)?.answer(&state.tasks, db).await
}

/// `PUT /{db}/_local/{id}`. With `"_deleted":true` it is a DELETE.
pub async fn put(DocPath { db, id }: DocPath, query: Query, payload: Payload) -> Result<Response, ApiError> {
    let headers = payload.headers().clone();
    let text = payload.whole().await?;
    let sent = tasks::blocking("parse _local document", move || NewLocalDoc::parse(&text)).await??;
    let rev = parent_text(&query, &headers)?.or(sent.rev);
    let status = if sent.deleted { StatusCode::OK } else { StatusCode::CREATED };
    let body = (!sent.deleted).then_some(sent.body);
    let written = db.put_local_doc(id.as_str(), rev.as_deref(), body).await?.map_err(ApiError::from);
    let id = full_id(&id);
    if batch::is_wanted(&query) {
        return batch::answer(&id, written.map(drop));
    }
    let rev = written?;
    let response = answer::json(status, &json!({ "ok": true, "id": id, "rev": rev }));
    Ok(answer::located(response, &[db.name().as_str(), &id]))
}

/// `DELETE /{db}/_local/{id}?rev=`.
pub async fn delete(DocPath { db, id }: DocPath, query: Query, headers: HeaderMap) -> Result<Response, ApiError> {
    db.local_doc(id.as_str()).await?.ok_or(ApiError::Missing)?;
    let rev = parent_text(&query, &headers)?;
    let rev = db.put_local_doc(id.as_str(), rev.as_deref(), None).await??;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true, "id": full_id(&id), "rev": rev })))
}

/// `/{db}/_local/{id}/{attachment}`: what follows a slash is no part of an id; `a%2Fb` is one.
pub async fn no_attachments() -> ApiError {
    ApiError::bad_request("_local documents do not accept attachments.")
}

/// `GET /{db}/_local_docs`. The range's ends are ids with their prefix, as CouchDB has them.
pub async fn list(State(state): State<AppState>, Db(db): Db, query: Query) -> Result<Response, ApiError> {
    let without_prefix = |key: String| key.strip_prefix("_local/").map(str::to_owned);
    // An id that isn't a `_local` one is before or after all of them.
    let (start, end) = query.range::<String>()?;
    let none =
        start.as_deref().is_some_and(|start| start > "_local/~") || end.as_deref().is_some_and(|end| end < "_local/");
    let limit = if none { 0 } else { query.number("limit")?.unwrap_or(u64::MAX) };
    let (start, end) = (start.and_then(without_prefix).unwrap_or_default(), end.and_then(without_prefix));
    let rows = Rows { start, end, limit, include_docs: query.flag("include_docs")?, started: false };
    let answers = state.answers.clone();
    let body = answer::streamed(&state.tasks, "_local_docs", |sink| write(sink, db, rows, answers)).await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

/// Rows that are still to be answered.
struct Rows {
    /// From this id on; after it, where some were answered.
    start: String,
    /// Up to this id.
    end: Option<String>,
    limit: u64,
    include_docs: bool,
    started: bool,
}

async fn write(sink: Sink, db: Arc<Database>, rows: Rows, answers: Answers) -> Result<(), Stopped> {
    sink.send("{\"total_rows\":null,\"offset\":null,\"rows\":[\n").await?;
    let mut left = (rows.limit > 0).then_some(rows);
    while let Some(rows) = left {
        let out = Outgoing::chunk(&answers);
        let (piece, more) = answers.read(&db, move |snapshot| piece(snapshot, rows, out)).await?;
        left = more;
        piece.send(&sink, &db).await?;
    }
    sink.send("\n]}\n").await
}

/// Renders rows until there is a chunk, and tells what is left.
fn piece(snapshot: &Snapshot, mut rows: Rows, mut out: Outgoing) -> Result<(Outgoing, Option<Rows>), StoreError> {
    let (mut next, first) = (None, std::mem::take(&mut rows.start));
    snapshot.local_docs(&first, |doc| {
        if rows.started && doc.id == first {
            return Ok(true);
        }
        if rows.end.as_deref().is_some_and(|end| doc.id > end) {
            return Ok(false);
        }
        let (full, rev) = (json!(full_id(&doc.id.into())), json!({ "rev": doc.rev() }));
        let separator = if rows.started { ",\n" } else { "" };
        out.json.extend_from_slice(format!(r#"{separator}{{"id":{full},"key":{full},"value":{rev}"#).as_bytes());
        if rows.include_docs {
            out.json.extend_from_slice(br#","doc":"#);
            render(&doc, &mut out);
        }
        out.json.push(b'}');
        (rows.started, rows.limit) = (true, rows.limit - 1);
        if rows.limit > 0 && out.json.len() >= CHUNK {
            next = Some(doc.id.to_owned());
        }
        Ok(rows.limit > 0 && next.is_none())
    })?;
    Ok((out, next.map(|start| Rows { start, ..rows })))
}

fn full_id(id: &DocId) -> String {
    format!("_local/{id}")
}

/// Renders a local document.
fn render(doc: &LocalDoc<'_>, out: &mut Outgoing) {
    out.json.extend_from_slice(br#"{"_id":"#);
    push_string(&mut out.json, &full_id(&doc.id.into()));
    out.json.extend_from_slice(br#","_rev":"#);
    push_string(&mut out.json, &doc.rev());
    let members = members(doc.json);
    if !members.is_empty() {
        out.json.push(b',');
        let text = members.clone();
        out.push(&doc.json[members], || doc.text(text));
    }
    out.json.push(b'}');
}

/// Where the members stand in an object's text.
fn members(json: &[u8]) -> Range<usize> {
    let Some(open) = json.iter().position(|byte| *byte == b'{') else { return 0..0 };
    let close = json.iter().rposition(|byte| *byte == b'}').unwrap_or(json.len());
    let inner = &json[open + 1..close.max(open + 1)];
    let start = open + 1 + (inner.len() - inner.trim_ascii_start().len());
    start..start + inner.trim_ascii().len()
}

/// A local document that a client sends.
#[derive(Debug, PartialEq)]
pub struct NewLocalDoc {
    rev: Option<String>,
    deleted: bool,
    body: Vec<u8>,
}

impl NewLocalDoc {
    /// Writes it over the revision that it names, or, replicated, over whatever there is; answers the new revision.
    pub async fn write(self, db: &Database, id: &str, replicated: bool) -> Result<String, ApiError> {
        let body = (!self.deleted).then_some(self.body);
        match (replicated, self.rev) {
            (false, rev) => Ok(db.put_local_doc(id, rev.as_deref(), body).await??),
            (true, Some(_)) => Ok(db.overwrite_local_doc(id, body).await??),
            (true, None) => Err(DocumentError::RevMissing.into()),
        }
    }

    /// The id of the document that the text is, if it is a `_local` one.
    pub fn id(text: &[u8]) -> Result<Option<String>, DocumentError> {
        let id = json::members(text)?.filter(|member| member.key == "_id").last();
        let id = id.and_then(|id| json::string(id.value));
        Ok(id.filter(|id| local_id(id).is_some()).map(Cow::into_owned))
    }

    /// Whether it names a revision.
    pub fn has_rev(&self) -> bool {
        self.rev.is_some()
    }

    /// Reads its text.
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let mut sent = Self { rev: None, deleted: false, body: b"{".to_vec() };
        let members = json::members(text)?;
        if members.odd {
            return Err(DocumentError::InvalidJson);
        }
        for member in members {
            match member.key.as_ref() {
                "_rev" => sent.rev = Some(json::string(member.value).ok_or(DocumentError::BadRev)?.into_owned()),
                "_deleted" => sent.deleted = member.value == b"true",
                // The path says which document it is; local documents have neither history nor attachments.
                "_id" | "_revisions" | "_attachments" => {}
                key if key.starts_with('_') => return Err(DocumentError::BadMember(key.into())),
                _ => {
                    if sent.body.len() > 1 {
                        sent.body.push(b',');
                    }
                    sent.body.extend_from_slice(&text[member.span]);
                }
            }
        }
        sent.body.push(b'}');
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_loses_its_underscore_members() {
        let sent = NewLocalDoc::parse(br#"{"_id":"_local/x","session_id":"a", "_rev":"0-1","n":1.0}"#).unwrap();
        assert_eq!(sent.rev.as_deref(), Some("0-1"));
        assert_eq!(sent.body, br#"{"session_id":"a","n":1.0}"#);
        assert!(NewLocalDoc::parse(br#"{"_deleted":true}"#).unwrap().deleted);
        assert_eq!(NewLocalDoc::parse(br#"{"_x":1}"#), Err(DocumentError::BadMember("_x".into())));
        assert_eq!(NewLocalDoc::parse(b"[]"), Err(DocumentError::NotAnObject));
    }

    #[test]
    fn the_members_of_an_object_stand_between_its_brackets() {
        let text = |json: &'static str| &json[members(json.as_bytes())];
        assert_eq!(text(r#" { "a":{} } "#), r#""a":{}"#);
        assert_eq!((text("{}"), text("{ }"), text("")), ("", "", ""));
    }
}
