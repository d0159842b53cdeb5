//! A multipart body is read in one way, that of a plain reader of the whole, however it arrives; what was framed comes back.

use std::cell::Cell;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use couchrep::document::AttachmentHead;
use couchrep::multipart::{Framing, MultipartError, Reader, boundary, place};
use futures::Stream;

use super::choices::Choices;

/// Boundaries of a body, and of the one within its first part.
const BOUNDARIES: [(&str, &str); 4] = [("b", "bxx"), ("bxx", "b"), ("-", "--"), ("a b", "\r")];
/// Blanks that may stand between a boundary and its line's end.
const MAX_PADDING: usize = 256;

pub fn holds(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(4) {
        0 => framed(choices),
        1 => names(choices),
        _ => any_body(choices),
    }
}

/// Names and values, sorted.
type Headers = Vec<(String, Vec<u8>)>;

/// The parts that came, headers and data, and how the body ended. Data that came before an error counts.
#[derive(Debug, Clone, PartialEq, Default)]
struct Parts {
    parts: Vec<(Headers, Vec<u8>)>,
    error: Option<&'static str>,
}

fn word<E>(error: MultipartError<E>) -> &'static str {
    match error {
        MultipartError::Stream(_) => "stream",
        MultipartError::Truncated => "truncated",
        MultipartError::Headers => "headers",
    }
}

/// How a body arrives.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    body: &'a [u8],
    /// Lengths of its pieces, again and again; before one of no bytes there is a wait.
    pieces: &'a [usize],
    /// Whether it ends in an error.
    broken: bool,
}

/// Bytes that a reader took: all of them, and those of the last piece.
type Taken = Cell<(usize, usize)>;

impl<'a> Arrival<'a> {
    fn stream(self, taken: &'a Taken) -> impl Stream<Item = Result<Bytes, ()>> + Unpin + use<'a> {
        let (mut at, mut pieces, mut waits, mut ended) = (0, self.pieces.iter().cycle(), false, false);
        futures::stream::poll_fn(move |_| {
            if at == self.body.len() {
                assert!(!ended, "asked for more after the end");
                ended = true;
                return Poll::Ready(self.broken.then_some(Err(())));
            }
            let length = *pieces.next().unwrap();
            waits = length == 0 && !waits;
            if waits {
                return Poll::Pending;
            }
            let piece = &self.body[at..(at + length).min(self.body.len())];
            at += piece.len();
            taken.set((at, piece.len()));
            Poll::Ready(Some(Ok(Bytes::copy_from_slice(piece))))
        })
    }

    fn read(self, boundary: &str) -> Parts {
        let taken = Cell::default();
        read(Reader::new(self.stream(&taken), boundary), boundary, &taken, &mut |_| {})
    }

    /// Reads the body that the first part is.
    fn read_nested(self, outer: &str, inner: &str) -> Parts {
        let taken = Cell::default();
        let mut reader = Reader::new(self.stream(&taken), outer);
        match ready(&mut reader, async |reader| reader.next_part().await) {
            Ok(None) => Parts::default(),
            Ok(Some(_)) => read(Reader::new(Box::pin(reader.into_part()), inner), inner, &Cell::default(), &mut |_| {}),
            Err(error) => Parts { error: Some(word(error)), ..Parts::default() },
        }
    }
}

/// The result of a future that is dropped and made anew whenever it has to wait.
fn ready<R, T>(reader: &mut R, ask: impl AsyncFn(&mut R) -> T) -> T {
    loop {
        if let Poll::Ready(result) = pin!(ask(reader)).poll(&mut Context::from_waker(Waker::noop())) {
            return result;
        }
    }
}

fn read<S, E>(mut reader: Reader<S>, boundary: &str, taken: &Taken, each: &mut dyn FnMut(&HeaderMap)) -> Parts
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let most_held = "\r\n--".len() + boundary.len() + MAX_PADDING + "\r\n".len();
    let mut read = Parts::default();
    loop {
        match ready(&mut reader, async |reader| reader.next_part().await) {
            Ok(None) => return read,
            Err(error) => return Parts { error: Some(word(error)), ..read },
            Ok(Some(headers)) => {
                each(&headers);
                let plain = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
                let mut plain: Vec<_> = plain.collect();
                plain.sort();
                read.parts.push((plain, Vec::new()));
            }
        }
        loop {
            let before = taken.get().0;
            let chunk = ready(&mut reader, async |reader| reader.next_chunk().await);
            // Whatever came before the last piece was held back as the beginning of a boundary.
            let (all, last) = taken.get();
            assert!(all == before || all - before - last <= most_held);
            match chunk {
                Ok(None) => break,
                Err(error) => return Parts { error: Some(word(error)), ..read },
                Ok(Some(chunk)) => {
                    assert!(!chunk.is_empty());
                    read.parts.last_mut().unwrap().1.extend_from_slice(&chunk);
                }
            }
        }
    }
}

/// A boundary's line: another part's, with the place of its line end, or the closing one.
enum Line {
    Open(usize),
    Close,
    /// The text ends in what may be the beginning of one.
    Cut,
}

/// The first boundary's line at `from` or after it, and where it starts.
fn boundary_line(text: &[u8], from: usize, boundary: &str) -> Option<(usize, Line)> {
    let delimiter = format!("\r\n--{boundary}");
    (from..text.len()).find_map(|start| {
        let Some(rest) = text[start..].strip_prefix(delimiter.as_bytes()) else {
            return delimiter.as_bytes().starts_with(&text[start..]).then_some((start, Line::Cut));
        };
        let padding = rest.iter().take_while(|b| b" \t".contains(b)).count();
        let end = &rest[padding..];
        let line = if padding > MAX_PADDING {
            return None;
        } else if end.starts_with(b"\r\n") {
            Line::Open(start + delimiter.len() + padding)
        } else if padding == 0 && end.starts_with(b"--") {
            Line::Close
        } else if b"\r\n".starts_with(end) || padding == 0 && b"--".starts_with(end) {
            Line::Cut
        } else {
            return None;
        };
        Some((start, line))
    })
}

/// Reads a whole body.
fn plainly(body: &[u8], boundary: &str) -> Parts {
    let text = [b"\r\n", body].concat();
    let (mut at, mut read) = (0, Parts::default());
    let truncated = |read| Parts { error: Some("truncated"), ..read };
    loop {
        let (end, line) = boundary_line(&text, at, boundary).unwrap_or((text.len(), Line::Cut));
        if let Some((_, data)) = read.parts.last_mut() {
            data.extend_from_slice(&text[at..end]);
        }
        let start = match line {
            Line::Close => return read,
            Line::Cut => return truncated(read),
            Line::Open(start) => start,
        };
        let Some(length) = text[start..].windows(4).position(|window| window == b"\r\n\r\n") else {
            return truncated(read);
        };
        read.parts.push((plain_headers(&text[start..start + length]), Vec::new()));
        at = start + length + 4;
    }
}

/// The first 32 headers of a head, each after a line end.
fn plain_headers(head: &[u8]) -> Headers {
    let (mut headers, mut rest) = (Vec::new(), head);
    while let Some(line) = rest.strip_prefix(b"\r\n") {
        let length = line.windows(2).position(|window| window == b"\r\n").unwrap_or(line.len());
        let line;
        (line, rest) = rest[2..].split_at(length);
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.push((name.to_string(), value.as_bytes().to_vec()));
        }
    }
    headers.truncate(32);
    headers.sort();
    headers
}

fn pieces(choices: &mut Choices<'_>) -> [usize; 4] {
    let mut piece = || choices.of(&[0, 1, 2, 3, 5, 8, 40, 300]);
    [piece(), piece(), piece(), 1]
}

/// Any bytes at all: the same parts, or the same error after them, in whatever pieces they come.
fn any_body(mut choices: Choices<'_>) {
    let (outer, inner) = choices.of(&BOUNDARIES);
    let (broken, pieces) = (choices.flag(), pieces(&mut choices));
    let body = choices.rest();
    let mut expected = plainly(body, outer);
    if broken && expected.error.is_some() {
        expected.error = Some("stream");
    }
    let nested = Arrival { body, pieces: &[body.len()], broken }.read_nested(outer, inner);
    for pieces in [&[body.len()], &[1][..], &pieces] {
        let arrival = Arrival { body, pieces, broken };
        assert_eq!(arrival.read(outer), expected, "{pieces:?}");
        assert_eq!(arrival.read_nested(outer, inner), nested, "{pieces:?}");
    }
    if expected.error.is_none() {
        let within = expected.parts.first().map(|(_, data)| plainly(data, inner));
        assert_eq!(nested, within.unwrap_or_default());
    }
}

/// Data that has a boundary's beginnings in it, but no boundary.
fn data(choices: &mut Choices<'_>, boundary: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..choices.below(12) {
        match choices.below(8) {
            0 => data.extend_from_slice(b"\r\n"),
            1 => data.extend_from_slice(b"--"),
            2 => data.extend_from_slice(boundary.as_bytes()),
            3 => data.extend_from_slice(format!("\r\n--{boundary}").as_bytes()),
            4 => data.extend_from_slice(&boundary.as_bytes()[..choices.below(boundary.len())]),
            5 => data.extend(std::iter::repeat_n(b' ', choices.below(256))),
            _ => {
                let length = choices.below(16);
                data.extend_from_slice(choices.bytes(length));
            }
        }
    }
    loop {
        let text = [&data, format!("\r\n--{boundary}\r\n").as_bytes()].concat();
        match boundary_line(&text, 0, boundary) {
            Some((start, _)) if start < data.len() => data.truncate(start),
            _ => return data,
        }
    }
}

/// What was framed comes back, and its length was known before.
fn framed(mut choices: Choices<'_>) {
    let mut framing = Framing::new();
    let content_type = framing.content_type("related");
    let boundary = boundary(&content_type).unwrap();
    let pieces = pieces(&mut choices);
    let document = data(&mut choices, &boundary);
    let attachments: Vec<_> = (0..choices.below(4))
        .map(|_| {
            let (name, content_type, gzip) = (choices.text(20), choices.text(20), choices.flag());
            let data = data(&mut choices, &boundary);
            (AttachmentHead { name, content_type, length: data.len() as u64, gzip }, data)
        })
        .collect();
    let length = framing.related_length(document.len(), attachments.iter().map(|(head, _)| head));
    let mut body = [&framing.part("application/json")[..], &document].concat();
    for (head, data) in &attachments {
        body.extend_from_slice(&framing.attachment(head));
        body.extend_from_slice(data);
    }
    body.extend_from_slice(&framing.close());
    assert_eq!(body.len() as u64, length);
    assert_eq!(plainly(&body, &boundary).error, None);

    let (mut part, taken) = (0, Cell::default());
    let arrival = Arrival { body: &body, pieces: &pieces, broken: false };
    let read = read(Reader::new(arrival.stream(&taken), &boundary), &boundary, &taken, &mut |headers| {
        part += 1;
        if part > 1 {
            check_head(headers, &attachments[part - 2].0);
        }
    });
    assert_eq!(read.error, None);
    let data: Vec<_> = read.parts.into_iter().map(|(_, data)| data).collect();
    assert_eq!(
        data,
        std::iter::once(document).chain(attachments.into_iter().map(|(_, data)| data)).collect::<Vec<_>>()
    );
}

/// A head says what it was made of, and nothing besides, whatever stands in its names.
fn check_head(headers: &HeaderMap, head: &AttachmentHead) {
    const KNOWN: [&str; 4] = ["content-disposition", "content-type", "content-length", "content-encoding"];
    assert!(headers.keys().all(|name| KNOWN.contains(&name.as_str())));
    assert_eq!(headers.len(), headers.keys_len());
    assert_eq!(headers["content-length"], head.length.to_string());
    assert_eq!(headers.contains_key("content-encoding"), head.gzip);
    let name = head.name.replace(['\r', '\n'], " ");
    if !name.contains(|char: char| char.is_ascii_control() && char != '\t') {
        let (before, after) = (format!("{name}1"), format!("{name}2"));
        let coming = [before.as_str(), &name, &after];
        assert_eq!(place(headers.get("content-disposition"), coming.into_iter()), 1);
    }
}

/// Boundaries and file names in any writing.
fn names(mut choices: Choices<'_>) {
    let (name, other) = (choices.text(64), choices.text(64));
    let text = String::from_utf8_lossy(choices.rest());
    assert!(boundary(&text).is_none_or(|boundary| (1..=200).contains(&boundary.len())));
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    let content_type = format!("Multipart/mixed; x=\"; boundary=y\"; BOUNDARY=\"{quoted}\"");
    assert_eq!(boundary(&content_type), (1..=200).contains(&name.len()).then(|| name.clone()));
    if let Ok(disposition) = HeaderValue::from_bytes(text.as_bytes()) {
        assert!(place(Some(&disposition), [&*name, &other].into_iter()) < 2);
        assert_eq!(place(Some(&disposition), std::iter::empty()), 0);
    }
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    if let (Ok(disposition), false) = (disposition, name.is_empty() || name.contains(['"', '\\'])) {
        assert_eq!(place(Some(&disposition), ["", &name].into_iter()), 1);
    }
}
