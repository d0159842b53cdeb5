//! Walks through a text that was checked, and keeps nothing of what it passed.

use std::borrow::Cow;

use super::{ENVELOPE, Member, Scan, string};

/// A place among an array's elements or an object's members.
///
/// Hand it the same checked text each time. In other text it stops early, or gives what is no JSON.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    /// The byte after the last element; 0: at the start.
    at: usize,
}

impl Cursor {
    /// The place after the element or member that ends there.
    pub(super) fn after(at: usize) -> Self {
        Self { at }
    }

    /// The next element of an array.
    pub fn element<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        let mut scan = self.next(text)?;
        let start = scan.at;
        scan.value().ok()?;
        self.at = scan.at;
        Some(&text[start..scan.at])
    }

    /// The next member of an object.
    pub fn member<'a>(&mut self, text: &'a [u8]) -> Option<Member<'a>> {
        let mut scan = self.next(text)?;
        let start = scan.at;
        scan.string().ok()?;
        let key = &text[start..scan.at];
        scan.whitespace();
        scan.expect(b':').ok()?;
        scan.whitespace();
        let value = scan.at;
        scan.value().ok()?;
        self.at = scan.at;
        let key =
            string(key).unwrap_or_else(|| Cow::Owned(String::from_utf8_lossy(&key[1..key.len() - 1]).into_owned()));
        Some(Member { key, value: &text[value..scan.at], span: start..scan.at })
    }

    /// At the next element; `None` at the end.
    fn next<'a>(&self, text: &'a [u8]) -> Option<Scan<'a>> {
        let mut scan = Scan::new(text);
        // The text was checked; what is walked through may be an envelope around documents as deep as any.
        scan.max_depth += ENVELOPE;
        scan.at = self.at;
        scan.whitespace();
        match (self.at, scan.peek()?) {
            (0, b'[' | b'{') | (1.., b',') => scan.at += 1,
            _ => return None,
        }
        scan.whitespace();
        (!matches!(scan.peek()?, b']' | b'}')).then_some(scan)
    }
}
