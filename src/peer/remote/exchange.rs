//! One try of a request: sent, and waited for as long as something moves. Knows no peer and no credentials.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::guard::{GuardedClient, SendError};
use super::retry::Trouble;
use super::transport::{failure, reason};
use crate::effort::pulse::Pulse;
use crate::peer::error::PeerError;

/// Pieces in which a body goes out, so that a slow upload is told from a silent peer.
const PIECE_BYTES: usize = 64 << 10;

/// A try that failed.
pub(super) struct Failed {
    pub trouble: Trouble,
    /// The pause that the peer asked for.
    pub asked: Option<Duration>,
    pub error: PeerError,
}

impl Failed {
    /// The error, knowing how often it was tried.
    pub(super) fn into_error(self, tries: u32) -> PeerError {
        match self.error {
            PeerError::Unreachable { request, reason, .. } => PeerError::Unreachable { request, tries, reason },
            error => error,
        }
    }
}

impl From<Failed> for PeerError {
    fn from(failed: Failed) -> Self {
        failed.into_error(1)
    }
}

/// Waits for an answer's head, as long as the body goes out or the silence isn't too long.
pub(super) async fn exchange(
    client: &GuardedClient,
    request: reqwest::RequestBuilder,
    silence: Duration,
    sent: &AtomicU64,
    name: &str,
) -> Result<Response, Failed> {
    let unreachable = |trouble, reason| {
        let error = PeerError::Unreachable { request: name.to_owned(), tries: 1, reason };
        Failed { trouble, asked: None, error }
    };
    let failed = |error: reqwest::Error| unreachable(failure(&error), reason(&error));
    let mut answer = std::pin::pin!(client.send(request.build().map_err(failed)?));
    let mut seen = 0;
    loop {
        match tokio::time::timeout(silence, &mut answer).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(SendError::Failed(error))) => return Err(failed(error)),
            Ok(Err(SendError::Forbidden(forbidden))) => {
                return Err(Failed { trouble: Trouble::Forbidden, asked: None, error: forbidden.into() });
            }
            Err(_) => {
                let now = sent.load(Ordering::Relaxed);
                if std::mem::replace(&mut seen, now) == now {
                    return Err(unreachable(Trouble::Silent, format!("no answer for {silence:?}")));
                }
            }
        }
    }
}

/// A body as it goes out: whole where it is small, else in pieces that are counted.
pub(super) fn outgoing(body: Bytes, sent: Arc<AtomicU64>, pulse: Pulse) -> reqwest::Body {
    if body.len() <= PIECE_BYTES {
        pulse.sent(body.len());
        return body.into();
    }
    reqwest::Body::wrap_stream(futures::stream::unfold(body, move |mut rest| {
        sent.fetch_add(1, Ordering::Relaxed);
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        pulse.moved(piece.len());
        let next = (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), rest));
        std::future::ready(next)
    }))
}
