//! `GET` and `POST /{db}/_changes`: the feed, read once, once there is something, or for ever.
//!
//! Rows are rendered about a chunk at a time, each from a fresh snapshot, since a held one makes the file grow; a
//! document that changes meanwhile moves to the feed's end, where it is met again. Waiting costs nothing but the
//! connection: the database tells of every new seq. A feed ends cleanly, with its `last_seq`, when it has what was asked
//! for, at its timeout, when the database is deleted and when the server stops; a client that hangs up ends it too.

mod request;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::Database;

use self::request::{Feed, Request};
use self::rows::Progress;

use super::answer::{APPLICATION_JSON, Sink, Stopped};
use super::error::ApiError;
use super::query::Query;
use super::request::{Db, Payload};
use super::{AppState, answer};

/// `GET /{db}/_changes`.
pub async fn get(State(state): State<AppState>, Db(db): Db, query: Query) -> Result<Response, ApiError> {
    feed(&state, db, Request::parse(&query, None)?).await
}

/// `POST /{db}/_changes`: `doc_ids` may stand in the body.
pub async fn post(
    State(state): State<AppState>,
    Db(db): Db,
    query: Query,
    payload: Payload,
) -> Result<Response, ApiError> {
    let body = payload.json().await?;
    feed(&state, db, Request::parse(&query, Some(&body))?).await
}

async fn feed(state: &AppState, db: Arc<Database>, request: Request) -> Result<Response, ApiError> {
    let stopping = state.tasks.stopping().clone();
    let body = answer::streamed(&state.tasks, "_changes", |sink| write(sink, db, request, stopping)).await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

async fn write(sink: Sink, db: Arc<Database>, request: Request, stopping: CancellationToken) -> Result<(), Stopped> {
    let request = Arc::new(request);
    // Heard of from here on: a write between a read and the wait behind it is not missed.
    let mut updates = db.updates();
    let mut progress = Progress::new(request.since.unwrap_or_else(|| db.update_seq()));
    if request.feed != Feed::Normal {
        sink.send(request.opening()).await?;
        progress.opened = true;
    }
    loop {
        updates.mark_unchanged();
        while !progress.caught_up && !stopping.is_cancelled() {
            let job = request.clone();
            let (piece, next) = db.read(move |snapshot| rows::piece(snapshot, &job, progress)).await?;
            progress = next;
            sink.send(piece).await?;
        }
        let enough = match request.feed {
            _ if request.descending => true,
            Feed::Normal => true,
            Feed::Longpoll => progress.rows > 0,
            Feed::Continuous => progress.rows >= request.limit,
        };
        if enough || !wait(&sink, &mut updates, &request, &stopping).await? {
            break;
        }
        progress.caught_up = false;
    }
    if !progress.opened {
        sink.send(request.opening()).await?;
    }
    sink.send(request.closing(&progress)).await
}

/// Waits for an update, giving signs of life; `false` where the feed is over instead.
async fn wait(
    sink: &Sink,
    updates: &mut watch::Receiver<u64>,
    request: &Request,
    stopping: &CancellationToken,
) -> Result<bool, Stopped> {
    let deadline = request.heartbeat.is_none().then(|| Instant::now() + request.timeout);
    // Without a heartbeat the interval never comes before the deadline.
    let pause = request.heartbeat.unwrap_or(request.timeout + Duration::from_secs(1));
    loop {
        let next_beat = Instant::now() + pause;
        tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(false),
            () = sink.hung_up() => return Err(Stopped::HungUp),
            updated = updates.changed() => return Ok(updated.is_ok()),
            () = tokio::time::sleep_until(deadline.unwrap_or(next_beat)) => match deadline {
                Some(_) => return Ok(false),
                None => sink.send("\n").await?,
            },
        }
    }
}
