//! What a peer answered: its status, its body as it streams in or whole, and whether it is what the protocol says.
//!
//! Every answer's shape is checked. A body that isn't what was expected becomes [`PeerError::Malformed`], which shows
//! how it starts; one that breaks off, falls silent, or is JSON without its end becomes [`PeerError::Broken`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::judgement::{self, Meaning, Words};
use super::pace::Permit;
use super::shown::{beginning, shorten};
use super::transport::reason;
use crate::effort::pulse::Pulse;
use crate::peer::{PeerError, Why};

/// Bytes of an answer that is held in memory whole, where its call says nothing else.
pub(super) const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Line ends within half of the longest silence (a heartbeat, where the feed waits): a peer sends one or two.
const MAX_BLANK_BYTES: usize = 64 << 10;
/// Bytes of a reason in the database's words: more are a stack trace.
const SHOWN_REASON: usize = 1000;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    request: Arc<str>,
    response: Response,
    silence: Duration,
    pulse: Pulse,
    /// Whether line ends are what it was asked for: the feed waits.
    waits: bool,
    /// Line ends that came since so long ago, and nothing else.
    blank: (Instant, usize),
    /// Whether a refusal's reason is left out.
    hides_reasons: bool,
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
    hides_reasons: bool,
}

impl Answer {
    pub(super) fn new(request: Arc<str>, response: Response, silence: Duration, pulse: Pulse) -> Self {
        let blank = (Instant::now(), 0);
        Self { request, response, silence, pulse, waits: false, blank, hides_reasons: false, _permit: None }
    }

    /// The same; `hides` says that the peer's reason for a 401 or 403 isn't to be shown.
    pub(super) fn hiding_reasons(self, hides: bool) -> Self {
        Self { hides_reasons: hides, ..self }
    }

    /// The same; `waits` says that its line ends are signs of life.
    pub(super) fn waiting(self, waits: bool) -> Self {
        Self { waits, ..self }
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
        let chunk = self.arrived().await?;
        self.pulse.moved(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    /// The next bytes of JSON. Heartbeats are passed over: line ends on their own, which mean nothing anywhere in JSON. They
    /// aren't life either, unless the feed waits: whoever gives nothing else is the watchdog's.
    pub(super) async fn json_chunk(&mut self) -> Result<Option<Bytes>, PeerError> {
        while let Some(chunk) = self.arrived().await? {
            match chunk.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
                true => self.count_blank(chunk.len())?,
                false => {
                    self.blank.1 = 0;
                    self.pulse.moved(chunk.len());
                    return Ok(Some(chunk));
                }
            }
            if self.waits {
                self.pulse.waits();
            }
        }
        Ok(None)
    }

    /// Counts line ends as they come, decoded. (A thousandth of them come where they are gzipped, and the HTTP client decodes
    /// what comes so even where it asked for something else.)
    fn count_blank(&mut self, bytes: usize) -> Result<(), PeerError> {
        if self.blank.1 == 0 || self.blank.0.elapsed() > self.silence / 2 {
            self.blank = (Instant::now(), 0);
        }
        self.blank.1 += bytes;
        match self.blank.1 > MAX_BLANK_BYTES {
            true => Err(malformed(&self.request, "JSON", format!("{} line ends in a row", self.blank.1))),
            false => Ok(()),
        }
    }

    async fn arrived(&mut self) -> Result<Option<Bytes>, PeerError> {
        let reason = match tokio::time::timeout(self.silence, self.response.chunk()).await {
            Ok(Ok(chunk)) => return Ok(chunk),
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

    /// Reads it whole. Heartbeats take no memory.
    pub(super) async fn whole(self) -> Result<Reply, PeerError> {
        self.whole_within(MAX_ANSWER_BYTES).await
    }

    /// The same, up to so many bytes.
    pub(super) async fn whole_within(mut self, limit: usize) -> Result<Reply, PeerError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.json_chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(too_long(&self.request, limit));
            }
            body.extend_from_slice(&chunk);
        }
        let (status, headers, hides_reasons) = (self.status(), self.response.headers().clone(), self.hides_reasons);
        Ok(Reply { request: self.request, status, headers, body: body.freeze(), hides_reasons })
    }
}

impl Reply {
    pub(super) fn request(&self) -> &str {
        &self.request
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as the JSON that was expected.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self, expected: &'static str) -> Result<T, PeerError> {
        serde_json::from_slice(&self.body).map_err(|error| match error.is_eof() {
            true => cut(&self.request),
            false => malformed(&self.request, expected, format!("`{}` ({error})", beginning(&self.body))),
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

    /// What it means.
    pub(super) fn meaning(&self) -> Meaning {
        judgement::meaning(self.status, self.said().as_ref())
    }

    /// CouchDB's words, if the answer is in them.
    pub(super) fn said(&self) -> Option<Why> {
        let why = serde_json::from_slice::<Words<'_>>(&self.body).ok()?.of_whole_answer()?;
        if let Some(reason) = self.hidden() {
            return Some(Why::new(why.error, reason)).filter(judgement::is_about_rights);
        }
        let Why { error, reason } = why;
        Some(Why { error, reason: shorten(reason.as_bytes(), SHOWN_REASON) })
    }

    /// The peer's `error` and `reason`, else the status's own words and the answer's beginning.
    pub(super) fn why(&self) -> Why {
        self.said().unwrap_or_else(|| {
            let status = reqwest::StatusCode::from_u16(self.status).ok();
            let error = status.and_then(|status| status.canonical_reason()).unwrap_or("unknown status");
            Why::new(error, self.hidden().unwrap_or_else(|| beginning(&self.body)))
        })
    }

    /// What stands in place of a reason that isn't to be shown: it might repeat the secret.
    fn hidden(&self) -> Option<String> {
        let is_hidden = self.hides_reasons && matches!(self.status, 401 | 403);
        is_hidden.then(|| format!("why it says {} isn't shown, since a secret was sent there", self.status))
    }

    /// This answer as an error.
    pub(super) fn into_error(self) -> PeerError {
        let (request, status) = (self.request.to_string(), Some(self.status));
        PeerError::Answered { request, status, why: self.why(), blame: self.meaning().blame() }
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
