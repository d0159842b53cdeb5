//! `GET` and `POST /{db}/_all_docs`: documents in the order of their ids' bytes. And `_design_docs`: design documents alone.
//!
//! Streamed about a chunk at a time, each from a fresh snapshot, since a held one makes the file grow: a document that
//! is written meanwhile may show its old or its new revision, never twice. Where much is skipped or deleted, a piece ends
//! with its turn, so that others have theirs. What stands before a start key is counted before the first piece.

mod request;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::json::{self, push_string};
use crate::store::{Database, DocRecord, Leaf, Snapshot, StoreError};
use crate::tasks;

use self::request::{Bound, Documents, KeySpans, Request};
use super::answer::{APPLICATION_JSON, Answers, CHUNK, Sink, Stopped, Turn};
use super::error::ApiError;
use super::outgoing::Outgoing;
use super::query::Query;
use super::question::List;
use super::request::{Db, Payload};
use super::{AppState, answer};

/// `GET /{db}/_all_docs`.
pub async fn get(State(state): State<AppState>, Db(db): Db, query: Query) -> Result<Response, ApiError> {
    asked_by_url(&state, db, query, Documents::All).await
}

/// `GET /{db}/_design_docs`.
pub async fn get_design(State(state): State<AppState>, Db(db): Db, query: Query) -> Result<Response, ApiError> {
    asked_by_url(&state, db, query, Documents::Design).await
}

/// `POST /{db}/_all_docs`: options, `keys` above all, may stand in the body.
pub async fn post(
    State(state): State<AppState>,
    Db(db): Db,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    asked_by_body(&state, db, query, payload, Documents::All).await
}

/// `POST /{db}/_design_docs`.
pub async fn post_design(
    State(state): State<AppState>,
    Db(db): Db,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    asked_by_body(&state, db, query, payload, Documents::Design).await
}

async fn asked_by_url(
    state: &AppState,
    db: Arc<Database>,
    query: Query,
    documents: Documents,
) -> Result<Response, ApiError> {
    let keys = query.get("keys").map(|text| List::parse(text)?.ok_or(ApiError::bad_request(NO_LIST))).transpose()?;
    let request = Request::parse(&query, keys, &state.question_memory())?;
    list(state, db, request.of(documents)).await
}

async fn asked_by_body(
    state: &AppState,
    db: Arc<Database>,
    mut query: Query,
    payload: Payload,
    documents: Documents,
) -> Result<Response, ApiError> {
    let (question, room) = (payload.json().await?, state.question_memory());
    let read = move || {
        query.overlay(&question, "keys")?;
        let keys = List::of(&question, "keys", NO_LIST)?;
        if let Some(keys) = &keys {
            keys.each(|_| Ok(()))?;
        }
        Request::parse(&query, keys, &room)
    };
    let request = tasks::blocking("read _all_docs' question", read).await??;
    list(state, db, request.of(documents)).await
}

const NO_LIST: &str = "`keys` parameter must be an array.";

async fn list(state: &AppState, db: Arc<Database>, request: Request) -> Result<Response, ApiError> {
    let answers = state.answers.clone();
    let body = answer::streamed(&state.tasks, "_all_docs", |sink| write(sink, db, request, answers)).await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

/// How far the answer has come.
#[derive(Debug, Clone, Default)]
struct Progress {
    started: bool,
    /// What [`Request::rank`] counted.
    rank: u64,
    /// The last id that was looked at.
    last: Option<String>,
    /// Keys that are still to be looked at.
    keys: Option<List>,
    /// Keys that were looked at, from the end on.
    from_end: usize,
    skipped: u64,
    rows: u64,
    done: bool,
}

async fn write(sink: Sink, db: Arc<Database>, request: Request, answers: Answers) -> Result<(), Stopped> {
    let rank = tokio::select! {
        biased;
        () = sink.hung_up() => return Err(Stopped::HungUp),
        rank = request.rank(&db, &answers) => rank?,
    };
    let mut progress = Progress { rank, keys: request.keys.clone(), ..Progress::default() };
    let request = Arc::new(request);
    while !progress.done {
        let request = request.clone();
        let out = Outgoing::chunk(&answers);
        let piece = move |snapshot: &Snapshot| piece(snapshot, &request, progress, out, Turn::begin());
        let (piece, next) = answers.read(&db, piece).await?;
        progress = next;
        piece.send(&sink, &db).await?;
    }
    sink.send("\n]}\n").await
}

fn piece(
    snapshot: &Snapshot,
    request: &Request,
    mut progress: Progress,
    mut out: Outgoing,
    turn: Turn,
) -> Result<(Outgoing, Progress), StoreError> {
    if !progress.started {
        progress.started = true;
        out.json.extend(request.head(snapshot, progress.rank)?);
    }
    match &request.keys {
        Some(keys) => by_keys(snapshot, request, keys.text(), &mut progress, &mut out, turn)?,
        None => by_range(snapshot, request, &mut progress, &mut out, turn)?,
    }
    Ok((out, progress))
}

fn by_keys(
    snapshot: &Snapshot,
    request: &Request,
    keys: &[u8],
    progress: &mut Progress,
    out: &mut Outgoing,
    mut turn: Turn,
) -> Result<(), StoreError> {
    while progress.rows < request.limit && out.json.len() < CHUNK && turn.has_time() {
        let key = match (&request.backwards, &mut progress.keys) {
            (Some(KeySpans { spans, .. }), _) => {
                progress.from_end += 1;
                let span = spans.len().checked_sub(progress.from_end).map(|at| &spans[at]);
                span.map(|span| &keys[span.start as usize..span.end as usize])
            }
            (None, left) => left.as_mut().and_then(List::element),
        };
        let Some(key) = key else {
            progress.done = true;
            break;
        };
        if progress.skipped < request.skip {
            progress.skipped += 1;
            continue;
        }
        let id = json::string(key);
        if !request.documents.may_have(id.as_deref()) {
            continue;
        }
        let record = id.as_ref().map(|id| snapshot.document(id)).transpose()?.flatten();
        let found = record.and_then(|record| Some((record.tree.winner()?, record)));
        separate(&mut progress.rows, out);
        match (id, found) {
            (Some(id), Some((winner, record))) => push_row(snapshot, request, &id, &record, &winner, out)?,
            _ => {
                out.json.extend_from_slice(br#"{"key":"#);
                out.json.extend_from_slice(key);
                out.json.extend_from_slice(br#","error":"not_found"}"#);
            }
        }
    }
    progress.done |= progress.rows >= request.limit;
    Ok(())
}

fn by_range(
    snapshot: &Snapshot,
    request: &Request,
    progress: &mut Progress,
    out: &mut Outgoing,
    mut turn: Turn,
) -> Result<(), StoreError> {
    progress.done = true;
    if request.starts_past_all() || request.limit == 0 {
        return Ok(());
    }
    let resumed = progress.last.clone();
    let start = match (&resumed, &request.start) {
        (Some(last), _) => Some(last.as_str()),
        (None, Some(Bound::At(start))) => Some(start.as_str()),
        (None, _) => None,
    };
    let each = |id: &str, record: DocRecord| {
        if resumed.as_deref() == Some(id) {
            return Ok(true);
        }
        if request.past_end(id) {
            return Ok(false);
        }
        match record.tree.winner().filter(|winner| !winner.deleted) {
            None => {}
            Some(_) if progress.skipped < request.skip => progress.skipped += 1,
            Some(winner) => {
                separate(&mut progress.rows, out);
                push_row(snapshot, request, id, &record, &winner, out)?;
            }
        }
        if progress.rows >= request.limit {
            return Ok(false);
        }
        if out.json.len() >= CHUNK || !turn.has_time() {
            progress.last = Some(id.into());
            progress.done = false;
            return Ok(false);
        }
        Ok(true)
    };
    match request.descending {
        false => snapshot.documents(start, each),
        true => snapshot.documents_descending(start, each),
    }
}

fn separate(rows: &mut u64, out: &mut Outgoing) {
    if *rows > 0 {
        out.json.extend_from_slice(b",\n");
    }
    *rows += 1;
}

fn push_row(
    snapshot: &Snapshot,
    request: &Request,
    id: &str,
    record: &DocRecord,
    winner: &Leaf,
    out: &mut Outgoing,
) -> Result<(), StoreError> {
    out.json.extend_from_slice(br#"{"id":"#);
    push_string(&mut out.json, id);
    out.json.extend_from_slice(br#","key":"#);
    push_string(&mut out.json, id);
    out.json.extend_from_slice(br#","value":{"rev":"#);
    push_string(&mut out.json, &winner.rev.to_string());
    out.json.extend_from_slice(if winner.deleted { br#","deleted":true}"# } else { b"}" });
    if request.include_docs {
        out.json.extend_from_slice(br#","doc":"#);
        match winner.deleted {
            true => out.json.extend_from_slice(b"null"),
            false => out.render(snapshot, id, record, winner, &request.options)?,
        }
    }
    out.json.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::super::answer::tests::database;
    use super::super::question::QuestionMemory;
    use super::*;

    fn room() -> QuestionMemory {
        QuestionMemory::new(Arc::new(Semaphore::new(100)), 100)
    }

    /// The answer in pieces, each of which has so much time.
    async fn pieces(db: &Database, query: &str, keys: Option<&str>, time: Duration) -> Vec<String> {
        let keys = keys.map(|keys| List::parse(keys).unwrap().unwrap());
        let request = Request::parse(&Query::parse(query), keys.clone(), &room()).unwrap();
        let reading = db.read(move |snapshot| {
            let (mut pieces, mut progress) = (Vec::new(), Progress { keys, ..Progress::default() });
            while !progress.done {
                let out = Outgoing::new(&Answers::new(0));
                let (out, next) = piece(snapshot, &request, progress, out, Turn::of(time))?;
                pieces.push(String::from_utf8(out.json).unwrap());
                progress = next;
            }
            Ok(pieces)
        });
        reading.await.unwrap()
    }

    /// `skip=1e12`, or millions of deleted documents, had the whole database walked in one piece, while others waited for
    /// their turn.
    #[tokio::test]
    async fn pieces_end_with_their_turns_and_answer_the_same() {
        let doc = |id: &str| format!(r#"{{"_id":"{id}","_rev":"1-a"}}"#);
        let gone = |id: &str| format!(r#"{{"_id":"{id}","_rev":"1-a","_deleted":true}}"#);
        let docs = [gone("a"), gone("b"), gone("c"), doc("d"), doc("e"), doc("f"), gone("g"), gone("h"), doc("i")];
        let (db, _directory) = database(&docs.each_ref().map(String::as_str)).await;
        let keys = r#"["i","a",1,"f","e","nope"]"#;
        for (query, keys) in [
            ("", None),
            ("skip=1000000000000", None),
            ("skip=2", None),
            ("limit=3", None),
            ("descending=true", None),
            ("descending=true&skip=1&endkey=%22d%22", None),
            ("startkey=%22b%22&endkey=%22g%22", None),
            ("", Some(keys)),
            ("skip=1000000000000", Some(keys)),
            ("descending=true&skip=3&limit=2", Some(keys)),
        ] {
            let whole = pieces(&db, query, keys, Duration::from_secs(600)).await;
            let cut = pieces(&db, query, keys, Duration::ZERO).await;
            assert_eq!((whole.len(), cut.concat()), (1, whole.concat()), "{query}");
            let rows = |piece: &String| piece.matches(r#""key":"#).count();
            assert!(cut.len() > 2 && cut.iter().all(|piece| rows(piece) <= 2), "{query}: {cut:?}");
        }
    }
}
