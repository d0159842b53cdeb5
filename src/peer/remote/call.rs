//! What one request to a peer is: method, path, body, and what it is for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

use super::answer::MAX_ANSWER_BYTES;
use super::retry::Operation;

/// What is sent, as often as it takes.
#[derive(Debug)]
pub(super) struct Call {
    pub operation: Operation,
    pub method: Method,
    /// After the database's URL, percent-encoded, with its query.
    pub path: String,
    pub accept: &'static str,
    /// A JSON body.
    pub body: Option<Bytes>,
    /// The longest silence that isn't taken for death; else the settings' `connection_timeout`.
    pub silence: Option<Duration>,
    /// Bytes of an answer that is read whole.
    pub max_answer: usize,
    /// How long it waited for a place among our own requests, in milliseconds: no failing of the peer's.
    pub waited_ms: AtomicU64,
}

impl Call {
    pub(super) fn new(operation: Operation, method: Method, path: impl Into<String>) -> Self {
        let (accept, max_answer) = ("application/json", MAX_ANSWER_BYTES);
        Self {
            operation,
            method,
            path: path.into(),
            accept,
            body: None,
            silence: None,
            max_answer,
            waited_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn get(operation: Operation, path: impl Into<String>) -> Self {
        Self::new(operation, Method::GET, path)
    }

    pub(super) fn post(operation: Operation, path: impl Into<String>, json: impl Into<Bytes>) -> Self {
        Self { body: Some(json.into()), ..Self::new(operation, Method::POST, path) }
    }

    pub(super) fn put(operation: Operation, path: impl Into<String>, json: impl Into<Bytes>) -> Self {
        Self { body: Some(json.into()), ..Self::new(operation, Method::PUT, path) }
    }

    /// The same, as a time.
    pub(super) fn waited(&self) -> Duration {
        Duration::from_millis(self.waited_ms.load(Ordering::Relaxed))
    }

    /// Whether the peer may answer before the data is synced: what writes data says so, `_ensure_full_commit` syncs.
    pub(super) fn unsynced(&self) -> bool {
        use Operation::{BulkDocs, PutDoc, PutLocal, StreamDoc};
        matches!(self.operation, PutLocal | BulkDocs | PutDoc | StreamDoc)
    }
}

/// A body that streams through and can't be sent twice.
pub(super) struct Streamed<S> {
    pub content_type: String,
    pub length: u64,
    pub pieces: S,
}
