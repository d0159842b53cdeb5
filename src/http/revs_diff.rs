//! `POST /{db}/_revs_diff` and `_missing_revs`: which of these revisions the database lacks.
//!
//! Documents that lack nothing are absent from the answer. `possible_ancestors` are leaves whose attachments the
//! source needn't send again. The question is checked as a whole, and then read where it stands. A long one that lacks
//! nothing is read a turn at a time, so that others have theirs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::document::{DocumentError, Rev};
use crate::json::{self, Cursor, Member};
use crate::store::{Database, Snapshot, StoreError};
use crate::tasks;

use super::answer::{APPLICATION_JSON, CHUNK, Turn};
use super::error::ApiError;
use super::outgoing::Outgoing;
use super::request::{Db, Payload};
use super::{AppState, answer, question};

/// `POST /{db}/_revs_diff`.
pub async fn revs_diff(State(state): State<AppState>, Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    write(state, db, payload, true).await
}

/// `POST /{db}/_missing_revs`, the older form of the same.
pub async fn missing_revs(State(state): State<AppState>, Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    write(state, db, payload, false).await
}

/// How far the answer has come.
#[derive(Default)]
struct Progress {
    asked: Cursor,
    started: bool,
    done: bool,
}

async fn write(
    state: AppState,
    db: Arc<Database>,
    payload: Payload,
    with_ancestors: bool,
) -> Result<Response, ApiError> {
    let question = payload.json().await?;
    let question = tasks::blocking("read _revs_diff's question", move || check(&question).map(|()| question)).await??;
    let answers = state.answers.clone();
    let body = answer::streamed(&state.tasks, "_revs_diff", |sink| async move {
        sink.send(if with_ancestors { "{" } else { "{\"missing_revs\":{" }).await?;
        let mut progress = Progress::default();
        while !progress.done {
            let (question, out) = (question.clone(), Outgoing::new(&answers));
            let diff =
                move |snapshot: &Snapshot| diff(snapshot, &question, progress, out, with_ancestors, Turn::begin());
            let (piece, next) = answers.read(&db, diff).await?;
            progress = next;
            piece.send(&sink, &db).await?;
        }
        sink.send(if with_ancestors { "}\n" } else { "}}\n" }).await
    })
    .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

/// A document and the revisions that somebody has of it.
fn asked(member: &Member<'_>) -> Result<Vec<Rev>, ApiError> {
    question::limited(member.value)?;
    Ok(serde_json::from_slice(member.value).map_err(|_| DocumentError::BadRev)?)
}

fn check(question: &[u8]) -> Result<(), ApiError> {
    json::check(question)?;
    if !question.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("Request body must be a JSON object"));
    }
    let mut cursor = Cursor::default();
    while let Some(member) = cursor.member(question) {
        asked(&member)?;
    }
    Ok(())
}

/// Answers what comes next until there is a chunk, or the turn is over.
fn diff(
    snapshot: &Snapshot,
    question: &[u8],
    mut progress: Progress,
    mut out: Outgoing,
    with_ancestors: bool,
    mut turn: Turn,
) -> Result<(Outgoing, Progress), StoreError> {
    while out.json.len() < CHUNK && turn.has_time() {
        // All of them can be read.
        let next = progress.asked.member(question).and_then(|member| Some((asked(&member).ok()?, member.key)));
        let Some((revs, id)) = next else {
            progress.done = true;
            break;
        };
        let record = snapshot.document(&id)?;
        let known = |rev: &Rev| record.as_ref().is_some_and(|record| record.tree.contains(rev));
        let missing = revs.into_iter().filter(|rev| !known(rev)).collect::<Vec<_>>();
        if missing.is_empty() {
            continue;
        }
        let ancestors = match &record {
            Some(record) if with_ancestors => record.tree.possible_ancestors(&missing),
            _ => Vec::new(),
        };
        if progress.started {
            out.json.push(b',');
        }
        progress.started = true;
        push_lacking(&mut out.json, &id, &missing, &ancestors, with_ancestors);
    }
    Ok((out, progress))
}

fn push_lacking(out: &mut Vec<u8>, id: &str, missing: &[Rev], ancestors: &[Rev], named: bool) {
    json::push_string(out, id);
    out.push(b':');
    if named {
        out.extend_from_slice(br#"{"missing":"#);
    }
    push_revs(out, missing);
    if !ancestors.is_empty() {
        out.extend_from_slice(br#","possible_ancestors":"#);
        push_revs(out, ancestors);
    }
    if named {
        out.push(b'}');
    }
}

fn push_revs(out: &mut Vec<u8>, revs: &[Rev]) {
    out.push(b'[');
    for (index, rev) in revs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, &rev.to_string());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::answer::Answers;
    use super::super::answer::tests::database;
    use super::*;

    fn revs(texts: &[&str]) -> Vec<Rev> {
        texts.iter().map(|text| Rev::parse(text).unwrap()).collect()
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check(br#" {"b":["1-a","2-b"],"a":[]}"#).unwrap();
        let reason = |body: &[u8]| check(body).unwrap_err().pair().1.into_owned();
        assert_eq!(reason(br#"{"b":[],"a":["x"]}"#), "Invalid rev format");
        assert_eq!(reason(b"[]"), "Request body must be a JSON object");
        assert_eq!(reason(b"{"), "invalid UTF-8 JSON");
    }

    /// A question of 128 MiB that lacked nothing was read through in one piece, while others waited for their turn.
    #[tokio::test]
    async fn pieces_end_with_their_turns_and_lack_the_same() {
        let (db, _directory) = database(&[r#"{"_id":"a","_rev":"1-a"}"#, r#"{"_id":"b","_rev":"1-b"}"#]).await;
        let question = br#"{"a":["1-a"],"b":["1-b"],"c":["1-c"],"a":["1-a"],"b":["1-a"],"d":[]}"#;
        let pieces = async |time| {
            let reading = db.read(move |snapshot| {
                let (mut pieces, mut progress) = (Vec::new(), Progress::default());
                while !progress.done {
                    let out = Outgoing::new(&Answers::new(0));
                    let (out, next) = diff(snapshot, question, progress, out, false, Turn::of(time))?;
                    pieces.push(String::from_utf8(out.json).unwrap());
                    progress = next;
                }
                Ok(pieces)
            });
            reading.await.unwrap()
        };
        assert_eq!(pieces(Duration::from_secs(600)).await, [r#""c":["1-c"],"b":["1-a"]"#]);
        assert_eq!(pieces(Duration::ZERO).await, ["", "", r#""c":["1-c"]"#, "", r#","b":["1-a"]"#, "", ""]);
    }

    #[test]
    fn what_is_lacking_is_named_as_couchdb_does() {
        let lacking = |ancestors: &[&str], named| {
            let mut out = Vec::new();
            push_lacking(&mut out, "a", &revs(&["2-b", "3-c"]), &revs(ancestors), named);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lacking(&[], true), r#""a":{"missing":["2-b","3-c"]}"#);
        assert_eq!(lacking(&["1-a"], true), r#""a":{"missing":["2-b","3-c"],"possible_ancestors":["1-a"]}"#);
        assert_eq!(lacking(&[], false), r#""a":["2-b","3-c"]"#);
    }
}
