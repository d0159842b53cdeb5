//! `GET` and `POST /{db}/_changes`: the feed, read once, once there is something, or for ever; then a row a line, or as
//! server-sent events (`feed=eventsource`), which end without a `last_seq`, and whose reader says where he stopped.
//!
//! Rows are rendered about a chunk at a time, each from a fresh snapshot, since a held one makes the file grow; a
//! document that changes meanwhile moves to the feed's end, where it is met again. A writer that is faster than the reader
//! would keep a feed that is read once from its end. So after as many rows as it had at the beginning, the rest comes out of
//! one snapshot. While a
//! feed waits (`feed.rs`), the store tells of every new seq, and the database needn't stay open. A feed ends cleanly, with its
//! `last_seq`, when it has what was asked for, at its timeout, when the database is deleted and when the server stops.
//!
//! A filter that can't be used is answered with its error. One that fails later ends the feed: its error is the last
//! line, without a `last_seq` or the end of the rows, so that nobody takes the feed for a whole one.

mod raw_request;
mod request;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::replicate::ReplicateError;
use crate::store::{Database, DbName, Filter, FilterRequest, ReadyFilter, Snapshot, Store};
use crate::tasks;

use self::raw_request::RawRequest;
use self::request::Request;
use self::rows::Progress;

use super::answer::{Answers, Sink, Stopped};
use super::error::{ApiError, causes};
use super::feed::Feed;
use super::open_requests::RequestPermit;
use super::outgoing::Outgoing;
use super::query::Query;
use super::request::{Db, Payload};
use super::{AppState, answer};

/// The longest pause while a filter lets nothing through: shorter than clients and proxies wait.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// `GET /{db}/_changes`.
pub async fn get(
    State(state): State<AppState>,
    Db(db): Db,
    Extension(place): Extension<RequestPermit>,
    query: Query,
    headers: HeaderMap,
    raw_request: RawRequest,
) -> Result<Response, ApiError> {
    let request = Request::parse(&query, &headers, None, &state.question_memory())?;
    feed(&state, db, place, request, raw_request.by(query, None)).await
}

/// `POST /{db}/_changes`: `doc_ids` may stand in the body.
pub async fn post(
    State(state): State<AppState>,
    Db(db): Db,
    Extension(place): Extension<RequestPermit>,
    query: Query,
    raw_request: RawRequest,
    payload: Payload,
) -> Result<Response, ApiError> {
    let (headers, room) = (payload.headers().clone(), state.question_memory());
    let body = payload.json().await?;
    let read = move || {
        let request = Request::parse(&query, &headers, Some(&body), &room)?;
        // Only functions see the body.
        let shown = matches!(*request.filter, Filter::Function { .. }).then_some(&body[..]);
        let filter_request = raw_request.by(query, shown);
        Ok::<_, ApiError>((request, filter_request))
    };
    let (request, filter_request) = tasks::blocking("read _changes' question", read).await??;
    feed(&state, db, place, request, filter_request).await
}

async fn feed(
    state: &AppState,
    db: Arc<Database>,
    place: RequestPermit,
    request: Request,
    filter_request: FilterRequest,
) -> Result<Response, ApiError> {
    let (stopping, answers) = (state.tasks.stopping().clone(), state.answers.clone());
    let counted = (request.feed != Feed::Normal).then(|| state.traffic.feeds.enter());
    let filter = db.ready(request.filter.clone(), request.all_leaves, &filter_request).await?;
    let (store, name, updates) = (state.store()?.clone(), db.name().clone(), db.updates());
    let head = request.feed.headers();
    let write = |sink| async move {
        let _counted = counted;
        let request = Arc::new(request);
        let last_sent = Instant::now();
        let kept = None;
        FeedWriter {
            sink,
            answers,
            place,
            store,
            name,
            updates,
            request,
            filter,
            kept,
            stopping,
            begun: false,
            last_sent,
        }
        .write()
        .await
    };
    let body = answer::streamed(&state.tasks, "_changes", write).await?;
    Ok((StatusCode::OK, head, body).into_response())
}

/// A feed that is being written.
struct FeedWriter {
    sink: Sink,
    answers: Answers,
    place: RequestPermit,
    store: Store,
    name: DbName,
    updates: watch::Receiver<u64>,
    request: Arc<Request>,
    filter: ReadyFilter,
    /// The snapshot that the rest is read from, and what keeps it open.
    kept: Option<(Arc<Database>, Arc<Snapshot>)>,
    stopping: CancellationToken,
    /// Something was sent.
    begun: bool,
    last_sent: Instant,
}

impl FeedWriter {
    async fn write(&mut self) -> Result<(), Stopped> {
        let newest = *self.updates.borrow();
        let mut progress = Progress::new(self.request.since.unwrap_or(newest));
        if self.request.feed != Feed::Normal {
            self.send(self.request.feed.opening()).await?;
            progress.opened = true;
        }
        loop {
            // Heard of from here on: a write between a read and the wait after it is not missed.
            self.updates.mark_unchanged();
            while !progress.caught_up {
                let read = match self.read(progress.clone()).await {
                    // Ended well, it would read as if there were no more rows: a one-shot that reads it would say it had all.
                    Ok(None) if self.request.feed == Feed::Normal => Err(ReplicateError::ShuttingDown.into()),
                    read => read,
                };
                match read {
                    Ok(Some((db, piece, next))) => {
                        self.deliver(&db, piece).await?;
                        progress = next;
                        if self.request.feed == Feed::Normal && self.kept.is_none() && progress.has_gone_beyond() {
                            let snapshot = db.snapshot().await?;
                            self.kept = Some((db, snapshot));
                        }
                    }
                    Ok(None) => break,
                    Err(Stopped::Failed(error)) if progress.opened => {
                        tracing::warn!(error = %causes(&error), "a feed ended with an error");
                        return self.send(answer::error_line(&error)).await;
                    }
                    Err(stopped) => return Err(stopped),
                }
            }
            let enough = match self.request.feed {
                _ if self.request.descending => true,
                Feed::Normal => true,
                Feed::Longpoll => progress.rows > 0,
                Feed::Continuous | Feed::EventSource => progress.rows >= self.request.limit,
            };
            if enough {
                break;
            }
            if self.request.feed.goes_on() && !self.begun {
                // So that the answer starts at all.
                self.send("\n").await?;
            }
            let (feed, updates) = (self.request.feed, &mut self.updates);
            if !self.request.waiting.update(feed, &self.sink, &self.place, &self.stopping, updates).await? {
                break;
            }
            progress.caught_up = false;
        }
        if !progress.opened {
            self.send(self.request.feed.opening()).await?;
        }
        let end = format!("\"last_seq\":{},\"pending\":{}", progress.seq, progress.pending);
        self.send(self.request.feed.closing(&end)).await
    }

    /// Reads what comes next; `None` if the server stops instead. A filter stops if nobody waits for it.
    async fn read(&mut self, progress: Progress) -> Result<Option<(Arc<Database>, Outgoing, Progress)>, Stopped> {
        let (request, answers) = (self.request.clone(), self.answers.clone());
        let reading = async {
            // Functions have places of their own, which they may wait long for.
            let _turn = match *request.filter {
                Filter::Function { .. } => None,
                _ => self.answers.feed_turn().await,
            };
            // Kept open for a piece at a time, so that a feed that waits costs no more than its connection.
            let db = self.store.reopen(&self.name, &self.updates).await?;
            let kept = self.kept.as_ref().map(|(_, snapshot)| snapshot.clone());
            let piece = move |snapshot: &_, filter_run: &mut _| {
                rows::piece(snapshot, filter_run, &request, progress.clone(), &answers)
            };
            db.run_filter(&self.filter, kept, piece).await.map(|(piece, progress)| (db, piece, progress))
        };
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Ok(None),
            () = self.sink.hung_up() => Err(Stopped::HungUp),
            piece = reading => Ok(Some(piece?)),
        }
    }

    async fn deliver(&mut self, db: &Database, piece: Outgoing) -> Result<(), Stopped> {
        // A filter that lets little through leaves long pauses; an empty line between rows means nothing in JSON.
        let pause = self.request.waiting.heartbeat.unwrap_or(SIGN_OF_LIFE).min(SIGN_OF_LIFE);
        match piece.json.is_empty() {
            true if self.last_sent.elapsed() < pause => Ok(()),
            true => self.send("\n").await,
            false => {
                piece.send(&self.sink, db).await?;
                self.begun = true;
                self.last_sent = Instant::now();
                Ok(())
            }
        }
    }

    async fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), Stopped> {
        let piece = piece.into();
        if !piece.is_empty() {
            self.begun = true;
            self.last_sent = Instant::now();
        }
        self.sink.send(piece).await
    }
}
