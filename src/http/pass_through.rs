//! Requests that aren't the replicator's, as they pass through to the CouchDB beside which this server stands.
//!
//! # What is promised
//! - Method, path and query reach CouchDB byte for byte, but for bytes that HTTP allows in no target (`"`, `<`, `>`, a backtick, control
//!   characters), which are percent-encoded as they come in (`server/raw_targets.rs`): CouchDB decodes both to the same. If CouchDB is
//!   below another server's path, a path with a segment `.` or `..` is answered with 400.
//! - Headers reach the other side as they are, in both directions and in the letters they were written in, but those that concern
//!   one connection only (RFC 9110, 7.6.1: [`hop_by_hop`]). `Host` is CouchDB's, and the client's own is told as a proxy tells it
//!   ([`forwarded`]).
//! - Bodies and trailers stream both ways, never unpacked, in memory that doesn't depend on their size: a side that reads slowly
//!   slows the other one down. No time limits them, and no limit of ours does: how large a body may be, how long a feed lasts
//!   and how slowly somebody reads is CouchDB's matter.
//! - `Expect: 100-continue` is asked of CouchDB, and its word is passed on ([`expectation`]).
//! - A client that hangs up closes CouchDB's connection at once, however silent a feed is; CouchDB that breaks off breaks the
//!   client's connection, so that nobody takes half an answer for a whole one.
//! - What may have been carried out isn't sent again (`beside.rs` says what is).
//! - Without CouchDB: 502 in its JSON.
//!
//! # How it can fail, and what then
//! A client that closes its half of the connection right after its request gets its answer, but who leaves so soon looks the same: CouchDB
//! learns of it when the answer was silent for half a minute (`server/hang_up.rs`).
//! An answer that comes before the request's body was sent gets through, though CouchDB closes at once; a client that goes on sending for long
//! may miss it, as without us.
//!
//! # How many
//! Requests that pass through have no count of their own. Each holds a client's connection and at most one of CouchDB's, so
//! `max_connections` bounds them; and how many it works on at once CouchDB decides: beyond its own `max_connections` a request
//! waits to be accepted, as it would without us. The places of open requests (`open_requests`) are for the replicator's own.

pub mod hop_by_hop;
pub mod forwarded;
mod expectation;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use self::expectation::ExpectedBody;
use super::error::ApiError;
use crate::beside::{Unanswered, Upstream};

/// Sends a request on, and answers what CouchDB says.
pub async fn pass(upstream: &Upstream, mut request: Request) -> Result<Response, ApiError> {
    if request.method() == Method::CONNECT {
        return Err(ApiError::bad_request("This is no proxy for other servers."));
    }
    if upstream.leads_elsewhere(request.uri().path()) {
        return Err(ApiError::bad_request("The path has a segment of dots, and CouchDB is below another one."));
    }
    hop_by_hop::of_request(request.headers_mut());
    forwarded::tell(&mut request);
    let (request, expectation) = ExpectedBody::of(request);
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    let mut response = upstream.send(request).await?;
    hop_by_hop::of_answer(response.headers_mut());
    let says_empty = response.headers().get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    Ok(response.map(|body| if says_empty { Body::new(Nothing) } else { expectation.until_end_of(body) }))
}

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Unsent(reason) => Self::bad_request(reason),
            error => Self::BadGateway(error.to_string()),
        }
    }
}

/// An empty body whose length is told: hyper leaves `Content-Length: 0` out of a 304 of which it knows before that nothing comes.
struct Nothing;

impl HttpBody for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// The answer to a request that couldn't be passed on, complete in itself: no other layer sees it.
pub fn refused(error: ApiError, method: &Method) -> Response {
    let response = error.into_response();
    if method == Method::HEAD { response.map(|_| Body::empty()) } else { response }
}
