//! `_local` documents: no history, no conflicts, never replicated; replicators keep their checkpoints in them.
//!
//! Their revisions are `0-1`, `0-2`, …, which no other document has, so they are taken apart here.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::document::{DocId, DocumentError};
use crate::json::{self, push_string};

use super::answer;
use super::error::ApiError;
use super::query::Query;
use super::request::{Db, DocPath, Payload, durability, parent_text};

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
    let body = (!sent.deleted).then_some(sent.body);
    let rev = db.put_local_doc(id.as_str(), rev.as_deref(), body, durability(&headers)).await??;
    let id = full_id(&id);
    let response = answer::json(StatusCode::CREATED, &json!({ "ok": true, "id": id, "rev": rev }));
    Ok(answer::located(response, &headers, &[db.name().as_str(), &id]))
}

/// `DELETE /{db}/_local/{id}?rev=`.
pub async fn delete(DocPath { db, id }: DocPath, query: Query, headers: HeaderMap) -> Result<Response, ApiError> {
    db.local_doc(id.as_str()).await?.ok_or(ApiError::Missing)?;
    let rev = parent_text(&query, &headers)?;
    let rev = db.put_local_doc(id.as_str(), rev.as_deref(), None, durability(&headers)).await??;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true, "id": full_id(&id), "rev": rev })))
}

/// `GET /{db}/_local_docs`.
pub async fn list(Db(db): Db, query: Query) -> Result<Response, ApiError> {
    let include_docs = query.flag("include_docs")?;
    let rows = db.local_docs().await?.into_iter().map(|(id, rev, body)| {
        let id = DocId::from(id);
        let full = json!(full_id(&id));
        let mut row = format!(r#"{{"id":{full},"key":{full},"value":{}"#, json!({ "rev": rev })).into_bytes();
        if include_docs {
            row.extend_from_slice(br#","doc":"#);
            row.extend(rendered(id.as_str(), &rev, &body));
        }
        row.push(b'}');
        row
    });
    let mut out = b"{\"total_rows\":null,\"offset\":null,\"rows\":[\n".to_vec();
    out.extend(rows.collect::<Vec<_>>().join(b",\n".as_slice()));
    out.extend_from_slice(b"\n]}");
    Ok(answer::text(StatusCode::OK, out))
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
struct Sent {
    rev: Option<String>,
    deleted: bool,
    body: Vec<u8>,
}

impl Sent {
    fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let mut sent = Self { rev: None, deleted: false, body: b"{".to_vec() };
        for member in json::members(text)? {
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
