//! Percent-encodes what people type into a request's target, and hyper would refuse before anyone sees it.
//!
//! `curl 'http://localhost:5984/db/_all_docs?key="a"'`: every example of CouchDB's has such a quote, and CouchDB takes it.
//! The `http` crate's URIs don't, nor `<`, `>`, a backtick or a control character. So these bytes become `%22` and so on as
//! they come in, and only in a request's first line.
//!
//! That line must be found among what a connection brings: heads and bodies in turn. So this follows their framing, by
//! `Content-Length` and chunks, as hyper does. What it promises is that no byte of a body or of a header is ever changed: as
//! soon as it isn't sure where it is, because something is malformed or unusual, it changes nothing more on that connection.
//! The worst that may come of it is the 400 that there would have been without it. What it costs: a look at each byte of a
//! head; bodies are counted, not looked at, and nothing is copied unless something is encoded.

use tokio::io::ReadBuf;

/// Headers of nearly every head.
const FEW_HEADERS: usize = 64;
/// Bytes of a line between chunks, which may have extensions.
const MAX_LINE: usize = 8 << 10;

/// Encodes the targets of a connection's requests.
pub struct RawTargets {
    parser: MessageParser,
    /// Encoded bytes that the last reader had no room for.
    pending: Vec<u8>,
}

impl RawTargets {
    /// Heads may be so long, and have so many headers.
    pub fn new(max_head_bytes: usize, max_headers: usize) -> Self {
        Self { parser: MessageParser::new(max_head_bytes, max_headers), pending: Vec::new() }
    }

    /// Whether there is something to give before more is read.
    pub fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether what came so far ends with a request's end; `false` where that isn't sure.
    pub fn said_all(&self) -> bool {
        self.parser.part == Part::Between
    }

    /// Looks at what was read from `before` on, and takes it back if something else is to be given.
    pub fn pass(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if let Some(encoded) = self.parser.follow(&buffer.filled()[before..]) {
            buffer.set_filled(before);
            self.pending = encoded;
        }
    }

    /// Gives as much as there is room for.
    pub fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let some = self.pending.len().min(buffer.remaining());
        buffer.put_slice(&self.pending[..some]);
        self.pending.drain(..some);
    }
}

/// Where in its messages a connection is.
struct MessageParser {
    part: Part,
    /// The headers, or the line between chunks, as far as they came.
    gathered: Vec<u8>,
    max_head_bytes: usize,
    max_headers: usize,
    /// After this message nothing is sure.
    last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Empty lines before a request.
    Between,
    Method,
    Target,
    Version,
    Headers,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// The line end after the last chunk. Trailers would come there: hyper has an end of its own for them, so after them
    /// nothing is sure.
    LastEnd,
    /// Somewhere that isn't sure.
    Lost,
}

impl MessageParser {
    fn new(max_head_bytes: usize, max_headers: usize) -> Self {
        Self { part: Part::Between, gathered: Vec::new(), max_head_bytes, max_headers, last: false }
    }

    /// Goes through what came; answers what is to be read instead, if that is something else.
    fn follow(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut encoded: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < bytes.len() {
            let left = (bytes.len() - at) as u64;
            let passed = match &mut self.part {
                Part::Lost => left,
                Part::Body(rest) | Part::Chunk(rest) => {
                    let passed = left.min(*rest);
                    *rest -= passed;
                    passed
                }
                Part::Target if is_refused(bytes[at]) => {
                    let encoded = encoded.get_or_insert_with(|| bytes[..at].to_vec());
                    encoded.extend_from_slice(format!("%{:02X}", bytes[at]).as_bytes());
                    at += 1;
                    continue;
                }
                _ => {
                    self.part = self.step(bytes[at]);
                    1
                }
            };
            if let Some(encoded) = &mut encoded {
                encoded.extend_from_slice(&bytes[at..at + passed as usize]);
            }
            at += passed as usize;
            self.part = match self.part {
                Part::Body(0) => self.next_message(),
                Part::Chunk(0) => Part::ChunkEnd,
                part => part,
            };
        }
        encoded
    }

    /// Goes on by one byte of a head, or of what stands between chunks.
    fn step(&mut self, byte: u8) -> Part {
        match (self.part, byte) {
            (Part::Between, b'\r' | b'\n') => Part::Between,
            (Part::Between | Part::Method, b'A'..=b'Z') => Part::Method,
            (Part::Method, b' ') => Part::Target,
            (Part::Target, b' ') => Part::Version,
            (Part::Target, b'\r' | b'\n') => Part::Lost,
            (Part::Target, _) => Part::Target,
            (Part::Version, b'\n') => Part::Headers,
            (Part::Version, _) => Part::Version,
            (Part::Headers, _) => match self.line_ends(byte, self.max_head_bytes) {
                Some(true) => self.body(),
                Some(false) => Part::Headers,
                None => Part::Lost,
            },
            (Part::ChunkSize, _) => match self.line_ends(byte, MAX_LINE) {
                // A size stands there.
                Some(true) | None => Part::Lost,
                Some(false) if byte == b'\n' => self.chunk(),
                Some(false) => Part::ChunkSize,
            },
            (part @ (Part::ChunkEnd | Part::LastEnd), b'\r') if self.gathered.is_empty() => {
                self.gathered.push(byte);
                part
            }
            (Part::ChunkEnd, b'\n') if !self.gathered.is_empty() => {
                self.gathered.clear();
                Part::ChunkSize
            }
            (Part::LastEnd, b'\n') if !self.gathered.is_empty() => self.next_message(),
            _ => Part::Lost,
        }
    }

    /// Gathers a byte: `true` at the end of an empty line, `None` if there are too many.
    fn line_ends(&mut self, byte: u8, limit: usize) -> Option<bool> {
        self.gathered.push(byte);
        let lines = self.gathered.as_slice();
        let empty = matches!(lines, b"\n" | b"\r\n") || lines.ends_with(b"\n\n") || lines.ends_with(b"\n\r\n");
        (lines.len() <= limit).then_some(byte == b'\n' && empty)
    }

    /// After a head: finds out how long its body is.
    fn body(&mut self) -> Part {
        let head = std::mem::take(&mut self.gathered);
        let (mut few, mut many) = ([httparse::EMPTY_HEADER; FEW_HEADERS], Vec::new());
        let mut parsed = httparse::parse_headers(&head, &mut few);
        if matches!(parsed, Err(httparse::Error::TooManyHeaders)) {
            many.resize(self.max_headers, httparse::EMPTY_HEADER);
            parsed = httparse::parse_headers(&head, &mut many);
        }
        let Ok(httparse::Status::Complete((_, headers))) = parsed else { return Part::Lost };
        let (mut length, mut coding) = (None, None);
        for header in headers {
            let Ok(value) = std::str::from_utf8(header.value).map(str::trim) else { continue };
            match header.name.to_ascii_lowercase().as_str() {
                "transfer-encoding" => coding = Some(value),
                "content-length" => match value.parse::<u64>() {
                    Ok(number)
                        if value.bytes().all(|byte| byte.is_ascii_digit()) && length.is_none_or(|l| l == number) =>
                    {
                        length = Some(number);
                    }
                    _ => return Part::Lost,
                },
                // A refused body may not come at all; another protocol has no such lines.
                "expect" | "upgrade" => self.last = true,
                _ => {}
            }
        }
        match (coding, length) {
            (None, length) if length.unwrap_or(0) > 0 => Part::Body(length.unwrap_or(0)),
            (None, _) => self.next_message(),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Part::ChunkSize,
            _ => Part::Lost,
        }
    }

    /// After the line with a chunk's size.
    fn chunk(&mut self) -> Part {
        let line = std::mem::take(&mut self.gathered);
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&line[..digits]).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let plain = matches!(&line[digits..], b"\r\n" | [b';' | b' ' | b'\t', .., b'\r', b'\n']);
        match size.filter(|_| plain) {
            Some(0) => Part::LastEnd,
            Some(size) => Part::Chunk(size),
            None => Part::Lost,
        }
    }

    fn next_message(&mut self) -> Part {
        self.gathered = Vec::new();
        if self.last { Part::Lost } else { Part::Between }
    }
}

/// Whether hyper would refuse this byte in a target, and CouchDB takes it.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | 0x7F) || (byte < b' ' && byte != b'\r' && byte != b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    /// What comes out, read in these pieces.
    fn read(input: &[u8], cuts: &[Index]) -> Vec<u8> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).chain([0, input.len()]).collect();
        cuts.sort_unstable();
        let mut parser = MessageParser::new(1 << 16, 100);
        let pieces = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]);
        pieces.flat_map(|piece| parser.follow(piece).unwrap_or_else(|| piece.to_vec())).collect()
    }

    /// A request, what is to come of it, and whether it is sure where the next one begins. Bodies look like requests, and
    /// so does what stands among trailers.
    fn message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, bool)> {
        let target = prop::collection::vec(select(b"/ab?=&\"<>`{}%\x7f\x01".to_vec()), 0..12);
        let body = prop::collection::vec(
            select(vec!["GET /\"", " HTTP/1.1\r\n", "\r\n", "\"", "<", "0\r\n\r\n", "Content-Length: 3", "x", "\n"]),
            0..8,
        );
        let headers = select(vec!["", "X: \"<>`\r\n", "Host: a\r\nAccept: */*\r\n", "X:\r\n"]);
        let method = select(vec!["GET", "PUT", "POST", "DELETE"]);
        let trailers = prop_oneof![
            6 => Just(""),
            1 => select(vec!["T: \"\r\n", "T: x\n", "T: x\n\r\nGET /\" HTTP/1.1\r\n", "\n", "\nGET /\" HTTP/1.1\r\n", " \r\n"]),
        ];
        (method, target, headers, body, (0..3_usize, trailers), 1..20_usize).prop_map(
            |(method, target, headers, body, (how, trailers), size)| {
                let body = body.concat();
                let encoded: Vec<u8> = target
                    .iter()
                    .flat_map(|&byte| if is_refused(byte) { format!("%{byte:02X}").into_bytes() } else { vec![byte] })
                    .collect();
                let rest = match how {
                    0 => format!(" HTTP/1.1\r\n{headers}\r\n"),
                    1 => format!(" HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()),
                    _ => {
                        let chunk =
                            |chunk: &[u8]| format!("{:x};a=\"<\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk));
                        let chunks: String = body.as_bytes().chunks(size).map(chunk).collect();
                        format!(" HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n{trailers}\r\n")
                    }
                };
                let whole = |target: &[u8]| [format!("{method} /").as_bytes(), target, rest.as_bytes()].concat();
                (whole(&target), whole(&encoded), how < 2 || trailers.is_empty())
            },
        )
    }

    proptest! {
        #[test]
        fn targets_are_encoded_and_nothing_else_however_the_bytes_come(
            messages in prop::collection::vec(message(), 1..5), cuts in prop::collection::vec(any::<Index>(), 0..30),
        ) {
            let (mut input, mut expected, mut sure) = (Vec::new(), Vec::new(), true);
            for (raw, encoded, next_is_sure) in messages {
                expected.extend_from_slice(if sure { &encoded } else { &raw });
                input.extend(raw);
                sure &= next_is_sure;
            }
            prop_assert_eq!(
                String::from_utf8_lossy(&read(&input, &cuts)).into_owned(),
                String::from_utf8_lossy(&expected).into_owned()
            );
        }

        #[test]
        fn anything_comes_out_the_same_however_it_is_cut(
            input in prop::collection::vec(
                prop_oneof![any::<u8>(), select(b"GET /\"\r\n HTTP:0123;content-length".to_vec())], 0..80,
            ),
            cuts in prop::collection::vec(any::<Index>(), 0..20),
        ) {
            prop_assert_eq!(read(&input, &cuts), read(&input, &[]));
        }
    }

    #[test]
    fn where_it_isnt_sure_nothing_is_changed_any_more() {
        let next = "GET /\" HTTP/1.1\r\n\r\n";
        for unsure in [
            "PUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "PUT /a HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "PUT /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: x\n\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: x\r\n\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
            "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
            "GET /a HTTP/1.1\r\nUpgrade: x\r\n\r\n",
            "GET /a\r\n\r\n",
            "get /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nno header\r\n\r\n",
        ] {
            let input = format!("{unsure}{next}");
            assert_eq!(String::from_utf8(read(input.as_bytes(), &[])).unwrap(), input);
        }
        assert_eq!(read(next.as_bytes(), &[]), b"GET /%22 HTTP/1.1\r\n\r\n");
    }
}
