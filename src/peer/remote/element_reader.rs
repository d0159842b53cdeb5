//! Cuts the elements out of an answer's array while it arrives, within a share of memory.
//!
//! What has arrived and isn't cut yet is one unfinished element and, at most, one chunk of the answer. An element that
//! grows larger than any document may be is left out: its bytes are dropped as they come.

use bytes::{Buf, Bytes, BytesMut};

use super::answer::{Answer, cut};
use super::results::not_fetched;
use super::*;
use crate::effort::budget::{Share, cost};
use crate::json::Elements;

/// A buffer that was larger than this is given back rather than kept for the next element.
const KEPT_BYTES: usize = 1 << 20;

/// An answer on its way.
pub(super) struct ElementReader {
    answer: Answer,
    /// What came and isn't cut yet.
    text: BytesMut,
    /// Came when there was no room after `text`.
    waiting: Option<Bytes>,
    elements: Elements,
    /// Elements left out since somebody asked.
    pub left_out: usize,
    ended: bool,
}

/// How reading went on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// There is more, or the end.
    On,
    /// What is there must be handed on first.
    NoRoom,
}

impl ElementReader {
    /// An answer like `{"results":[…]}`.
    pub(super) fn of_results(answer: Answer) -> Self {
        Self::new(answer, Elements::default())
    }

    /// An answer like `[…]`.
    pub(super) fn of_array(answer: Answer) -> Self {
        Self::new(answer, Elements::of_array())
    }

    fn new(answer: Answer, elements: Elements) -> Self {
        Self { answer, text: BytesMut::new(), waiting: None, elements, left_out: 0, ended: false }
    }

    pub(super) fn request(&self) -> &str {
        self.answer.request()
    }

    /// Whether all of the answer was read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.text.len() + self.waiting.as_ref().map_or(0, Bytes::len)
    }

    /// The request's name and the next whole element; `None` until more has come.
    pub(super) fn element(&mut self) -> Option<(&str, &[u8])> {
        let element = self.elements.next(&self.text)?;
        Some((self.answer.request(), &self.text[element]))
    }

    /// Drops what was cut.
    pub(super) fn drop_cut(&mut self) {
        let done = self.elements.consumable();
        self.elements.consume(done);
        if done > KEPT_BYTES {
            self.text = BytesMut::from(&self.text[done..]);
        } else {
            self.text.advance(done);
        }
    }

    /// Reads on, once all elements are cut and dropped; `ready` bytes were cut and not handed on yet.
    pub(super) async fn read_on(
        &mut self,
        ready: usize,
        max_bytes: usize,
        share: &mut Share,
    ) -> Result<Read, PeerError> {
        let chunk = match self.waiting.take() {
            Some(chunk) => Some(chunk),
            None => share.waiting(cost(ready + self.text.len()), self.answer.json_chunk()).await?,
        };
        let Some(chunk) = chunk else {
            self.ended = true;
            return match self.elements.finished() {
                true => Ok(Read::On),
                false if self.elements.is_cut() => Err(cut(self.request())),
                false => Err(not_fetched(self.request(), &self.text, &"not an array of results")),
            };
        };
        if self.text.len() + chunk.len() > share.max_document() && self.elements.skip() {
            self.left_out += 1;
            self.drop_cut();
        }
        let needed = cost(ready + self.text.len() + chunk.len());
        if !share.try_hold(needed) {
            if ready > 0 {
                self.waiting = Some(chunk);
                return Ok(Read::NoRoom);
            }
            // All that is held is one unfinished document; with room for a whole piece it needn't ask again soon.
            share.hold(needed, cost(max_bytes)).await;
        }
        self.text.extend_from_slice(&chunk);
        Ok(Read::On)
    }
}
