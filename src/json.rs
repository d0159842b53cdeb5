//! Reads JSON without making values of it: checks it, walks an object's members, cuts an array's elements as their
//! text arrives.
//!
//! This is the path every document takes, on both sides of it, so it is written for speed: one pass, eight bytes at a
//! time within strings, no allocation but for keys with escapes. It promises that
//! - [`members`] and [`check`] accept exactly what RFC 8259 calls JSON, up to [`MAX_DEPTH`] levels deep, in UTF-8
//!   (compared with `serde_json` by property tests): a lone surrogate (`"\ud800"`) is JSON, though no text;
//! - [`Elements`] never looks past the bytes it was given and finds the same cuts however they are split.
//!
//! It does no I/O and doesn't unescape values: whoever needs a value parses that one with `serde_json`.

mod elements;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use crate::document::DocumentError;

pub use elements::Elements;

/// Levels of arrays and objects within each other that are accepted; deeper text is refused before it hurts anyone.
pub const MAX_DEPTH: usize = 512;

/// One member of an object.
#[derive(Debug)]
pub struct Member<'a> {
    /// The key, unescaped; as it is written where it holds a lone surrogate, which no text can.
    pub key: Cow<'a, str>,
    /// The value's text.
    pub value: &'a [u8],
    /// Where `"key": value` stands in the object's text.
    pub span: Range<usize>,
}

/// Checks that `text` is one JSON value in UTF-8.
pub fn check(text: &[u8]) -> Result<(), DocumentError> {
    std::str::from_utf8(text).map_err(|_| DocumentError::InvalidJson)?;
    let mut scan = Scan { text, at: 0 };
    scan.whitespace();
    scan.value(0)?;
    scan.end()
}

/// The members of the object that `text` is, all of it checked before this returns.
///
/// # Errors
/// [`DocumentError::InvalidJson`], or [`DocumentError::NotAnObject`] for other JSON.
pub fn members(text: &[u8]) -> Result<impl Iterator<Item = Member<'_>>, DocumentError> {
    std::str::from_utf8(text).map_err(|_| DocumentError::InvalidJson)?;
    let mut scan = Scan { text, at: 0 };
    scan.whitespace();
    if scan.peek() != Some(b'{') {
        scan.value(0)?;
        return scan.end().and(Err(DocumentError::NotAnObject));
    }
    let mut members = Vec::with_capacity(16);
    scan.object(1, |span, key, value| members.push((span, key, value)))?;
    scan.end()?;
    Ok(members.into_iter().map(|(span, key, value)| Member {
        key: string(&text[key.clone()]).unwrap_or_else(|| String::from_utf8_lossy(&text[key.start + 1..key.end - 1])),
        value: &text[value],
        span,
    }))
}

/// The text of a JSON string, quotes and all, as the string it stands for; `None` where it is no string.
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

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

type Scanned<T = ()> = Result<T, DocumentError>;
const INVALID: DocumentError = DocumentError::InvalidJson;

impl Scan<'_> {
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

    fn value(&mut self, depth: usize) -> Scanned {
        match self.peek().ok_or(INVALID)? {
            b'"' => self.string(),
            b'{' => self.object(depth + 1, |_, _, _| {}),
            b'[' => self.array(depth + 1),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize, mut each: impl FnMut(Range<usize>, Range<usize>, Range<usize>)) -> Scanned {
        self.enter(depth)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let start = self.at;
            self.string()?;
            let key = start..self.at;
            self.whitespace();
            self.expect(b':')?;
            self.whitespace();
            let value = self.at;
            self.value(depth)?;
            each(start..self.at, key, value..self.at);
            if self.closed(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Scanned {
        self.enter(depth)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if self.closed(b']')? {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, depth: usize) -> Scanned {
        self.at += 1;
        self.whitespace();
        (depth <= MAX_DEPTH).then_some(()).ok_or(INVALID)
    }

    /// Behind an element: `true` at the closing bracket, `false` with the next element at hand.
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
                let digits = self.text.get(self.at..self.at + 4).ok_or(INVALID)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(()).ok_or(INVALID)
            }
            _ => Err(INVALID),
        }
    }

    fn number(&mut self) -> Scanned {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
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
