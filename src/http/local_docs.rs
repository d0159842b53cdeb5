//! `_local` documents: no history, no conflicts, never replicated; replicators keep their checkpoints in them.
//!
//! Their revisions are `0-1`, `0-2`, …, which no other document has, so they are taken apart here.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::document::{DocId, DocumentError, local_id};
use crate::json::{self, push_string};
use crate::store::{Database, LocalRange, LocalRow};

use super::AppState;
use super::answer::{self, APPLICATION_JSON, Sink, Stopped};
use super::error::ApiError;
use super::query::Query;
use super::request::{Db, DocPath, Payload, parent_text};

/// `GET /{db}/_local/{id}`.
pub async fn get(DocPath { db, id }: DocPath) -> Result<Response, ApiError> {
    let (rev, body) = db.local_doc(id.as_str()).await?.ok_or(ApiError::Missing)?;
    Ok(answer::text(StatusCode::OK, rendered(id.as_str(), &rev, &body)))
}

/// `PUT /{db}/_local/{id}`. With `"_deleted":true` it is a DELETE.
pub async fn put(DocPath { db, id }: DocPath, query: Query, payload: Payload) -> Result<Response, ApiError> {
    let headers = payload.headers().clone();
    let sent = Sent::parse(&payload.whole().await?)?;
    let rev = parent_text(&query, &headers)?.or(sent.rev);
    let status = if sent.deleted { StatusCode::OK } else { StatusCode::CREATED };
    let body = (!sent.deleted).then_some(sent.body);
    let rev = db.put_local_doc(id.as_str(), rev.as_deref(), body).await??;
    let id = full_id(&id);
    let response = answer::json(status, &json!({ "ok": true, "id": id, "rev": rev }));
    Ok(answer::located(response, &headers, &[db.name().as_str(), &id]))
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
    let key = |name: &str, alias: &str| match query.json::<String>(name)? {
        None => query.json::<String>(alias),
        Some(key) => Ok::<_, ApiError>(Some(key)),
    };
    let without_prefix = |key: String| key.strip_prefix("_local/").map(str::to_owned);
    // An id that isn't a `_local` one is before or after all of them.
    let (start, end) = (key("startkey", "start_key")?, key("endkey", "end_key")?);
    let none =
        start.as_deref().is_some_and(|start| start > "_local/~") || end.as_deref().is_some_and(|end| end < "_local/");
    let (start, end) = (start.and_then(without_prefix), end.and_then(without_prefix));
    let limit = if none { 0 } else { query.number("limit")?.unwrap_or(u64::MAX) };
    let range = LocalRange { start, end, after: None, bodies: query.flag("include_docs")? };
    let body = answer::streamed(&state.tasks, "_local_docs", |sink| write(sink, db, range, limit)).await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

async fn write(sink: Sink, db: Arc<Database>, mut range: LocalRange, mut limit: u64) -> Result<(), Stopped> {
    let mut out = b"{\"total_rows\":null,\"offset\":null,\"rows\":[\n".to_vec();
    let mut separator: &[u8] = b"";
    while limit > 0 {
        let rows = db.local_docs(range.clone()).await?;
        let Some(last) = rows.last() else { break };
        range = LocalRange { start: None, after: Some(last.id.clone()), ..range };
        for row in rows.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            limit -= 1;
            out.extend_from_slice(std::mem::replace(&mut separator, b",\n"));
            push_row(&mut out, row, range.bodies);
        }
        sink.send(std::mem::take(&mut out)).await?;
    }
    out.extend_from_slice(b"\n]}\n");
    sink.send(out).await
}

fn push_row(out: &mut Vec<u8>, LocalRow { id, rev, json }: LocalRow, include_docs: bool) {
    let id = DocId::from(id);
    let full = json!(full_id(&id));
    out.extend(format!(r#"{{"id":{full},"key":{full},"value":{}"#, json!({ "rev": rev })).into_bytes());
    if include_docs {
        out.extend_from_slice(br#","doc":"#);
        out.extend(rendered(id.as_str(), &rev, &json));
    }
    out.push(b'}');
}

fn full_id(id: &DocId) -> String {
    format!("_local/{id}")
}

/// A local document as it is answered: `body` is an object without `_id` and `_rev`.
fn rendered(id: &str, rev: &str, body: &[u8]) -> Vec<u8> {
    let mut out = br#"{"_id":"#.to_vec();
    push_string(&mut out, &format!("_local/{id}"));
    out.extend_from_slice(br#","_rev":"#);
    push_string(&mut out, rev);
    match body.trim_ascii().strip_prefix(b"{").map(<[u8]>::trim_ascii_start) {
        None | Some(b"}") => out.push(b'}'),
        Some(members) => {
            out.push(b',');
            out.extend_from_slice(members);
        }
    }
    out
}

/// A local document that a client sends.
#[derive(Debug, PartialEq)]
pub struct Sent {
    rev: Option<String>,
    deleted: bool,
    body: Vec<u8>,
}

impl Sent {
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
        let sent = Sent::parse(br#"{"_id":"_local/x","session_id":"a", "_rev":"0-1","n":1.0}"#).unwrap();
        assert_eq!(sent.rev.as_deref(), Some("0-1"));
        assert_eq!(sent.body, br#"{"session_id":"a","n":1.0}"#);
        assert!(Sent::parse(br#"{"_deleted":true}"#).unwrap().deleted);
        assert_eq!(Sent::parse(br#"{"_x":1}"#), Err(DocumentError::BadMember("_x".into())));
        assert_eq!(Sent::parse(b"[]"), Err(DocumentError::NotAnObject));
    }

    #[test]
    fn what_is_answered_starts_with_id_and_rev() {
        let text = |body: &[u8]| String::from_utf8(rendered("x", "0-1", body)).unwrap();
        assert_eq!(text(br#"{"a":1}"#), r#"{"_id":"_local/x","_rev":"0-1","a":1}"#);
        assert_eq!(text(b"{}"), r#"{"_id":"_local/x","_rev":"0-1"}"#);
    }
}
