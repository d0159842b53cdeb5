//! `POST /{db}/_bulk_get`: many revisions of many documents, streamed as JSON.
//!
//! Answered in the order of the request, one result an entry. The question is read where it stands, and the answer is
//! rendered about a chunk at a time, each from a snapshot of its own, so neither's length matters; revisions are immutable,
//! so the snapshots don't either.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::document::{DocumentError, Rev};
use crate::json::push_string;
use crate::store::{DocOptions, Snapshot, StoreError};
use crate::tasks;

use super::answer::{APPLICATION_JSON, CHUNK};
use super::error::ApiError;
use super::open_revs::Leaves;
use super::outgoing::Outgoing;
use super::query::Query;
use super::question::List;
use super::request::{Db, Payload};
use super::{AppState, answer, open_revs};

#[derive(Deserialize)]
struct Entry {
    id: String,
    rev: Option<String>,
    atts_since: Option<Vec<Rev>>,
}

struct Request {
    options: DocOptions,
    latest: bool,
}

/// How far the answer has come.
struct Progress {
    /// Entries that are still to be answered.
    entries: List,
    started: bool,
    /// The entry in hand.
    open: Option<Open>,
    done: bool,
}

/// An entry of which some leaves are still to be answered.
struct Open {
    entry: Entry,
    leaves: Leaves,
    /// Its own, if it has some.
    options: Option<DocOptions>,
    started: bool,
}

/// The handler.
pub async fn post(
    State(state): State<AppState>,
    Db(db): Db,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    state.traffic.bulk_requests().increment();
    let request = Arc::new(Request { options: query.doc_options()?, latest: query.flag("latest")? });
    let question = payload.json().await?;
    let entries = tasks::blocking("read _bulk_get's question", move || entries(&question)).await??;
    let answers = state.answers.clone();
    let body = answer::streamed(&state.tasks, "_bulk_get", |sink| async move {
        let mut progress = Progress { entries, started: false, open: None, done: false };
        while !progress.done {
            let (request, out) = (request.clone(), Outgoing::chunk(&answers));
            let (piece, next) = answers.read(&db, move |snapshot| piece(snapshot, &request, progress, out)).await?;
            progress = next;
            piece.send(&sink, &db).await?;
        }
        sink.send("]}\n").await
    })
    .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

/// The entries of a question, each of which can be read.
fn entries(question: &Bytes) -> Result<List, ApiError> {
    const NO_LIST: &str = "Missing JSON list of 'docs'.";
    let entries = match List::of(question, "docs", NO_LIST) {
        Ok(Some(entries)) => entries,
        Ok(None) | Err(ApiError::Document(DocumentError::NotAnObject)) => return Err(ApiError::bad_request(NO_LIST)),
        Err(error) => return Err(error),
    };
    entries.each(|text| entry(text).map(drop))?;
    Ok(entries)
}

fn entry(text: &[u8]) -> Result<Entry, ApiError> {
    serde_json::from_slice(text).map_err(|error| ApiError::bad_request(format!("Invalid entry of `docs`: {error}")))
}

/// Renders what comes next until there is a chunk.
fn piece(
    snapshot: &Snapshot,
    request: &Request,
    mut progress: Progress,
    mut out: Outgoing,
) -> Result<(Outgoing, Progress), StoreError> {
    if !progress.started {
        out.json.extend_from_slice(br#"{"results":["#);
    }
    while out.json.len() < CHUNK {
        let mut open = match progress.open.take() {
            Some(open) => open,
            // All of them can be read.
            None => match progress.entries.element().and_then(|text| entry(text).ok()) {
                None => {
                    progress.done = true;
                    break;
                }
                Some(entry) => {
                    if progress.started {
                        out.json.push(b',');
                    }
                    progress.started = true;
                    match begin(snapshot, request, entry, &mut out)? {
                        Some(open) => open,
                        None => continue,
                    }
                }
            },
        };
        render_leaves(snapshot, request, &mut open, &mut out)?;
        match open.leaves.is_empty() {
            true => out.json.extend_from_slice(b"]}"),
            false => progress.open = Some(open),
        }
    }
    Ok((out, progress))
}

/// Begins an entry's answer; where there is but an error, `None`, and it is whole.
fn begin(snapshot: &Snapshot, request: &Request, entry: Entry, out: &mut Outgoing) -> Result<Option<Open>, StoreError> {
    out.json.extend_from_slice(br#"{"id":"#);
    push_string(&mut out.json, &entry.id);
    out.json.extend_from_slice(br#","docs":["#);
    let wanted = match entry.rev.as_deref().map(Rev::parse) {
        Some(None) => {
            push_error(&mut out.json, &entry.id, entry.rev.as_deref(), "bad_request", "Invalid rev format");
            out.json.extend_from_slice(b"]}");
            return Ok(None);
        }
        Some(Some(rev)) => open_revs::Wanted::Revs { revs: vec![rev], latest: request.latest },
        None => open_revs::Wanted::All,
    };
    let (leaves, _) = wanted.find(snapshot.document(&entry.id)?.as_ref());
    if leaves.is_empty() {
        push_error(&mut out.json, &entry.id, entry.rev.as_deref(), "not_found", "missing");
        out.json.extend_from_slice(b"]}");
        return Ok(None);
    }
    let since = entry.atts_since.as_ref().filter(|since| !since.is_empty());
    let options = since.map(|since| DocOptions { atts_since: Some(since.clone()), ..request.options.clone() });
    Ok(Some(Open { leaves: Leaves::new(leaves, &wanted), options, started: false, entry }))
}

fn render_leaves(
    snapshot: &Snapshot,
    request: &Request,
    open: &mut Open,
    out: &mut Outgoing,
) -> Result<(), StoreError> {
    let record = snapshot.document(&open.entry.id)?;
    let options = open.options.as_ref().unwrap_or(&request.options);
    while out.json.len() < CHUNK {
        let Some(leaf) = open.leaves.next(record.as_ref()) else { return Ok(()) };
        if open.started {
            out.json.push(b',');
        }
        open.started = true;
        match (leaf, &record) {
            (Ok(leaf), Some(record)) => {
                out.json.extend_from_slice(br#"{"ok":"#);
                out.render(snapshot, &open.entry.id, record, &leaf, options)?;
                out.json.push(b'}');
            }
            _ => push_error(&mut out.json, &open.entry.id, open.entry.rev.as_deref(), "not_found", "missing"),
        }
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
        let question = br#"{"docs":[{"id":"a","rev":"1-a","atts_since":["1-b"]},{"id":"b"}]}"#;
        let mut read = entries(&Bytes::from_static(question)).unwrap();
        let mut next = || entry(read.element().unwrap()).unwrap();
        let (first, second) = (next(), next());
        assert_eq!((first.id.as_str(), first.rev.as_deref()), ("a", Some("1-a")));
        assert_eq!(first.atts_since.as_deref(), Some(&[Rev::parse("1-b").unwrap()][..]));
        assert!(second.rev.is_none());
        let reason = |body: &'static [u8]| entries(&Bytes::from_static(body)).unwrap_err().pair().1.into_owned();
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
