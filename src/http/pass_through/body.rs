//! An answer's body on its way from CouchDB to a client.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::expectation::Asked;
use crate::beside::HangUp;

/// The body as it comes. Dropped before its end, it closes CouchDB's connection.
pub struct AnswerBody {
    body: Incoming,
    connection: HangUp,
    _asked: Asked,
}

impl AnswerBody {
    /// That of an answer that came on this connection.
    pub fn new(body: Incoming, mut connection: HangUp, asked: Asked) -> Self {
        if body.is_end_stream() {
            connection.ended();
        }
        Self { body, connection, _asked: asked }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // Whoever knows that nothing more comes doesn't ask again.
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.connection.ended();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
