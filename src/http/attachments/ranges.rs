//! Parts of an attachment: what `Range` asks for, and how several of them are answered.
//!
//! Only an attachment that is stored as it came has parts: of a gzipped one nobody knows where a byte of the text stands.
//! The rules are those of CouchDB 3.5: `bytes=0-` is all of it, one range is answered as 206, up to nine as
//! `multipart/byteranges`, more than that as if none were asked for; what isn't a list of ranges is no question at all, and
//! one range that begins after the end is 416 for all of them.
//!
//! Otherwise than there on purpose: a suffix that is as long as the attachment is all of it (CouchDB leaves out the first
//! byte), `If-Range` is honoured, so that nobody puts two attachments together into one file, an empty list is no question,
//! and `Range` means nothing for a gzipped attachment, even after its end.

use std::ops::Range;

use axum::http::header::{CONTENT_TYPE, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};

use crate::store::{Database, OpenAttachment};

use crate::http::answer::{Sink, Stopped};
use crate::http::blob::Blob;

/// Ranges in one answer at most.
const MAX_RANGES: usize = 9;

/// What of an attachment is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Of(Range<u64>),
    /// These, one after the other.
    Several(Vec<Range<u64>>),
    /// Nothing that there is.
    Unsatisfiable,
}

impl Part {
    /// Of an attachment that is so long and has this tag.
    pub fn wanted(headers: &HeaderMap, tag: &str, length: u64) -> Self {
        let text = |value: Option<&HeaderValue>| Some(value?.to_str().ok()?.trim().to_owned());
        let other = text(headers.get(IF_RANGE)).is_some_and(|known| known != format!("\"{tag}\""));
        match text(headers.get(RANGE)).filter(|_| !other).and_then(|text| specs(&text)) {
            Some(specs) => Self::of(&specs, length),
            None => Self::Whole,
        }
    }

    fn of(specs: &[Spec], length: u64) -> Self {
        let mut ranges = Vec::new();
        for spec in specs {
            let (first, end) = match *spec {
                Spec::From(0) => return Self::Whole,
                Spec::From(first) => (first, length),
                Spec::Between(first, last) => (first, last.saturating_add(1).min(length)),
                Spec::Last(bytes) => (length - bytes.min(length), length),
            };
            if first >= end {
                return Self::Unsatisfiable;
            }
            ranges.push(first..end);
        }
        match ranges.pop() {
            Some(range) if ranges.is_empty() => Self::Of(range),
            Some(last) if ranges.len() < MAX_RANGES => {
                ranges.push(last);
                Self::Several(ranges)
            }
            _ => Self::Whole,
        }
    }
}

/// One range, before the length is known.
#[derive(Debug, Clone, Copy)]
enum Spec {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

fn specs(text: &str) -> Option<Vec<Spec>> {
    let spec = |text: &str| {
        let number = |text: &str| text.trim().parse().ok();
        Some(match text.trim().split_once('-')? {
            ("", bytes) => Spec::Last(number(bytes)?),
            (first, "") => Spec::From(number(first)?),
            (first, last) => Spec::Between(number(first)?, number(last)?),
        })
    };
    text.strip_prefix("bytes=")?.split(',').map(spec).collect()
}

/// `Content-Range` of some bytes.
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// Several parts of one attachment, as `multipart/byteranges`.
pub struct Byteranges {
    boundary: String,
    ranges: Vec<Range<u64>>,
}

impl Byteranges {
    /// Under a boundary of their own.
    pub fn new(ranges: Vec<Range<u64>>) -> Self {
        Self { boundary: format!("{:032x}", rand::random::<u128>()), ranges }
    }

    /// What the answer says that it is.
    pub fn head(&self) -> [(axum::http::HeaderName, String); 1] {
        [(CONTENT_TYPE, format!("multipart/byteranges; boundary=\"{}\"", self.boundary))]
    }

    /// Sends them.
    pub async fn send(self, db: &Database, held: &OpenAttachment, sink: &Sink) -> Result<(), Stopped> {
        let Self { boundary, ranges } = self;
        let attachment = held.attachment();
        sink.send(format!("--{boundary}")).await?;
        for range in ranges {
            let content_range = content_range(&range, attachment.stored_length);
            let content_type = &attachment.content_type;
            let head = format!("\r\nContent-Type: {content_type}\r\nContent-Range: {content_range}\r\n\r\n");
            sink.send(head).await?;
            Blob::part(db, held, range).send(sink).await?;
            sink.send(format!("\r\n--{boundary}")).await?;
        }
        sink.send("--").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(range: &str, length: u64) -> Part {
        Part::wanted(&HeaderMap::from_iter([(RANGE, range.parse().unwrap())]), "tag", length)
    }

    /// What CouchDB 3.5.0 answers of twenty bytes, but for the last line.
    #[test]
    fn ranges_are_read_as_couchdb_reads_them() {
        for (range, part) in [
            ("bytes=0-4", Part::Of(0..5)),
            ("bytes= 0-4", Part::Of(0..5)),
            ("bytes=5-", Part::Of(5..20)),
            ("bytes=-3", Part::Of(17..20)),
            ("bytes=10-100", Part::Of(10..20)),
            ("bytes=0-19", Part::Of(0..20)),
            ("bytes=0-", Part::Whole),
            ("bytes=0-0, 19-", Part::Several(vec![0..1, 19..20])),
            ("bytes=2-3,2-3", Part::Several(vec![2..4, 2..4])),
            ("bytes=20-", Part::Unsatisfiable),
            ("bytes=4-2", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=0-4,30-40", Part::Unsatisfiable),
            ("bytes=abc", Part::Whole),
            ("bytes=-", Part::Whole),
            ("Bytes=0-4", Part::Whole),
            ("bytes=0-4,x", Part::Whole),
            ("bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9", Part::Whole),
            ("bytes=-100", Part::Of(0..20)),
        ] {
            assert_eq!(wanted(range, 20), part, "{range}");
        }
        assert_eq!(wanted("bytes=0-0", 0), Part::Unsatisfiable);
        assert_eq!(wanted("bytes=0-99999999999999999999", 20), Part::Whole);
        assert!(
            matches!(wanted("bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8", 20), Part::Several(nine) if nine.len() == 9)
        );
    }

    #[test]
    fn a_part_of_another_attachment_is_all_of_this_one() {
        let part = |known: &str| {
            let headers = [(RANGE, "bytes=0-4".parse().unwrap()), (IF_RANGE, known.parse().unwrap())];
            Part::wanted(&HeaderMap::from_iter(headers), "tag", 20)
        };
        assert_eq!(part("\"tag\""), Part::Of(0..5));
        for other in ["\"other\"", "W/\"tag\"", "tag", "Fri, 27 Nov 2026 00:40:09 GMT"] {
            assert_eq!(part(other), Part::Whole, "{other}");
        }
    }
}
