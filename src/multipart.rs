//! Reads and frames `multipart/mixed` and `multipart/related` bodies while they stream.
//!
//! Documents with attachments travel this way in both directions: `open_revs` answers `multipart/mixed`, within it one
//! `multipart/related` a document; a document is put as `multipart/related`. Nothing is buffered beyond one chunk and
//! the length of a boundary, so an attachment's size doesn't matter. A nested body is read by a second [`Reader`] over
//! the first one's part ([`Reader::into_part`]). [`Framing`] writes what stands around the parts.
//!
//! Rules: RFC 2046 section 5.1; CouchDB writes `\r\n` line ends, no preamble, and may leave out the final line end. A
//! line that only starts like a boundary is data, so that one boundary may be the beginning of a nested body's.
//!
//! CouchDB writes an attachment's name into a part's head as it is, quotes, backslashes and line ends too, and reads parts
//! in the order of the document, without a look at their heads. So lines of a head that are no headers are passed over,
//! and [`place`] finds out which attachment a part is by its name where that fits one, else by its order. A name that
//! contains an empty line ends the head early; its data is then too long, here as in CouchDB.

mod framing;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use memchr::memmem;

pub use framing::Framing;

/// What is wrong with a multipart body.
#[derive(Debug, thiserror::Error)]
pub enum MultipartError<E> {
    /// The stream underneath failed.
    #[error("{0}")]
    Stream(E),
    /// The body ended before its closing boundary.
    #[error("the multipart body ends early")]
    Truncated,
    /// A part's headers take too much memory.
    #[error("the headers of a part are too long")]
    Headers,
}

/// Bytes of one part's headers, which are held in memory: a file name, which may be long, and four more.
const MAX_HEADER_BYTES: usize = 256 << 10;
/// What the headers of a part end with.
const HEADERS_END: &[u8] = b"\r\n\r\n";
/// Headers of one part that are looked at.
const MAX_HEADERS: usize = 32;
/// Blanks that may stand between a boundary and its line's end.
const MAX_PADDING: usize = 256;
/// Bytes after the closing boundary that are read so that the connection can be used again.
const MAX_EPILOGUE: usize = 64 << 10;

/// Reads one multipart body, part by part. Its futures may be dropped without losing bytes.
pub struct Reader<S> {
    stream: S,
    /// `\r\n--boundary`.
    delimiter: memmem::Finder<'static>,
    /// Bytes that came and weren't handed on.
    held: Bytes,
    /// So many of them were looked through for the end of a part's headers.
    searched: usize,
    position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Before the first boundary or within a part: bytes up to the next boundary belong here.
    Within,
    /// `held` starts with the line end of a boundary's line, headers after it.
    AtHeaders,
    /// After the closing boundary.
    Closed,
}

/// What the bytes in hand start with.
enum Next {
    /// Bytes of the part, this many.
    Data(usize),
    /// A boundary of this length, padding included, a part after it.
    Boundary(usize),
    /// The closing boundary.
    Close,
    /// That can't be told before more bytes come.
    Unknown,
}

impl<S, E> Reader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Reads `stream` as parts between `--boundary` lines.
    pub fn new(stream: S, boundary: &str) -> Self {
        let delimiter = memmem::Finder::new(&format!("\r\n--{boundary}")).into_owned();
        // The first boundary needs no line end before it; lending it one makes it a boundary like the others.
        Self { stream, delimiter, held: Bytes::from_static(b"\r\n"), searched: 0, position: Position::Within }
    }

    /// The next part's headers, after skipping what is left of the part before; `None` after the last part.
    pub async fn next_part(&mut self) -> Result<Option<HeaderMap>, MultipartError<E>> {
        while self.next_chunk().await?.is_some() {}
        if self.position == Position::Closed {
            self.skip_epilogue().await;
            return Ok(None);
        }
        loop {
            // The search starts with the line end of the boundary's own line: a part may have no headers.
            if let Some(end) = memmem::find(&self.held[self.searched..], HEADERS_END) {
                let block = self.held.split_to(self.searched + end + HEADERS_END.len());
                (self.position, self.searched) = (Position::Within, 0);
                if block.len() > MAX_HEADER_BYTES {
                    return Err(MultipartError::Headers);
                }
                return Ok(Some(headers(&block[2..])));
            }
            if self.held.len() > MAX_HEADER_BYTES {
                return Err(MultipartError::Headers);
            }
            self.searched = self.held.len().saturating_sub(HEADERS_END.len() - 1);
            self.pull().await?;
        }
    }

    /// The next bytes of the part in hand; `None` at its end.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, MultipartError<E>> {
        while self.position == Position::Within {
            match self.look() {
                Next::Data(length) => return Ok(Some(self.held.split_to(length))),
                Next::Boundary(length) => {
                    self.held = self.held.slice(length..);
                    self.position = Position::AtHeaders;
                }
                Next::Close => {
                    self.held = Bytes::new();
                    self.position = Position::Closed;
                }
                Next::Unknown => self.pull().await?,
            }
        }
        Ok(None)
    }

    /// The part in hand as a stream, for a nested body. After its end the rest of this body is skipped, so that the
    /// connection underneath can be used again.
    pub fn into_part(self) -> impl Stream<Item = Result<Bytes, MultipartError<E>>> {
        futures::stream::try_unfold(self, |mut reader| async move {
            let chunk = reader.next_chunk().await?;
            if chunk.is_none() {
                reader.skip_rest().await;
            }
            Ok(chunk.map(|chunk| (chunk, reader)))
        })
    }

    /// Reads what is left, at most a little, and doesn't mind errors: all that mattered was read.
    pub async fn skip_rest(&mut self) {
        while matches!(self.next_part().await, Ok(Some(_))) {}
    }

    /// Tells what `held` starts with.
    fn look(&self) -> Next {
        let delimiter = self.delimiter.needle();
        let mut from = 0;
        while let Some(found) = self.delimiter.find(&self.held[from..]).map(|at| from + at) {
            match boundary_line(&self.held[found + delimiter.len()..]) {
                // Only part of the boundary's line is there, or something follows that makes it data.
                Line::Other => from = found + 1,
                _ if found > 0 => return Next::Data(found),
                Line::Unknown => return Next::Unknown,
                Line::Open(padding) => return Next::Boundary(delimiter.len() + padding),
                Line::Close => return Next::Close,
            }
        }
        match self.held.len() - self.delimiter_start(from) {
            0 => Next::Unknown,
            data => Next::Data(data),
        }
    }

    /// How many of the last bytes may be a delimiter's beginning.
    fn delimiter_start(&self, from: usize) -> usize {
        let delimiter = self.delimiter.needle();
        let tail = &self.held[from.max(self.held.len().saturating_sub(delimiter.len() - 1))..];
        let start = memchr::memchr_iter(b'\r', tail).find(|&at| delimiter.starts_with(&tail[at..]));
        start.map_or(0, |at| tail.len() - at)
    }

    /// Waits for more bytes after those in hand.
    async fn pull(&mut self) -> Result<(), MultipartError<E>> {
        let chunk = self.stream.next().await.ok_or(MultipartError::Truncated)?.map_err(MultipartError::Stream)?;
        if self.held.is_empty() {
            self.held = chunk;
        } else {
            // Grows where it is, unless somebody else has part of it: copied for each chunk, a long head that comes byte by
            // byte would take time with its square.
            let mut held =
                std::mem::take(&mut self.held).try_into_mut().unwrap_or_else(|held| BytesMut::from(&held[..]));
            held.extend_from_slice(&chunk);
            self.held = held.freeze();
        }
        Ok(())
    }

    async fn skip_epilogue(&mut self) {
        let mut skipped = 0;
        while let Some(Ok(chunk)) = self.stream.next().await {
            skipped += chunk.len();
            if skipped > MAX_EPILOGUE {
                break;
            }
        }
    }
}

/// What follows a delimiter.
enum Line {
    /// This much padding, then a line end.
    Open(usize),
    /// `--`.
    Close,
    /// Anything else: the delimiter was data.
    Other,
    /// More bytes are needed.
    Unknown,
}

fn boundary_line(rest: &[u8]) -> Line {
    let padding = rest.iter().take_while(|&&b| b == b' ' || b == b'\t').count();
    match &rest[padding..] {
        _ if padding > MAX_PADDING => Line::Other,
        [b'\r', b'\n', ..] => Line::Open(padding),
        [b'-', b'-', ..] if padding == 0 => Line::Close,
        [] | [b'\r'] => Line::Unknown,
        [b'-'] if padding == 0 => Line::Unknown,
        _ => Line::Other,
    }
}

/// Reads a block of header lines; what isn't one, part of a file name most likely, is passed over.
fn headers(block: &[u8]) -> HeaderMap {
    let ends = memmem::find_iter(block, b"\r\n");
    let mut start = 0;
    let lines = ends.map(|end| &block[std::mem::replace(&mut start, end + 2)..end]);
    let pair = |line: &[u8]| {
        let colon = memchr::memchr(b':', line)?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, value))
    };
    lines.filter_map(pair).take(MAX_HEADERS).collect()
}

/// The boundary that a `multipart/…` content type names, unquoted.
pub fn boundary(content_type: &str) -> Option<String> {
    let (essence, parameters) = content_type.split_once(';')?;
    essence.trim().to_ascii_lowercase().strip_prefix("multipart/")?;
    parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty() && boundary.len() <= 200)
}

/// Which of the attachments that are still to come a part is, by its `Content-Disposition`.
///
/// The first of them if that is its name or the name says nothing; else the one of that name. A name is read as CouchDB
/// writes it, without escapes, and as others do.
pub fn place<'a>(disposition: Option<&HeaderValue>, mut coming: impl Iterator<Item = &'a str> + Clone) -> usize {
    let disposition = disposition.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).unwrap_or_default();
    let verbatim = disposition.find("filename=\"").and_then(|at| disposition[at + 10..].strip_suffix('"'));
    let unescaped = disposition.split_once(';').and_then(|(_, parameters)| parameter(parameters, "filename"));
    let (verbatim, unescaped) = (verbatim, unescaped.as_deref());
    match coming.clone().next() {
        Some(first) if [verbatim, unescaped].contains(&Some(first)) => 0,
        _ => {
            let by_name = verbatim.and_then(|name| coming.clone().position(|coming| coming == name));
            by_name.or_else(|| coming.position(|coming| Some(coming) == unescaped)).unwrap_or_default()
        }
    }
}

/// The name of a form's field, and of its file where it is one, by its `Content-Disposition`.
pub fn form_field(disposition: &HeaderValue) -> Option<(String, Option<String>)> {
    let (kind, parameters) = std::str::from_utf8(disposition.as_bytes()).ok()?.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    Some((parameter(parameters, "name")?, parameter(parameters, "filename")))
}

/// A parameter's value: a token, or a string in quotes with backslashes before what they escape.
fn parameter(mut parameters: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = parameters.split_once('=')?;
        let name = name.trim_matches([' ', '\t', ';']);
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)
                .filter(|(_, rest)| rest.trim_start().is_empty() || rest.trim_start().starts_with(';'))?,
            None => {
                let (token, rest) = rest.split_once(';').unwrap_or((rest, ""));
                (token.trim_end().to_owned(), rest)
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        parameters = rest;
    }
}

/// The string before the closing quote, and what stands after that.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            // Only quotes and backslashes are escaped; a lone backslash is a file name's own.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests;
