//! What a faulty peer can do to a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers this, and doesn't do it: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Does it, then answers this status: the success gets lost.
    ApplyThenFail(u16),
    /// Does it, then closes the connection without an answer.
    ApplyThenDisconnect,
    /// Does it, and never answers.
    ApplyThenHang,
    /// Closes the connection without doing it.
    Disconnect,
    /// The same, and refuses every connection for a while.
    Down(Duration),
    /// Never answers.
    Hang,
    /// Answers the head of a success, and nothing behind it.
    Silence,
    /// The same, and breaks off.
    BreakOff,
    /// Does it, answers, and breaks off after so many bytes of the body.
    Cut(usize),
    /// Does it, and answers so many bytes of the body as if they were the whole.
    Truncate(usize),
    /// Does it, and announces so many bytes more, or fewer, than it has.
    WrongLength(isize),
    /// Does it, and answers in so many pieces with pauses between.
    Drip(usize, Duration),
    /// Waits first.
    Slow(Duration),
    /// Waits for the signal first, then does it, or answers this status and body.
    Until(Arc<Notify>, Option<(u16, &'static str)>),
    /// Answers the head of a success, and line ends for ever.
    LineEnds(Duration),
}

impl Fault {
    /// Answers a status in CouchDB's words for it.
    pub fn status(status: u16) -> Self {
        let error = match status {
            400 => "bad_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 => "conflict",
            413 => "too_large",
            _ => "fault",
        };
        let body = format!("{{\"error\":\"{error}\",\"reason\":\"scripted {status}\"}}");
        Self::Answer(status, vec![("content-type", "application/json".into())], body)
    }

    /// Answers as whatever stands before a database does: a page, JSON of its own, or nothing at all.
    pub fn gateway(status: u16, body: Gateway) -> Self {
        let (content_type, text) = match body {
            Gateway::Page => ("text/html", "<html><body>Nothing to see here</body></html>"),
            Gateway::Json => ("application/json", r#"{"message":"Forbidden"}"#),
            Gateway::JsonError => ("application/json", r#"{"status":404,"error":"Not Found","path":"/"}"#),
            Gateway::Object => ("application/json", "{}"),
            Gateway::Empty => ("text/plain", ""),
        };
        Self::Answer(status, vec![("content-type", content_type.into())], text.into())
    }
}

/// What a gateway puts into its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// HTML.
    Page,
    /// JSON without CouchDB's words.
    Json,
    /// JSON with a word of CouchDB's, but not the other.
    JsonError,
    /// `{}`.
    Object,
    /// No body.
    Empty,
}

impl Gateway {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Page, Self::Json, Self::JsonError, Self::Object, Self::Empty];
}
