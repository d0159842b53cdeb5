//! JSON text as CouchDB's decoder has it, straight into the external format.
//!
//! Goes through the text twice and doesn't call itself, so that no depth overflows the stack. A list's length stands before
//! its elements, and of members that come twice the last one counts, where it stands (jiffy's `dedupe_keys`): so the first
//! pass ([`Shape::of`]) notes how long each array and object is and which members go, and the second ([`Shape::write`]) gives the
//! term piece by piece. Expects text that [`crate::json::check`] accepts; of any other it makes something, but nothing in
//! particular.
//!
//! Memory: a shape is less than the text, however many members that has; a term would be several times as long as a text of
//! empty members.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{
    BINARY_EXT, LIST_EXT, LONGEST_STRING, NIL_EXT, SMALL_INTEGER_EXT, SMALL_TUPLE_EXT, STRING_EXT, Term, VERSION,
    append_length, number,
};
use crate::json;

/// Bytes of a term that are gathered before they are given on.
const PIECE: usize = 16 << 10;
/// In [`Shape::lengths`]: all elements are integers between 0 and 255.
const BYTES: u8 = 1 << 7;
/// In [`Shape::lengths`]: the length is in [`Shape::long`].
const LONG: u8 = BYTES - 1;
/// Keys begin at least so many bytes after each other: `"":{"":`.
const KEY_STEP: usize = 4;

/// What must be known of a text before the first byte of its term.
#[derive(Debug, Default)]
pub struct Shape {
    /// Of each array and object that isn't empty, in the order in which they begin: its length below [`LONG`], and [`BYTES`].
    lengths: Vec<u8>,
    /// The lengths from [`LONG`] on.
    long: HashMap<usize, usize>,
    /// A bit for every [`KEY_STEP`] bytes of the text: the key that begins there comes again later. Empty if none does.
    dropped: Vec<u64>,
}

impl Term {
    /// Gives `term_to_binary` of a list piece by piece: some terms, what a document's checked text stands for, however deep and
    /// long it is, and more terms.
    pub fn encode_around(before: &[Self], (shape, text): (&Shape, &[u8]), after: &[Self], mut give: impl FnMut(&[u8])) {
        let mut out = vec![VERSION, LIST_EXT];
        append_length(before.len() + 1 + after.len(), &mut out);
        before.iter().for_each(|term| term.append(&mut out));
        give(&out);
        shape.write(text, &mut give);
        out.clear();
        after.iter().for_each(|term| term.append(&mut out));
        out.push(NIL_EXT);
        give(&out);
    }
}

/// An array or object of the first pass.
struct Measured {
    object: bool,
    /// The next string is a key.
    key_next: bool,
    /// Its place in [`Shape::lengths`]; `None` if it is empty.
    place: Option<usize>,
    elements: usize,
    bytes: bool,
    /// How many members of others were open before its own.
    members: usize,
}

impl Shape {
    /// Goes through the text for the first time.
    pub fn of(text: &[u8]) -> Self {
        let (mut shape, mut open) = (Self::default(), Vec::<Measured>::new());
        // Where the keys of the open objects begin.
        let mut members = Vec::<u32>::new();
        for (at, token) in Tokens::of(text) {
            match token[0] {
                b'{' | b'[' => {
                    count(&mut open, false);
                    let place = (!is_empty(text, at)).then_some(shape.lengths.len());
                    shape.lengths.extend(place.map(|_| 0));
                    let object = token[0] == b'{';
                    let members = members.len();
                    open.push(Measured { object, key_next: object, place, elements: 0, bytes: !object, members });
                }
                b'}' | b']' => {
                    let Some(closed) = open.pop() else { continue };
                    let again = shape.drop_doubles(text, &mut members[closed.members..]);
                    members.truncate(closed.members);
                    if let Some(place) = closed.place {
                        shape.note(place, closed.elements - again, closed.bytes);
                    }
                }
                b',' => open.iter_mut().last().into_iter().for_each(|open| open.key_next = open.object),
                b'"' => match open.last_mut().filter(|open| open.key_next) {
                    Some(object) => {
                        object.key_next = false;
                        object.elements += 1;
                        // Of 4 GiB and more, which no server takes, the rest isn't looked at for doubles.
                        members.extend(u32::try_from(at));
                    }
                    None => count(&mut open, false),
                },
                _ => count(&mut open, byte(token).is_some()),
            }
        }
        shape.lengths.shrink_to_fit();
        shape
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lengths.capacity() + 8 * self.dropped.capacity() + 18 * self.long.capacity()
    }

    fn note(&mut self, place: usize, length: usize, bytes: bool) {
        let short = u8::try_from(length).ok().filter(|short| *short < LONG);
        if short.is_none() {
            self.long.insert(place, length);
        }
        let bytes = if bytes && length <= LONGEST_STRING { BYTES } else { 0 };
        self.lengths[place] = short.unwrap_or(LONG) | bytes;
    }

    /// Marks the members of one object, by where their keys begin, whose key comes again; answers how many.
    fn drop_doubles(&mut self, text: &[u8], members: &mut [u32]) -> usize {
        let key = |at: u32| key(text, at as usize);
        members.sort_unstable_by(|one, other| compare(key(*one), key(*other)).then(one.cmp(other)));
        let mut again = 0;
        for pair in members.windows(2) {
            if compare(key(pair[0]), key(pair[1])).is_eq() {
                again += 1;
                self.dropped.resize(text.len() / KEY_STEP / 64 + 1, 0);
                let bit = pair[0] as usize / KEY_STEP;
                self.dropped[bit / 64] |= 1 << (bit % 64);
            }
        }
        again
    }

    fn is_dropped(&self, key: usize) -> bool {
        let bit = key / KEY_STEP;
        self.dropped.get(bit / 64).is_some_and(|bits| bits >> (bit % 64) & 1 == 1)
    }

    /// The length of the array or object at this place, and whether it is a list of bytes.
    fn length(&self, place: usize) -> (usize, bool) {
        let noted = self.lengths.get(place).copied().unwrap_or_default();
        let length = match noted & !BYTES {
            LONG => self.long.get(&place).copied().unwrap_or_default(),
            short => short.into(),
        };
        (length, noted & BYTES != 0)
    }

    /// Gives the term of the text of which this is the shape, without the version byte, piece by piece.
    pub fn write(&self, text: &[u8], mut give: impl FnMut(&[u8])) {
        let mut writer =
            Writer { shape: self, out: Vec::with_capacity(PIECE), open: Vec::new(), begun: 0, muted: None };
        for (at, token) in Tokens::of(text) {
            match token[0] {
                b'{' | b'[' => writer.begin(token[0] == b'{', is_empty(text, at)),
                b'}' | b']' => writer.end(),
                b',' => writer.open.iter_mut().last().into_iter().for_each(|open| open.key_next = open.object),
                b'"' => writer.string(at, token, &mut give),
                _ => writer.scalar(token),
            }
            if writer.out.len() >= PIECE {
                give(&writer.out);
                writer.out.clear();
            }
        }
        give(&writer.out);
    }
}

/// An array or object of the second pass.
struct Open {
    object: bool,
    /// The next string is a key.
    key_next: bool,
    /// Its elements are the bytes of a STRING_EXT.
    string: bool,
    /// It ends in a NIL_EXT.
    closed_by_nil: bool,
}

struct Writer<'a> {
    shape: &'a Shape,
    out: Vec<u8>,
    open: Vec<Open>,
    /// Arrays and objects that have begun, without the empty ones.
    begun: usize,
    /// What is written is dropped: a member whose key comes again, of the object that is so deep.
    muted: Option<usize>,
}

impl Writer<'_> {
    fn begin(&mut self, object: bool, empty: bool) {
        let (length, string) = if empty { (0, false) } else { self.shape.length(self.begun) };
        self.begun += usize::from(!empty);
        self.open.push(Open { object, key_next: object, string, closed_by_nil: !string && !empty });
        if self.muted.is_some() {
            return;
        }
        if object {
            self.out.extend_from_slice(&[SMALL_TUPLE_EXT, 1]);
        }
        match u16::try_from(length) {
            _ if empty => self.out.push(NIL_EXT),
            Ok(length) if string => {
                self.out.push(STRING_EXT);
                self.out.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                self.out.push(LIST_EXT);
                append_length(length, &mut self.out);
            }
        }
    }

    fn end(&mut self) {
        let depth = self.open.len();
        let Some(closed) = self.open.pop() else { return };
        if self.muted == Some(depth) {
            self.muted = None;
        }
        if self.muted.is_none() && closed.closed_by_nil {
            self.out.push(NIL_EXT);
        }
    }

    fn string(&mut self, at: usize, token: &[u8], give: &mut impl FnMut(&[u8])) {
        let depth = self.open.len();
        let is_key = self.open.last_mut().is_some_and(|open| std::mem::take(&mut open.key_next));
        if is_key && self.muted.is_none_or(|muted| muted == depth) {
            self.muted = self.shape.is_dropped(at).then_some(depth);
        }
        if self.muted.is_some() {
            return;
        }
        if is_key {
            self.out.extend_from_slice(&[SMALL_TUPLE_EXT, 2]);
        }
        let text = json::string(token).unwrap_or_default();
        self.out.push(BINARY_EXT);
        append_length(text.len(), &mut self.out);
        if text.len() < PIECE {
            return self.out.extend_from_slice(text.as_bytes());
        }
        give(&self.out);
        self.out.clear();
        give(text.as_bytes());
    }

    fn scalar(&mut self, token: &[u8]) {
        if self.muted.is_some() {
            return;
        }
        match (token, byte(token), std::str::from_utf8(token)) {
            (_, Some(byte), _) if self.open.last().is_some_and(|open| open.string) => self.out.push(byte),
            (_, Some(byte), _) => self.out.extend_from_slice(&[SMALL_INTEGER_EXT, byte]),
            (b"null", ..) => Term::Atom("null").append(&mut self.out),
            (b"true", ..) => Term::Atom("true").append(&mut self.out),
            (b"false", ..) => Term::Atom("false").append(&mut self.out),
            (_, _, Ok(text)) => number(text).append(&mut self.out),
            _ => Term::Binary(token.to_vec()).append(&mut self.out),
        }
    }
}

/// Counts a value as an element of the array in hand, if it is in one.
fn count(open: &mut [Measured], is_byte: bool) {
    if let Some(open) = open.last_mut().filter(|open| !open.object) {
        open.elements += 1;
        open.bytes &= is_byte;
    }
}

/// The value of an integer between 0 and 255.
fn byte(token: &[u8]) -> Option<u8> {
    match token {
        b"-0" => Some(0),
        _ => std::str::from_utf8(token).ok()?.parse().ok(),
    }
}

/// Whether the array or object that begins here has no element.
fn is_empty(text: &[u8], at: usize) -> bool {
    text[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| matches!(byte, b'}' | b']'))
}

/// The string that begins here, quotes included.
fn key(text: &[u8], at: usize) -> &[u8] {
    &text[at..at + string_length(&text[at..])]
}

/// Compares strings by what they say.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    match memchr::memchr(b'\\', one).is_none() && memchr::memchr(b'\\', other).is_none() {
        true => one.cmp(other),
        // In the order of quoted texts, so that it is one order for all.
        false => {
            let quoted = |token| format!("\"{}\"", json::string(token).unwrap_or_default());
            quoted(one).as_bytes().cmp(quoted(other).as_bytes())
        }
    }
}

/// What a text consists of, and where it stands: brackets, commas, strings, numbers and words.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.text[self.at..];
        let begin = rest.iter().position(|byte| !b": \t\r\n".contains(byte))?;
        let (at, rest) = (self.at + begin, &rest[begin..]);
        let length = match rest[0] {
            b'"' => string_length(rest),
            b'{' | b'[' | b'}' | b']' | b',' => 1,
            _ => rest.iter().take_while(|byte| !b" \t\r\n,]}".contains(byte)).count(),
        };
        let token = &rest[..length.clamp(1, rest.len())];
        self.at = at + token.len();
        Some((at, token))
    }
}

/// The length of the string at the text's beginning, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}
