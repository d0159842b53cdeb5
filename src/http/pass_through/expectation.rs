//! `Expect: 100-continue`: whether a body is wanted, CouchDB says, not we.
//!
//! hyper tells a client to go on as soon as its body is read from, and its own client sends a body without waiting for the word. So
//! the body isn't read until CouchDB has said 100. If it answers at once (401, 413) the body is never read, and the client never
//! told to send it. CouchDB's connection still waits for that body then, so it is closed after the answer.
//!
//! A server may know nothing of expectations and wait for the body: after [`PATIENCE`] it is sent anyway, as RFC 9110 10.1.1
//! advises a client.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::http::held::Held;

/// Longer than a client waits itself: curl sends its body after a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives the word.
#[derive(Clone)]
struct Word {
    sender: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Word {
    /// The body is wanted.
    fn go_on(&self) {
        if let Some(sender) = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
            _ = sender.send(());
        }
    }

    /// The answer has come to its end: a body that still waits isn't wanted.
    fn over(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What a request asked that expects to be told to go on.
pub struct Expectation(Option<Word>);

impl Expectation {
    /// The answer's body, at the end of which a body that still waits is given up.
    pub fn until_end_of(self, answer: Incoming) -> Body {
        match self.0 {
            None => Body::new(answer),
            Some(word) => Body::new(Held::new(answer, OverAtEnd(word))),
        }
    }
}

/// Gives up a body that still waits when the answer is at its end.
struct OverAtEnd(Word);

impl Drop for OverAtEnd {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// A body that may have to wait for CouchDB's word.
pub struct ExpectedBody {
    body: Body,
    waits: Option<Waits>,
}

struct Waits {
    word: oneshot::Receiver<()>,
    patience: Pin<Box<Sleep>>,
}

impl ExpectedBody {
    /// Has a request's body wait if the request says so. [`Expectation`] is for the answer.
    pub fn of(request: Request) -> (axum::http::Request<Self>, Expectation) {
        let expects =
            request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if !expects || request.body().is_end_stream() {
            return (request.map(|body| Self { body, waits: None }), Expectation(None));
        }
        let (sender, word) = oneshot::channel();
        let waits = Waits { word, patience: Box::pin(sleep(PATIENCE)) };
        let word = Word { sender: Arc::new(Mutex::new(Some(sender))) };
        let mut request = request.map(|body| Self { body, waits: Some(waits) });
        let giving = word.clone();
        hyper::ext::on_informational(&mut request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                giving.go_on();
            }
        });
        (request, Expectation(Some(word)))
    }
}

impl HttpBody for ExpectedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(waits) = &mut self.waits {
            match Pin::new(&mut waits.word).poll(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    let unwanted = io::Error::new(io::ErrorKind::ConnectionAborted, "CouchDB didn't want the body");
                    return Poll::Ready(Some(Err(axum::Error::new(unwanted))));
                }
                Poll::Pending => ready!(waits.patience.as_mut().poll(context)),
            }
            self.waits = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
