//! Reads `multipart/mixed` and `multipart/related` bodies while they stream in.
//!
//! Documents with attachments travel this way in both directions: `open_revs` answers `multipart/mixed`, within it one
//! `multipart/related` a document; a document is put as `multipart/related`. Nothing is buffered beyond one chunk and
//! the length of a boundary, so an attachment's size doesn't matter. A nested body is read by a second [`Reader`] over
//! the first one's part.
//!
//! Rules: RFC 2046 section 5.1; CouchDB writes `\r\n` line ends, no preamble, and may leave out the final line end.

use axum::http::HeaderMap;
use bytes::Bytes;
use futures::Stream;

/// What is wrong with a multipart body.
#[derive(Debug, thiserror::Error)]
pub enum MultipartError<E> {
    /// The stream underneath failed.
    #[error("{0}")]
    Stream(E),
    /// The body ended before its closing boundary.
    #[error("the multipart body ends early")]
    Truncated,
    /// A part's headers make no sense.
    #[error("the headers of a part are malformed")]
    Headers,
}

/// Reads one multipart body, part by part.
pub struct Reader<S> {
    stream: S,
}

impl<S, E> Reader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Reads `stream` as parts between `--boundary` lines.
    pub fn new(stream: S, boundary: &str) -> Self {
        let _ = boundary;
        Self { stream }
    }

    /// The next part's headers, after skipping what is left of the part before; `None` behind the last part.
    pub async fn next_part(&mut self) -> Result<Option<HeaderMap>, MultipartError<E>> {
        todo!()
    }

    /// The next bytes of the part in hand; `None` at its end.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, MultipartError<E>> {
        todo!()
    }
}

/// The boundary that a `multipart/…` content type names, unquoted.
pub fn boundary(content_type: &str) -> Option<String> {
    let _ = content_type;
    todo!()
}
