//! Cuts an array's elements out of a text that is still arriving.
//!
//! Tracks brackets and strings, and checks nothing else: whoever takes an element parses it, and asks
//! [`Elements::finished`] at the end, so that cut or garbled answers are noticed.

use std::ops::Range;

use super::plain_run;

/// Finds the elements of the first array that is a member of an object, while the object's text is still arriving.
///
/// For `{"results":[a,b,…],…}`: hand [`Elements::next`] the text so far, less what [`Elements::consume`] took away, and it
/// gives the next whole element. Members before and after the array are skipped, other arrays too. [`Elements::of_array`]
/// does the same for a text that is an array itself.
#[derive(Debug)]
pub struct Elements {
    /// Bytes of the text that were looked at.
    at: usize,
    /// Where the element in hand starts.
    start: Option<usize>,
    depth: usize,
    in_string: bool,
    array: Array,
    /// The depth of the elements: 2 in `{"results":[…]}`, 1 in `[…]`.
    elements_at: usize,
    /// The element in hand isn't wanted.
    skipping: bool,
    finished: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Array {
    #[default]
    Ahead,
    Here,
    After,
}

impl Default for Elements {
    fn default() -> Self {
        Self::at_depth(2)
    }
}

impl Elements {
    /// Finds the elements of the array that the text is.
    pub fn of_array() -> Self {
        Self::at_depth(1)
    }

    fn at_depth(elements_at: usize) -> Self {
        Self {
            at: 0,
            start: None,
            depth: 0,
            in_string: false,
            array: Array::Ahead,
            elements_at,
            skipping: false,
            finished: false,
        }
    }

    /// The next whole element's place in `text`; `None` until more text has come.
    pub fn next(&mut self, text: &[u8]) -> Option<Range<usize>> {
        while !self.finished {
            if self.in_string && !self.skip_string(text) {
                return None;
            }
            let byte = *text.get(self.at)?;
            self.at += 1;
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' | b':' => {}
                b',' => {
                    if let Some(element) = self.element(text) {
                        return Some(element);
                    }
                }
                b'}' | b']' => {
                    let element = self.element(text);
                    self.close();
                    if element.is_some() {
                        return element;
                    }
                }
                _ => self.open(byte),
            }
        }
        None
    }

    /// Tells that the first `bytes` of the text were dropped, at most [`Elements::consumable`] of them.
    pub fn consume(&mut self, bytes: usize) {
        self.at -= bytes;
        self.start = self.start.map(|start| start - bytes);
    }

    /// Bytes that may be dropped: everything before the element in hand.
    pub fn consumable(&self) -> usize {
        self.start.unwrap_or(self.at)
    }

    /// Leaves the element in hand out: what came of it may be dropped, and what comes isn't given. Tells whether there was
    /// one that hadn't ended.
    pub fn skip(&mut self) -> bool {
        let in_hand = self.start.take().is_some();
        // Not `|=`: rustc since 1.92 miscompiles that where a caller branches on the answer, and skips an element though
        // none was in hand (rust-lang/rust#158206).
        if in_hand {
            self.skipping = true;
        }
        in_hand
    }

    /// Whether the array was whole and the object's closing bracket was seen.
    ///
    /// An object without any array never finishes: it isn't the answer that was asked for.
    pub fn finished(&self) -> bool {
        self.finished && self.array == Array::After
    }

    /// Whether the text ended before its closing bracket. What doesn't begin as an object or an array isn't cut.
    pub fn is_cut(&self) -> bool {
        !self.finished
    }

    fn among_elements(&self) -> bool {
        self.depth == self.elements_at && self.array == Array::Here
    }

    /// The element that the byte looked at last, a comma or a bracket, has ended.
    fn element(&mut self, text: &[u8]) -> Option<Range<usize>> {
        if self.depth != self.elements_at {
            return None;
        }
        self.skipping = false;
        let start = self.start.take()?;
        Some(start..start + text[start..self.at - 1].trim_ascii_end().len())
    }

    fn open(&mut self, byte: u8) {
        if self.among_elements() && self.start.is_none() && !self.skipping {
            self.start = Some(self.at - 1);
        }
        match byte {
            _ if self.depth == 0 && !matches!(byte, b'{' | b'[') => self.finished = true,
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'[' => {
                self.depth += 1;
                if self.depth == self.elements_at && self.array == Array::Ahead {
                    self.array = Array::Here;
                }
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        if self.among_elements() {
            self.array = Array::After;
        }
        self.depth = self.depth.saturating_sub(1);
        self.finished = self.depth == 0;
    }

    /// Goes on after the string that it stands in; `false` if more text must come first.
    fn skip_string(&mut self, text: &[u8]) -> bool {
        loop {
            self.at += plain_run(&text[self.at..]);
            match text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    self.in_string = false;
                    return true;
                }
                // A backslash is skipped together with what it escapes.
                Some(b'\\') if self.at + 1 < text.len() => self.at += 2,
                Some(b'\\') | None => return false,
                Some(_) => self.at += 1,
            }
        }
    }
}
