//! Reads all the rest of the feed in one answer, piece by piece.
//!
//! `GET {db}/_changes?feed=normal&style=all_docs&since=…` without `limit`: the peer takes a snapshot when it is asked, and
//! its answer ends at that snapshot's end. It may be longer than any memory, so rows are cut out while it arrives, and the
//! connection stands still while nobody asks for the next page. A peer, or a proxy, that doesn't put up with this cuts the
//! answer off ([`PeerError::Broken`]), and the rest is asked for again from the last page on.
//!
//! What stands around the rows (`last_seq`, `pending`) is read at the end, as the page that the answer would be without
//! them. So an answer is only whole if its JSON is.

use bytes::{Buf, BytesMut};

use super::answer::{Answer, cut, malformed, shorten, too_long};
use super::feed::{EXPECTED, Page, Row};
use super::*;
use crate::json::Elements;

/// Bytes of an answer shown in an error.
const SHOWN_BYTES: usize = 100;

/// The rest of the feed on its way.
pub struct RemoteRest {
    answer: Answer,
    /// What came and isn't given: from the last row's end on, or from the beginning.
    text: BytesMut,
    elements: Elements,
    /// What stood before the first row.
    head: Option<Vec<u8>>,
    last_seq: Seq,
    limit: usize,
    max_bytes: usize,
}

impl RemotePeer {
    /// Asks for all changes after `query.since`.
    pub async fn changes_rest(&self, query: &ChangesQuery) -> Result<RemoteRest, PeerError> {
        let query = ChangesQuery { wait: false, ..query.clone() };
        let answer = self.open(&self.changes_call(&query, None)).await?;
        Ok(RemoteRest {
            answer,
            text: BytesMut::new(),
            elements: Elements::default(),
            head: None,
            last_seq: query.since,
            limit: query.limit,
            max_bytes: query.max_bytes,
        })
    }
}

impl RemoteRest {
    /// See [`crate::peer::ChangesRest::next`].
    pub async fn next(&mut self) -> Result<ChangesPage, PeerError> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        loop {
            let mut done = 0;
            while changes.len() < self.limit
                && bytes < self.max_bytes
                && let Some(row) = self.elements.next(&self.text)
            {
                self.head.get_or_insert_with(|| self.text[..row.start].to_vec());
                (done, bytes) = (row.end, bytes + row.len());
                let row = serde_json::from_slice::<Row>(&self.text[row.clone()])
                    .map_err(|error| self.unexpected(&self.text[row], &error))?;
                changes.push(Change::from(row));
            }
            self.elements.consume(done);
            self.text.advance(done);
            let full = changes.len() >= self.limit || bytes >= self.max_bytes;
            let long = self.text.len() > self.max_bytes;
            if full || (long && !changes.is_empty()) {
                return Ok(self.page(changes, Pending::Unknown, Extent::Part));
            }
            if long {
                return Err(too_long(self.answer.request(), self.max_bytes));
            }
            match self.answer.json_chunk().await? {
                Some(chunk) => self.text.extend_from_slice(&chunk),
                None => return self.end(changes),
            }
        }
    }

    fn end(&mut self, changes: Vec<Change>) -> Result<ChangesPage, PeerError> {
        if self.elements.is_cut() {
            return Err(cut(self.answer.request()));
        }
        let envelope = [self.head.as_deref().unwrap_or_default(), &self.text].concat();
        let page: Page = serde_json::from_slice(&envelope).map_err(|error| self.unexpected(&envelope, &error))?;
        let last = self.page(changes, page.pending, Extent::Last);
        Ok(ChangesPage { last_seq: page.last_seq, ..last })
    }

    fn page(&mut self, changes: Vec<Change>, pending: Pending, extent: Extent) -> ChangesPage {
        if let Some(last) = changes.last() {
            self.last_seq = last.seq.clone();
        }
        ChangesPage { changes, limit: self.limit, last_seq: self.last_seq.clone(), pending, extent }
    }

    fn unexpected(&self, text: &[u8], error: &serde_json::Error) -> PeerError {
        malformed(self.answer.request(), EXPECTED, format!("`{}` ({error})", shorten(text, SHOWN_BYTES)))
    }
}
