//! What a peer answered: its status, its body as it streams in or whole, and whether it is what the protocol says.
//!
//! Every answer's shape is checked. A body that isn't what was expected becomes [`PeerError::Malformed`], which shows
//! how it starts; one that breaks off, falls silent, or is JSON without its end becomes [`PeerError::Broken`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::PeerError;
use super::clients::reason;
use super::pace::Permit;
use crate::peer::pulse::Pulse;

/// Bytes of an answer that is held in memory whole, where its call says nothing else.
pub(super) const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Bytes of an answer shown in an error.
const SHOWN_BYTES: usize = 100;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    request: Arc<str>,
    response: Response,
    silence: Duration,
    pulse: Pulse,
    /// Held until the body has been read, or until a caller takes its time with it.
    _permit: Option<Permit>,
}

/// An answer read whole.
#[derive(Debug)]
pub(super) struct Reply {
    request: Arc<str>,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub(super) fn new(request: Arc<str>, response: Response, silence: Duration, pulse: Pulse) -> Self {
        Self { request, response, silence, pulse, _permit: None }
    }

    /// The same, counted as under way.
    pub(super) fn holding(self, permit: Option<Permit>) -> Self {
        Self { _permit: permit, ..self }
    }

    /// The same, no longer counted: whoever reads it piece by piece may ask the same server for more meanwhile.
    pub(super) fn released(self) -> Self {
        Self { _permit: None, ..self }
    }

    pub(super) fn request(&self) -> &Arc<str> {
        &self.request
    }

    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn is_success(&self) -> bool {
        self.response.status().is_success()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next bytes; `None` at the body's end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, PeerError> {
        let reason = match tokio::time::timeout(self.silence, self.response.chunk()).await {
            Ok(Ok(chunk)) => {
                self.pulse.moved(chunk.as_ref().map_or(0, Bytes::len));
                return Ok(chunk);
            }
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("nothing came for {:?}", self.silence),
        };
        Err(PeerError::Broken { request: self.request.to_string(), reason })
    }

    /// The body as a stream.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let chunks =
            stream::try_unfold(
                self,
                |mut answer| async move { Ok(answer.chunk().await?.map(|chunk| (chunk, answer))) },
            );
        chunks.boxed()
    }

    /// Reads it whole. Heartbeats take no memory: line ends on their own, which mean nothing anywhere in JSON.
    pub(super) async fn whole(self) -> Result<Reply, PeerError> {
        self.whole_within(MAX_ANSWER_BYTES).await
    }

    /// The same, up to so many bytes.
    pub(super) async fn whole_within(mut self, limit: usize) -> Result<Reply, PeerError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            let heartbeat = chunk.iter().all(|byte| matches!(byte, b'\n' | b'\r'));
            if body.len() + chunk.len() > limit {
                return Err(too_long(&self.request, limit));
            }
            match heartbeat {
                true => self.pulse.waits(),
                false => body.extend_from_slice(&chunk),
            }
        }
        let (status, headers) = (self.status(), self.response.headers().clone());
        Ok(Reply { request: self.request, status, headers, body: body.freeze() })
    }

    /// The error that this answer is, with the peer's own words.
    pub(super) async fn into_error(self) -> PeerError {
        match self.whole().await {
            Ok(reply) => reply.into_error(),
            Err(error) => error,
        }
    }
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer, where its status tells of success.
    pub(super) fn success(self) -> Result<Self, PeerError> {
        if self.is_success() { Ok(self) } else { Err(self.into_error()) }
    }

    /// The body as the JSON that was expected.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self, expected: &'static str) -> Result<T, PeerError> {
        serde_json::from_slice(&self.body).map_err(|error| match error.is_eof() {
            true => cut(&self.request),
            false => malformed(&self.request, expected, format!("`{}` ({error})", shorten(&self.body, SHOWN_BYTES))),
        })
    }

    /// The same answer, unless its JSON ends before its end: some proxies end a body properly that broke off behind them.
    pub(super) fn uncut(self) -> Result<Self, PeerError> {
        let checked = self.is_success() && !self.body.is_empty();
        match serde_json::from_slice::<IgnoredAny>(&self.body) {
            Err(error) if checked && error.is_eof() => Err(cut(&self.request)),
            _ => Ok(self),
        }
    }

    /// Whether the peer lacks what was asked for as a whole, as old servers lack `_bulk_get`.
    pub(super) fn is_unknown_resource(&self) -> bool {
        matches!(self.status, 404 | 405 | 501) && !self.is_database_missing()
    }

    /// Whether the database itself is gone.
    pub(super) fn is_database_missing(&self) -> bool {
        let (error, reason) = self.words();
        self.status == 404 && error == "not_found" && (reason == "no_db_file" || reason == "Database does not exist.")
    }

    /// The peer's `error` and `reason`, else the status's own words and the answer's beginning.
    pub(super) fn words(&self) -> (String, String) {
        #[derive(Deserialize)]
        struct Words<'a> {
            #[serde(borrow)]
            error: Cow<'a, str>,
            #[serde(borrow, default)]
            reason: Option<Cow<'a, str>>,
        }
        match serde_json::from_slice::<Words<'_>>(&self.body) {
            Ok(words) => (words.error.into_owned(), shorten(words.reason.unwrap_or_default().as_bytes(), 1000)),
            Err(_) => {
                let status = reqwest::StatusCode::from_u16(self.status).ok();
                let error = status.and_then(|status| status.canonical_reason()).unwrap_or("unknown status");
                (error.to_owned(), shorten(&self.body, SHOWN_BYTES))
            }
        }
    }

    pub(super) fn into_error(self) -> PeerError {
        let (error, reason) = self.words();
        PeerError::Status { request: self.request.to_string(), status: self.status, error, reason }
    }
}

pub(super) fn malformed(request: &str, expected: &'static str, found: String) -> PeerError {
    PeerError::Malformed { request: request.to_owned(), expected, found }
}

pub(super) fn cut(request: &str) -> PeerError {
    PeerError::Broken { request: request.to_owned(), reason: "the JSON ends early".into() }
}

pub(super) fn too_long(request: &str, limit: usize) -> PeerError {
    PeerError::TooLong { request: request.to_owned(), limit }
}

/// The beginning of a text, on one line.
pub(super) fn shorten(text: &[u8], bytes: usize) -> String {
    let shown = String::from_utf8_lossy(&text[..text.len().min(bytes)]);
    let cut = if text.len() > bytes { "…" } else { "" };
    format!("{}{cut}", shown.split_whitespace().collect::<Vec<_>>().join(" "))
}
