//! Reads JSON without making values of it: checks it, walks an object's members, cuts an array's elements as their
//! text arrives.
//!
//! This is the path every document takes, on both sides of it, so it is written for speed: one pass, eight bytes at a
//! time within strings, no allocation but for keys with escapes and a byte a level. It promises that
//! - [`members`] accepts exactly what RFC 8259 calls JSON, up to [`MAX_DEPTH`] levels deep, in UTF-8 (compared with
//!   `serde_json` by property tests), and tells whether CouchDB would refuse it: for half a surrogate pair (`"\ud800"`),
//!   which is no text, or a number too large for a float (`1e999`). Such a document is refused where it would be written; one
//!   that a source has can be looked at. Integers may be of any size, where CouchDB fails at those of over 308 digits.
//!   [`check`] takes what CouchDB would;
//! - no depth overflows the stack: nothing here calls itself;
//! - [`Elements`] never looks past the bytes it was given and finds the same cuts however they are split.
//!
//! It does no I/O and doesn't unescape values: whoever needs a value parses that one with `serde_json`.

mod elements;
pub mod fields;
mod cursor;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

pub use cursor::Cursor;
pub use elements::Elements;

/// Levels of arrays and objects within each other that are accepted. CouchDB has no limit. What reads a document after
/// this has one of its own, or none: it mustn't take for granted that a document is shallow.
pub const MAX_DEPTH: usize = 100_000;
/// Levels around the documents of a request: its object, and the list in that.
const ENVELOPE: usize = 2;

/// Members of an object whose places are kept: more than documents have, and little memory where a hostile one has millions.
const MAX_PLACES: usize = 4096;

/// Bytes of a text that is made into values at most, which take some thirty times its length: a request to replicate, with room for
/// 100,000 `doc_ids`, and a document that the server itself reads.
pub const MAX_VALUE_BYTES: usize = 4 << 20;

/// One member of an object.
#[derive(Debug)]
pub struct Member<'a> {
    /// The key, unescaped; as it is written where it holds half a surrogate pair, which no text can.
    pub key: Cow<'a, str>,
    /// The value's text.
    pub value: &'a [u8],
    /// Where `"key": value` stands in the object's text.
    pub span: Range<usize>,
}

/// Why a text isn't what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It isn't JSON, or not in UTF-8.
    #[error("invalid UTF-8 JSON")]
    Invalid,
    /// It is JSON, and no object.
    #[error("not a JSON object")]
    NotAnObject,
}

/// Checks that `text` is one JSON value that CouchDB would take.
pub fn check(text: &[u8]) -> Result<(), JsonError> {
    std::str::from_utf8(text).map_err(|_| JsonError::Invalid)?;
    let mut scan = Scan::new(text);
    scan.whitespace();
    scan.value()?;
    scan.end()?;
    if scan.odd { Err(INVALID) } else { Ok(()) }
}

/// The members of an object, in order.
#[derive(Debug)]
pub struct Members<'a> {
    text: &'a [u8],
    /// Where each of the first ones stands, its key and its value.
    places: std::vec::IntoIter<(Range<usize>, Range<usize>, Range<usize>)>,
    /// Walks through the others, which are looked at twice.
    others: Cursor,
    /// CouchDB would refuse the object, though it is JSON.
    pub odd: bool,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let Some((span, key, value)) = self.places.next() else { return self.others.member(self.text) };
        let as_written = || String::from_utf8_lossy(&self.text[key.start + 1..key.end - 1]);
        Some(Member { key: string(&self.text[key.clone()]).unwrap_or_else(as_written), value: &self.text[value], span })
    }
}

/// The members of the object that `text` is, all of it checked before this returns.
///
/// # Errors
/// [`JsonError::Invalid`], or [`JsonError::NotAnObject`] for other JSON.
pub fn members(text: &[u8]) -> Result<Members<'_>, JsonError> {
    let mut scan = object(text)?;
    let mut places = Vec::with_capacity(16);
    scan.members(|span, key, value| {
        if places.len() < MAX_PLACES {
            places.push((span, key, value));
        }
    })?;
    scan.end()?;
    let others = places.last().map_or_else(Cursor::default, |(span, ..)| Cursor::after(span.end));
    Ok(Members { text, places: places.into_iter(), others, odd: scan.odd })
}

/// The text of an object's member, of the last of that name; all of the object is checked.
///
/// The object may be two levels deeper than others: documents of [`MAX_DEPTH`] come in a list.
///
/// # Errors
/// Those of [`members`].
pub fn member<'a>(text: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, JsonError> {
    let mut scan = object(text)?;
    let mut found = None;
    scan.max_depth += ENVELOPE;
    scan.members(|_, key, value| {
        if string(&text[key]).is_some_and(|key| key == name) {
            found = Some(&text[value]);
        }
    })?;
    scan.end()?;
    Ok(found)
}

/// A scan that stands at an object's beginning.
fn object(text: &[u8]) -> Result<Scan<'_>, JsonError> {
    std::str::from_utf8(text).map_err(|_| JsonError::Invalid)?;
    let mut scan = Scan::new(text);
    scan.whitespace();
    if scan.peek() != Some(b'{') {
        scan.value()?;
        scan.end()?;
        return Err(JsonError::NotAnObject);
    }
    Ok(scan)
}

/// The text of a JSON string, quotes and all, as the string it stands for; `None` if it is no string.
pub fn string(text: &[u8]) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    match plain_run(inner) == inner.len() {
        true => std::str::from_utf8(inner).ok().map(Cow::Borrowed),
        false => serde_json::from_slice::<String>(text).ok().map(Cow::Owned),
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    if plain_run(text.as_bytes()) < text.len() {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Copies checked JSON without the content of what is deeper than `depth` levels: arrays and objects there are empty.
pub fn pruned(text: &[u8], depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut scan, mut level) = (Scan::new(text), 0_usize);
    while let Some(byte) = scan.peek() {
        let start = scan.at;
        match byte {
            b'"' if scan.string().is_err() => break,
            b'"' => {}
            _ => {
                level += usize::from(matches!(byte, b'{' | b'['));
                scan.at += 1;
            }
        }
        let closes = matches!(byte, b'}' | b']');
        let edge = level == depth + 1 && (closes || matches!(byte, b'{' | b'['));
        if level <= depth || edge {
            out.extend_from_slice(&text[start..scan.at]);
        }
        level = level.saturating_sub(closes.into());
    }
    out
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// The brackets that are open around the value in hand, outermost first.
    open: Vec<u8>,
    max_depth: usize,
    /// Something was met that CouchDB would refuse.
    odd: bool,
}

type Scanned<T = ()> = Result<T, JsonError>;
const INVALID: JsonError = JsonError::Invalid;

impl<'a> Scan<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, open: Vec::new(), max_depth: MAX_DEPTH, odd: false }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Scanned {
        (self.peek() == Some(byte)).then(|| self.at += 1).ok_or(INVALID)
    }

    fn literal(&mut self, word: &[u8]) -> Scanned {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len()).ok_or(INVALID)
    }

    fn end(&mut self) -> Scanned {
        self.whitespace();
        (self.at == self.text.len()).then_some(()).ok_or(INVALID)
    }

    /// Passes over a whole value.
    fn value(&mut self) -> Scanned {
        let outside = self.open.len();
        loop {
            let ended = match self.peek().ok_or(INVALID)? {
                bracket @ (b'{' | b'[') => self.is_empty(bracket)?,
                _ => {
                    self.scalar()?;
                    true
                }
            };
            if ended && !self.has_next(outside)? {
                return Ok(());
            }
        }
    }

    fn scalar(&mut self) -> Scanned {
        match self.peek().ok_or(INVALID)? {
            b'"' => self.string(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// Goes into an array or object: `true` after its end if it is empty, else `false` with its first value at hand.
    fn is_empty(&mut self, bracket: u8) -> Scanned<bool> {
        self.at += 1;
        self.whitespace();
        if self.open.len() >= self.max_depth {
            return Err(INVALID);
        }
        // In ASCII both closing brackets are two after the opening ones.
        if self.peek() == Some(bracket + 2) {
            self.at += 1;
            return Ok(true);
        }
        if bracket == b'{' {
            self.key()?;
        }
        self.open.push(bracket);
        Ok(false)
    }

    /// After a value: `true` with the next one at hand, `false` after the end of all that was opened since `outside`.
    fn has_next(&mut self, outside: usize) -> Scanned<bool> {
        while self.open.len() > outside
            && let Some(&bracket) = self.open.last()
        {
            if !self.closed(bracket + 2)? {
                if bracket == b'{' {
                    self.key()?;
                }
                return Ok(true);
            }
            self.open.pop();
        }
        Ok(false)
    }

    /// Passes over a key and its colon.
    fn key(&mut self) -> Scanned<Range<usize>> {
        let start = self.at;
        self.string()?;
        let key = start..self.at;
        self.whitespace();
        self.expect(b':')?;
        self.whitespace();
        Ok(key)
    }

    /// Passes over an object, and tells of each member where it stands, its key and its value.
    fn members(&mut self, mut each: impl FnMut(Range<usize>, Range<usize>, Range<usize>)) -> Scanned {
        self.expect(b'{')?;
        self.whitespace();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        self.open.push(b'{');
        loop {
            let start = self.at;
            let key = self.key()?;
            let value = self.at;
            self.value()?;
            each(start..self.at, key, value..self.at);
            if self.closed(b'}')? {
                self.open.pop();
                return Ok(());
            }
        }
    }

    /// After an element: `true` at the closing bracket, `false` with the next element at hand.
    fn closed(&mut self, bracket: u8) -> Scanned<bool> {
        self.whitespace();
        let next = self.peek().ok_or(INVALID)?;
        self.at += 1;
        if next == b',' {
            self.whitespace();
            return Ok(false);
        }
        (next == bracket).then_some(true).ok_or(INVALID)
    }

    fn string(&mut self) -> Scanned {
        self.expect(b'"')?;
        loop {
            self.at += plain_run(&self.text[self.at..]);
            match self.peek().ok_or(INVALID)? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return Err(INVALID),
            }
        }
    }

    fn escape(&mut self) -> Scanned {
        self.at += 2;
        match self.text.get(self.at - 1).ok_or(INVALID)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                match self.code_unit()? {
                    0xD800..0xDC00 => self.low_surrogate()?,
                    0xDC00..0xE000 => self.odd = true,
                    _ => {}
                }
                Ok(())
            }
            _ => Err(INVALID),
        }
    }

    /// The second half of a surrogate pair, if it is one that comes.
    fn low_surrogate(&mut self) -> Scanned {
        let before = self.at;
        if self.literal(b"\\u").is_err() || !matches!(self.code_unit()?, 0xDC00..0xE000) {
            self.at = before;
            self.odd = true;
        }
        Ok(())
    }

    /// Four hexadecimal digits.
    fn code_unit(&mut self) -> Scanned<u32> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(INVALID)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?)).ok_or(INVALID)
    }

    fn number(&mut self) -> Scanned {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        let mut float = false;
        if self.peek() == Some(b'.') {
            float = true;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            float = true;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if float {
            let number = std::str::from_utf8(&self.text[start..self.at]).map_err(|_| INVALID)?;
            self.odd |= !number.parse().is_ok_and(f64::is_finite);
        }
        Ok(())
    }

    fn digits(&mut self) -> Scanned {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(()).ok_or(INVALID)
    }
}

/// How many of the first bytes may stand in a string as they are: none of `"`, `\` and the control characters.
fn plain_run(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    let (words, _) = text.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = zero_bytes(word ^ (ONES * b'"' as u64));
        let backslash = zero_bytes(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        // Borrows make a byte above a found one look found too, never one below it: the lowest is right.
        let found = quote | backslash | control;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\').count()
}
