//! A client that has closed its half of the connection: it either left, or has said all and waits for its answer (`nc -N`).
//!
//! TCP tells the two apart only after something was written to the client. To hyper an end in the middle of an answer is a client that left,
//! and it drops the answer. So the end is kept from hyper where it may be the other thing:
//! - Whoever closes his half within [`SOON`] of his request's last byte is taken to wait. He gets his answer, as CouchDB gives
//!   it to him, unless writing to him fails, or there is nothing to write for [`PATIENCE`], after which CouchDB too takes him to
//!   have left.
//! - Whoever closes later has left, and so has whoever closes in the middle of a request, and whoever waits for no answer.
//!
//! An end after the last answer is told only once that answer is flushed: hyper then closes without flushing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::Held;

/// Longer than the way from a request's last byte to the end that is sent right after it.
const SOON: Duration = Duration::from_secs(1);
/// CouchDB's `[chttpd] disconnect_check_msec`.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many requests of a connection aren't answered to the end. Cheap to clone.
#[derive(Clone, Default)]
pub struct UnansweredRequests {
    count: Arc<AtomicUsize>,
}

impl UnansweredRequests {
    /// One more, until what is returned is dropped.
    pub fn one_more(&self) -> UnansweredRequest {
        self.count.fetch_add(1, Ordering::Relaxed);
        UnansweredRequest(self.clone())
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}

/// A request that isn't answered to the end.
pub struct UnansweredRequest(UnansweredRequests);

impl UnansweredRequest {
    /// It is answered when the answer's body is dropped.
    pub fn until_end_of(self, response: Response) -> Response {
        response.map(|body| Body::new(Held::new(body, self)))
    }
}

impl Drop for UnansweredRequest {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Decides when the end of what a client sends is told.
pub struct HangUp {
    unanswered: UnansweredRequests,
    soon: Duration,
    patience: Duration,
    /// When something came from the client.
    heard: Instant,
    /// The last read found nothing, so that an end wakes who reads.
    listens: bool,
    /// Nothing waits to be written.
    flushed: bool,
    waiting: Option<Waiting>,
}

/// A client that waits for its answer.
struct Waiting {
    until: Pin<Box<Sleep>>,
    reader: Waker,
}

impl HangUp {
    /// Of a connection that was just accepted.
    pub fn new(unanswered: UnansweredRequests) -> Self {
        let (soon, patience) = (SOON, PATIENCE);
        Self { unanswered, soon, patience, heard: Instant::now(), listens: false, flushed: true, waiting: None }
    }

    /// A read found something, or nothing yet.
    pub fn read(&mut self, found: bool) {
        if found {
            self.heard = Instant::now();
        }
        self.listens = !found;
    }

    /// Whether the end was found, so that nothing more is read.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// A read found the end: is ready once it is to be told. `said_all`: it doesn't come in the middle of a request.
    pub fn poll_end(&mut self, context: &mut Context<'_>, said_all: bool) -> Poll<()> {
        if self.waiting.is_none() {
            // Who didn't listen can't know when it came.
            let late = self.listens && self.heard.elapsed() > self.soon;
            if late || !said_all {
                return Poll::Ready(());
            }
        }
        if self.unanswered.is_empty() && self.flushed {
            return Poll::Ready(());
        }
        let reader = context.waker().clone();
        let until = match self.waiting.take() {
            Some(waiting) => waiting.until,
            None => Box::pin(sleep_until(Instant::now() + self.patience)),
        };
        let waiting = self.waiting.insert(Waiting { until, reader });
        match self.flushed {
            true => waiting.until.as_mut().poll(context),
            // How long a write may wait is the slow readers' matter.
            false => Poll::Pending,
        }
    }

    /// Something is to be written.
    pub fn writes(&mut self) {
        self.flushed = false;
    }

    /// All was written.
    pub fn flushed(&mut self) {
        if !std::mem::replace(&mut self.flushed, true)
            && let Some(waiting) = &mut self.waiting
        {
            waiting.until.as_mut().reset(Instant::now() + self.patience);
            waiting.reader.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt as _;
    use tokio::time::sleep;

    use super::*;

    /// A client that sent its request and said nothing more.
    fn asked(unanswered: &UnansweredRequests, soon: Duration) -> HangUp {
        let patience = Duration::from_millis(200);
        let mut hang_up = HangUp { soon, patience, ..HangUp::new(unanswered.clone()) };
        hang_up.read(true);
        hang_up.read(false);
        hang_up
    }

    async fn told(hang_up: &mut HangUp, said_all: bool) {
        poll_fn(|context| hang_up.poll_end(context, said_all)).await;
    }

    #[tokio::test]
    async fn who_leaves_late_or_in_the_middle_or_waits_for_nothing_has_left() {
        let unanswered = UnansweredRequests::default();
        let request = unanswered.one_more();
        assert!(told(&mut asked(&unanswered, Duration::ZERO), true).now_or_never().is_some());
        assert!(told(&mut asked(&unanswered, SOON), false).now_or_never().is_some());
        assert!(told(&mut asked(&unanswered, SOON), true).now_or_never().is_none());
        drop(request);
        assert!(told(&mut asked(&unanswered, SOON), true).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_closes_his_half_has_left_when_there_was_nothing_to_write_for_long() {
        let unanswered = UnansweredRequests::default();
        let _request = unanswered.one_more();
        let mut waits = asked(&unanswered, SOON);
        waits.writes();
        assert!(told(&mut waits, true).now_or_never().is_none());
        sleep(2 * waits.patience).await;
        assert!(told(&mut waits, true).now_or_never().is_none(), "a write that waits isn't silence");
        waits.flushed();
        let since = Instant::now();
        told(&mut waits, true).await;
        assert!(since.elapsed() >= waits.patience);
    }

    #[tokio::test]
    async fn an_answer_is_flushed_before_the_end_is_told() {
        let unanswered = UnansweredRequests::default();
        let request = unanswered.one_more();
        let mut waits = asked(&unanswered, SOON);
        waits.writes();
        assert!(told(&mut waits, true).now_or_never().is_none());
        drop(request);
        assert!(told(&mut waits, true).now_or_never().is_none());
        waits.flushed();
        assert!(told(&mut waits, true).now_or_never().is_some());
    }
}
