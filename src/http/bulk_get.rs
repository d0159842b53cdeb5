//! `POST /{db}/_bulk_get`: many revisions of many documents, streamed as JSON.
//!
//! Answered in the order of the request, one result an entry. The answer is rendered about a chunk at a time, each
//! from a snapshot of its own, so its length doesn't matter; revisions are immutable, so the snapshots don't either.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::document::{DocumentError, Rev};
use crate::json::push_string;
use crate::store::{DocOptions, Snapshot, StoreError};

use super::answer::{APPLICATION_JSON, CHUNK};
use super::draft::Draft;
use super::error::ApiError;
use super::query::Query;
use super::request::{Db, Payload};
use super::{AppState, answer, open_revs};

#[derive(Deserialize)]
struct Entry {
    id: String,
    rev: Option<String>,
    atts_since: Option<Vec<Rev>>,
}

struct Request {
    entries: Vec<Entry>,
    options: DocOptions,
    latest: bool,
}

/// The handler.
pub async fn post(
    State(state): State<AppState>,
    Db(db): Db,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    let entries = parse(&payload.json().await?)?;
    let request = Arc::new(Request { entries, options: query.doc_options()?, latest: query.flag("latest")? });
    let body = answer::streamed(&state.tasks, "_bulk_get", |sink| async move {
        let mut at = 0;
        loop {
            let job = request.clone();
            let (piece, next) = db.read(move |snapshot| piece(snapshot, &job, at)).await?;
            piece.send(&sink, &db).await?;
            if next == request.entries.len() {
                return sink.send("]}\n").await;
            }
            at = next;
        }
    })
    .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

fn parse(body: &[u8]) -> Result<Vec<Entry>, ApiError> {
    let mut request: Value = serde_json::from_slice(body).map_err(|_| DocumentError::InvalidJson)?;
    match request.get_mut("docs").map(Value::take) {
        Some(docs @ Value::Array(_)) => serde_json::from_value(docs)
            .map_err(|error| ApiError::bad_request(format!("Invalid entry of `docs`: {error}"))),
        _ => Err(ApiError::bad_request("Missing JSON list of 'docs'.")),
    }
}

/// Renders entries from `at` on until there is a chunk, and tells the first that isn't in it.
fn piece(snapshot: &Snapshot, request: &Request, mut at: usize) -> Result<(Draft, usize), StoreError> {
    let mut out = Draft::from(Vec::with_capacity(CHUNK + CHUNK / 4));
    if at == 0 {
        out.json.extend_from_slice(br#"{"results":["#);
    }
    while at < request.entries.len() && out.json.len() < CHUNK {
        if at > 0 {
            out.json.push(b',');
        }
        render(snapshot, request, &request.entries[at], &mut out)?;
        at += 1;
    }
    Ok((out, at))
}

fn render(snapshot: &Snapshot, request: &Request, entry: &Entry, out: &mut Draft) -> Result<(), StoreError> {
    out.json.extend_from_slice(br#"{"id":"#);
    push_string(&mut out.json, &entry.id);
    out.json.extend_from_slice(br#","docs":["#);
    let rev = entry.rev.as_deref();
    match rev.map(Rev::parse) {
        Some(None) => push_error(&mut out.json, &entry.id, rev, "bad_request", "Invalid rev format"),
        parsed => {
            let wanted = match parsed.flatten() {
                None => open_revs::Wanted::All,
                Some(rev) => open_revs::Wanted::Revs { revs: vec![rev], latest: request.latest },
            };
            let own_options;
            let options = match &entry.atts_since {
                Some(since) if !since.is_empty() => {
                    own_options = DocOptions { atts_since: Some(since.clone()), ..request.options.clone() };
                    &own_options
                }
                _ => &request.options,
            };
            render_leaves(snapshot, entry, &wanted, options, out)?;
        }
    }
    out.json.extend_from_slice(b"]}");
    Ok(())
}

fn render_leaves(
    snapshot: &Snapshot,
    entry: &Entry,
    wanted: &open_revs::Wanted,
    options: &DocOptions,
    out: &mut Draft,
) -> Result<(), StoreError> {
    let record = snapshot.document(&entry.id)?;
    let (leaves, _) = wanted.find(record.as_ref());
    let Some(record) = record.filter(|_| !leaves.is_empty()) else {
        push_error(&mut out.json, &entry.id, entry.rev.as_deref(), "not_found", "missing");
        return Ok(());
    };
    for (index, leaf) in leaves.iter().enumerate() {
        if index > 0 {
            out.json.push(b',');
        }
        out.json.extend_from_slice(br#"{"ok":"#);
        out.render(snapshot, &entry.id, &record, leaf, options)?;
        out.json.push(b'}');
    }
    Ok(())
}

fn push_error(out: &mut Vec<u8>, id: &str, rev: Option<&str>, error: &str, reason: &str) {
    let rev = rev.unwrap_or("undefined");
    let error = json!({ "error": { "id": id, "rev": rev, "error": error, "reason": reason } });
    out.extend_from_slice(error.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_or_refused() {
        let entries = parse(br#"{"docs":[{"id":"a","rev":"1-a","atts_since":["1-b"]},{"id":"b"}]}"#).unwrap();
        assert_eq!((entries[0].id.as_str(), entries[0].rev.as_deref()), ("a", Some("1-a")));
        assert_eq!(entries[0].atts_since.as_deref(), Some(&[Rev::parse("1-b").unwrap()][..]));
        assert!(entries[1].rev.is_none());
        let reason = |body: &[u8]| parse(body).err().unwrap().pair().1.into_owned();
        assert_eq!(reason(b"{}"), "Missing JSON list of 'docs'.");
        assert_eq!(reason(b"{"), "invalid UTF-8 JSON");
        assert!(reason(br#"{"docs":[{}]}"#).starts_with("Invalid entry of `docs`: missing field `id`"));
    }

    #[test]
    fn an_entry_that_isnt_there_is_an_error_of_its_own() {
        let mut out = Vec::new();
        push_error(&mut out, "x", None, "not_found", "missing");
        let expected = r#"{"error":{"id":"x","rev":"undefined","error":"not_found","reason":"missing"}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
