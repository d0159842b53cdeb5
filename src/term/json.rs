//! JSON text as CouchDB's decoder has it, straight into the external format.
//!
//! Goes through the text once and doesn't call itself, so that no depth overflows the stack. Expects text that
//! [`crate::json::check`] accepts; of any other it makes something, but nothing in particular. Of members that come twice
//! the last one counts, where it stands (jiffy's `dedupe_keys`).

use std::ops::Range;

use super::{
    BINARY_EXT, LIST_EXT, LONGEST_STRING, NIL_EXT, SMALL_INTEGER_EXT, SMALL_TUPLE_EXT, STRING_EXT, Term, append_length,
    number,
};
use crate::json;

/// Members that are compared one with another faster than they are sorted.
const FEW: usize = 16;
/// Bytes of an object's pair before its key's text; the last four are its length.
const PAIR_HEAD: usize = 7;
/// Bytes of a LIST_EXT before its elements.
const LIST_HEAD: usize = 5;

/// An array or object that is being written.
struct Open {
    object: bool,
    /// The next string is a key.
    key_next: bool,
    /// Where its list begins in the output.
    list: usize,
    elements: usize,
    /// All elements are integers between 0 and 255.
    bytes: bool,
    /// How many members of others were open before its own.
    members: usize,
}

struct Writer {
    out: Vec<u8>,
    open: Vec<Open>,
    /// Where each member of the open objects begins in the output: a pair's tag, its arity, its key's tag and length, its key.
    members: Vec<usize>,
    /// Members whose key comes again, which are dropped at the end: dropping them one level after the other would copy
    /// what is deep once a level. Some are within others.
    dropped: Vec<Range<usize>>,
}

impl Term {
    /// What a document's checked text stands for, however deep it is.
    pub fn document(text: &[u8]) -> Self {
        Self::Encoded(encode(text))
    }
}

/// The term that the text stands for, without the version byte.
fn encode(text: &[u8]) -> Vec<u8> {
    let mut writer =
        Writer { out: Vec::with_capacity(text.len()), open: Vec::new(), members: Vec::new(), dropped: Vec::new() };
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => string_length(rest),
            b'{' | b'[' | b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => 1,
            _ => rest.iter().take_while(|byte| !b" \t\r\n,]}".contains(byte)).count(),
        };
        let (token, behind) = rest.split_at(length.clamp(1, rest.len()));
        rest = behind;
        match byte {
            b'{' | b'[' => writer.begin(byte == b'{'),
            b'}' | b']' => writer.end(),
            b',' => writer.open.iter_mut().last().into_iter().for_each(|open| open.key_next = open.object),
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => writer.string(&json::string(token).unwrap_or_default()),
            _ => writer.scalar(token),
        }
    }
    writer.finish()
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

impl Writer {
    fn begin(&mut self, object: bool) {
        self.count(false);
        if object {
            self.out.extend_from_slice(&[SMALL_TUPLE_EXT, 1]);
        }
        let (list, members) = (self.out.len(), self.members.len());
        self.open.push(Open { object, key_next: object, list, elements: 0, bytes: !object, members });
        self.out.extend_from_slice(&[0; LIST_HEAD]);
    }

    fn end(&mut self) {
        let Some(mut open) = self.open.pop() else { return };
        if open.object {
            open.elements -= self.mark_doubles(&open);
            self.members.truncate(open.members);
        }
        let elements = open.list + LIST_HEAD;
        match u16::try_from(open.elements) {
            Ok(0) => {
                self.out.truncate(open.list);
                self.out.push(NIL_EXT);
            }
            Ok(length) if open.bytes && open.elements <= LONGEST_STRING => {
                // Each is a tag and the byte.
                let bytes: Vec<u8> = self.out[elements..].iter().skip(1).step_by(2).copied().collect();
                self.out.truncate(open.list);
                self.out.push(STRING_EXT);
                self.out.extend_from_slice(&length.to_be_bytes());
                self.out.extend_from_slice(&bytes);
            }
            _ => {
                let mut head = vec![LIST_EXT];
                append_length(open.elements, &mut head);
                self.out[open.list..elements].copy_from_slice(&head);
                self.out.push(NIL_EXT);
            }
        }
    }

    /// Marks the members of the object in hand whose key comes again; answers how many.
    fn mark_doubles(&mut self, open: &Open) -> usize {
        let members = &self.members[open.members..];
        let key = |place: usize| {
            let at = members[place] + PAIR_HEAD;
            let length = self.out[at - 4..at].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            &self.out[at..at + length]
        };
        let is_new = |place: usize| (0..place).all(|before| key(before) != key(place));
        if members.len() <= FEW && (0..members.len()).all(is_new) {
            return 0;
        }
        // Sorted and not hashed: it takes less memory for millions of short ones.
        let mut places: Vec<usize> = (0..members.len()).collect();
        places.sort_unstable_by(|one, other| key(*one).cmp(key(*other)).then(one.cmp(other)));
        let again = places.windows(2).filter(|pair| key(pair[0]) == key(pair[1])).map(|pair| pair[0]);
        let mut again: Vec<usize> = again.collect();
        again.sort_unstable();
        for place in &again {
            let span = members[*place]..members[place + 1];
            match self.dropped.last_mut().filter(|last| last.end == span.start) {
                Some(last) => last.end = span.end,
                None => self.dropped.push(span),
            }
        }
        again.len()
    }

    /// What was written, without the members that were marked.
    fn finish(mut self) -> Vec<u8> {
        self.dropped.sort_unstable_by_key(|span| span.start);
        let (mut kept, mut at) = (0, 0);
        let end = self.out.len()..self.out.len();
        for span in self.dropped.into_iter().chain(std::iter::once(end)) {
            // One that ends before is within another.
            if span.start >= at {
                self.out.copy_within(at..span.start, kept);
                kept += span.start - at;
                at = span.end;
            }
        }
        self.out.truncate(kept);
        self.out
    }

    fn string(&mut self, text: &str) {
        let start = self.out.len();
        let is_key = self.open.last_mut().is_some_and(|open| std::mem::take(&mut open.key_next));
        if is_key {
            self.out.extend_from_slice(&[SMALL_TUPLE_EXT, 2]);
        } else {
            self.count(false);
        }
        self.out.push(BINARY_EXT);
        append_length(text.len(), &mut self.out);
        self.out.extend_from_slice(text.as_bytes());
        if is_key && let Some(open) = self.open.last_mut() {
            open.elements += 1;
            self.members.push(start);
        }
    }

    fn scalar(&mut self, token: &[u8]) {
        let term = match (token, std::str::from_utf8(token)) {
            (b"null", _) => Term::Atom("null"),
            (b"true", _) => Term::Atom("true"),
            (b"false", _) => Term::Atom("false"),
            (_, Ok(text)) => number(text),
            _ => Term::Binary(token.to_vec()),
        };
        let start = self.out.len();
        term.append(&mut self.out);
        self.count(self.out[start] == SMALL_INTEGER_EXT);
    }

    /// Counts a value as an element of the array in hand, if it is in one.
    fn count(&mut self, is_byte: bool) {
        if let Some(open) = self.open.last_mut().filter(|open| !open.object) {
            open.elements += 1;
            open.bytes &= is_byte;
        }
    }
}
