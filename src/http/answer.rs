//! Answers: JSON of known length, JSON in pieces, and the headers that name what was made.
//!
//! A streamed answer is written by a task of its own into a bounded channel: a slow client slows its writer down, one
//! that hangs up ends it, and no thread that may block waits for either. An error before the first piece becomes the
//! answer; one after it breaks the connection off, so that no client takes a cut answer for a whole one.
//!
//! # Memory
//! An answer whose reader stands still holds [`READER_BYTES`] on their way, and the piece that is sent next, 128 KiB or
//! so, at most 256 KiB: below 400 KiB together, whatever it is an answer to and however long it is. Larger documents count
//! among [`Answers`], all readers together; beyond that they stay in the store and are read in pieces (`outgoing.rs`). Only
//! so many pieces are made at once, since a document is loaded as a whole for a moment. A piece that finds little to say
//! ends with its [`Turn`], so that no question keeps others waiting. Not counted are the kernel's own
//! buffers, and what a question holds as long as it is answered (`question.rs`).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};

use crate::document::Rev;
use crate::effort::guarded::guarded;
use crate::store::{Database, Snapshot, StoreError};
use crate::tasks::Tasks;

use super::error::{ApiError, causes};

/// About how large the pieces are that writers hand over.
pub const CHUNK: usize = 64 << 10;

/// Bytes of an answer that are on their way to its reader: queued, or with hyper. Enough for the next piece to be made while
/// the last is sent.
pub const READER_BYTES: usize = 2 * CHUNK;

/// Pieces on their way, for those that are small.
const QUEUED: usize = 16;

/// Pieces of documents' answers that are made at once, and as many of feeds, which may search long for something to show.
const MADE_AT_ONCE: usize = 4;

/// How long a turn takes that many wait for: long beside a chunk's few milliseconds, short beside a client's patience.
const TURN: Duration = Duration::from_millis(100);

/// A turn to read rows: when it is over, others have theirs, and the rest comes in another.
pub struct Turn {
    ends: Instant,
    begun: bool,
}

impl Turn {
    /// Begins now.
    pub fn begin() -> Self {
        Self::of(TURN)
    }

    /// Begins now, and takes so long.
    pub fn of(time: Duration) -> Self {
        Self { ends: Instant::now() + time, begun: false }
    }

    /// Whether there is time for one more row; for the first there always is.
    pub fn has_time(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true) || Instant::now() < self.ends
    }
}

/// The memory of all answers that is shared: of large documents, which may wait for slow readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Answers {
    memory: Arc<Semaphore>,
    documents: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
    counts: Arc<Semaphore>,
}

impl Answers {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let turns = || permits(MADE_AT_ONCE);
        Self { memory: permits(bytes), documents: turns(), feeds: turns(), counts: turns() }
    }

    /// Some of it, if that is free.
    pub fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.memory.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    /// How many bytes of it are free.
    pub fn free_bytes(&self) -> usize {
        self.memory.available_permits()
    }

    /// Reads what becomes a piece of an answer, when it is its turn.
    pub async fn read<T: Send + 'static>(
        &self,
        db: &Database,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The semaphores are never closed.
        let _turn = self.documents.acquire().await;
        db.read(work).await
    }

    /// Counts a while, when it is its turn; documents don't wait for it.
    pub async fn count<T: Send + 'static>(
        &self,
        db: &Database,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.counts.acquire().await;
        db.read(work).await
    }

    /// Waits for the turn of a feed.
    pub async fn feed_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.feeds.acquire().await.ok()
    }
}

/// Answers `status` with JSON text, to which a line end is added.
pub fn text(status: StatusCode, mut json: Vec<u8>) -> Response {
    json.push(b'\n');
    (status, [(CONTENT_TYPE, APPLICATION_JSON)], json).into_response()
}

/// Answers `status` with a value as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Values made here have string keys and no failing serializers.
    text(status, serde_json::to_vec(value).unwrap_or_default())
}

/// The same, of a value that counts somewhere in memory, as long as some of it waits for its reader.
pub fn held(status: StatusCode, value: &impl Serialize, permit: OwnedSemaphorePermit) -> Response {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    json.push(b'\n');
    let json = guarded(json, permit);
    (status, [(CONTENT_TYPE, APPLICATION_JSON)], Body::from(json)).into_response()
}

/// `Content-Type: application/json`.
pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The `ETag` of a revision or digest.
pub fn etag(tag: impl std::fmt::Display) -> Option<(HeaderName, HeaderValue)> {
    Some((header::ETAG, HeaderValue::from_str(&format!("\"{tag}\"")).ok()?))
}

/// Whether the client has what this tag stands for.
pub fn has_already(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one).trim_matches('"') == tag
    })
}

/// The answer to a write of a document.
pub fn written(status: StatusCode, id: &str, rev: &Rev) -> Response {
    let rev = rev.to_string();
    let mut response = json(status, &serde_json::json!({ "ok": true, "id": id, "rev": rev }));
    response.headers_mut().extend(etag(rev));
    response
}

/// Adds a `Location`: a path of these segments, before which the server's address is put
/// ([`super::envelope`]).
pub fn located(mut response: Response, segments: &[&str]) -> Response {
    let path: String = segments.iter().flat_map(|segment| ["/".into(), encoded(segment)]).collect();
    if let Ok(location) = HeaderValue::from_str(&path) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What `couch_util:url_encode/1` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b':');

fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, PLAIN).to_string()
}

/// An error as the last line of an answer that has begun.
pub fn error_line(error: &ApiError) -> String {
    let (error, reason) = error.pair();
    format!("{}\n", serde_json::json!({ "error": error, "reason": reason }))
}

/// Where a writer puts its pieces.
pub struct Sink {
    queue: mpsc::Sender<Item>,
    /// Bytes that may still be on their way.
    room: Arc<Semaphore>,
}

enum Item {
    Piece(Bytes),
    Failed(ApiError),
    /// Tells an answer that is whole from one whose writer crashed.
    End,
}

/// Why a writer stopped before its end.
pub enum Stopped {
    /// Nobody reads any more.
    HungUp,
    /// The rest can't be read.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Sink {
    /// Sends a piece, after waiting for room; empty ones are left out, but tell whether somebody reads.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Stopped> {
        if self.queue.is_closed() {
            return Err(Stopped::HungUp);
        }
        let mut rest = piece.into();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(CHUNK));
            // A chunk's length fits.
            let room = self.room.clone().acquire_many_owned(piece.len() as u32);
            let Ok(room) = room.await else { return Err(Stopped::HungUp) };
            // Its room is free again when hyper has written it, or when nobody reads any more.
            self.queue.send(Item::Piece(guarded(piece, room))).await.map_err(|_| Stopped::HungUp)?;
        }
        Ok(())
    }

    /// Waits until nobody reads any more.
    pub async fn hung_up(&self) {
        self.queue.closed().await;
    }
}

/// Lets a task write a body, and answers when its first piece is there.
pub async fn streamed<W>(tasks: &Tasks, name: &'static str, write: impl FnOnce(Sink) -> W) -> Result<Body, ApiError>
where
    W: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    let (queue, mut pieces) = mpsc::channel(QUEUED);
    let writing = write(Sink { queue: queue.clone(), room: Arc::new(Semaphore::new(READER_BYTES)) });
    let last_word = async move {
        let last = match writing.await {
            Ok(()) => Item::End,
            Err(Stopped::Failed(error)) => Item::Failed(error),
            Err(Stopped::HungUp) => return,
        };
        // Nobody is left to hear it where this fails.
        let _ = queue.send(last).await;
    };
    drop(tasks.spawn(name, last_word));
    match pieces.recv().await.unwrap_or(Item::Failed(ApiError::Crashed)) {
        Item::Piece(first) => Ok(Body::from_stream(rest(first, pieces))),
        Item::End => Ok(Body::empty()),
        Item::Failed(error) => Err(error),
    }
}

fn rest(first: Bytes, pieces: mpsc::Receiver<Item>) -> impl Stream<Item = io::Result<Bytes>> {
    let rest = stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await.unwrap_or(Item::Failed(ApiError::Crashed)) {
            Item::Piece(piece) => Some((Ok(piece), Some(pieces))),
            Item::End => None,
            Item::Failed(error) => {
                tracing::error!(error = %causes(&error), "an answer broke off");
                Some((Err(io::Error::other("the answer broke off")), None))
            }
        }
    });
    stream::once(async move { Ok(first) }).chain(rest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::StoreSettings;
    use crate::document::DocParts;
    use crate::store::{DbName, Durability, Edit, Rank, Store};

    /// A database of these documents, and the directory that it lives in.
    pub async fn database(docs: &[&str]) -> (Arc<Database>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), StoreSettings::default()).await.unwrap();
        let db = store.create(&DbName::parse("db").unwrap()).await.unwrap();
        let edit = |doc: &&str| {
            let parts = DocParts::parse(doc.as_bytes()).unwrap();
            Edit::new(&parts, (&*parts.id.clone().unwrap()).into(), true, Vec::new()).unwrap()
        };
        db.write(docs.iter().map(edit).collect(), &crate::access::Caller::server_admin(), Durability::Unsynced)
            .await
            .unwrap();
        (db, directory)
    }

    /// `_all_docs?startkey="z"` counted every document before it in one piece, in one of the four turns of all documents.
    #[tokio::test]
    async fn counts_go_on_a_while_at_a_time_and_take_no_documents_turn() {
        let docs: Vec<_> = (0..2500).map(|n| format!(r#"{{"_id":"{n:04}","_rev":"1-a"}}"#)).collect();
        let (db, _directory) = database(&docs.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let answers = Answers::new(0);
        let _taken = answers.documents.acquire_many(MADE_AT_ONCE as u32).await.unwrap();
        let (mut rank, mut counted, mut pieces) = (Rank::default(), false, 0);
        while !counted {
            let count = move |snapshot: &Snapshot| Ok((snapshot.count_before("z", &mut rank)?, rank));
            (counted, rank) = answers.count(&db, count).await.unwrap();
            pieces += 1;
        }
        assert_eq!((rank.before, pieces), (2500, 3));
    }

    /// A client that hung up while its answer had nothing to say had the whole database read for it.
    #[tokio::test]
    async fn an_answer_with_nothing_to_say_ends_when_nobody_reads() {
        let (queue, pieces) = mpsc::channel(QUEUED);
        let sink = Sink { queue, room: Arc::new(Semaphore::new(READER_BYTES)) };
        assert!(sink.send("").await.is_ok());
        drop(pieces);
        assert!(matches!(sink.send("").await, Err(Stopped::HungUp)));
    }

    #[test]
    fn locations_are_encoded_as_couchdb_does() {
        let response = located(text(StatusCode::CREATED, vec![]), &["src", "_design/d"]);
        assert_eq!(response.headers()[LOCATION], "/src/_design%2Fd");
    }

    #[test]
    fn tags_match_in_lists_weak_or_not() {
        let mut headers = HeaderMap::new();
        assert!(!has_already(&headers, "1-a"));
        headers.insert(header::IF_NONE_MATCH, "\"0-z\", W/\"1-a\"".parse().unwrap());
        assert!(has_already(&headers, "1-a"));
        assert!(!has_already(&headers, "2-b"));
    }

    async fn read(body: Body) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(body, usize::MAX).await
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_whole() {
        let tasks = Tasks::default();
        let body = streamed(&tasks, "test", |sink| async move {
            for number in 0..10 {
                sink.send(number.to_string()).await?;
            }
            Ok(())
        });
        assert_eq!(read(body.await.unwrap()).await.unwrap(), "0123456789");
    }

    #[tokio::test]
    async fn an_error_before_the_first_piece_is_the_answer() {
        let tasks = Tasks::default();
        let body = streamed(&tasks, "test", |_| async { Err(ApiError::Missing.into()) }).await;
        assert!(matches!(body, Err(ApiError::Missing)));
    }

    #[tokio::test]
    async fn an_error_or_a_crash_later_breaks_the_answer_off() {
        let tasks = Tasks::default();
        let failed = streamed(&tasks, "test", |sink| async move {
            sink.send("half").await?;
            Err(ApiError::Missing.into())
        });
        assert!(read(failed.await.unwrap()).await.is_err());
        let crashed = streamed(&tasks, "test", |sink| async move {
            sink.send("half").await?;
            panic!("for the test")
        });
        assert!(read(crashed.await.unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_ends_the_writer() {
        let tasks = Tasks::default();
        let body = streamed(&tasks, "test", |sink| async move {
            loop {
                sink.send("more").await?;
            }
        });
        drop(body.await.unwrap());
        assert!(tasks.ended_within(std::time::Duration::from_secs(10)).await);
    }
}
