//! Reads an answer of the feed while it arrives, page by page.
//!
//! `GET {db}/_changes?feed=normal&style=all_docs&since=…`, with `limit` or without. Without, the peer takes a snapshot when
//! it is asked, and its answer ends at that snapshot's end. One request for thousands of rows costs a peer less than many
//! for some hundred, and less again if it needn't tell a seq with every row: with `seq_interval` CouchDB tells one with the
//! last row of each page, and `null` with the others. (It counts backwards from the limit, so that a multiple of the
//! interval, less one, has the seqs there. Peers that don't know of it tell them all.) A page that ends between two seqs
//! counts as progress up to the one before.
//!
//! Rows are cut out while the answer arrives, and the connection stands still while nobody asks for the next page. A peer,
//! or a proxy, that doesn't put up with this cuts the answer off ([`PeerError::Broken`]), and the rest is asked for again
//! from the last page on.
//!
//! What stands around the rows (`last_seq`, `pending`) is read at the end, as the page that the answer would be without
//! them. So an answer is only whole if its JSON is.

use bytes::{Buf, BytesMut};

use super::answer::{Answer, cut, malformed, too_long};
use super::feed::{EXPECTED, Page, Row};
use super::shown::beginning;
use super::*;
use crate::json::Elements;

/// An answer of the feed on its way.
pub struct RemoteChanges {
    answer: Answer,
    /// What came and isn't given: from the last row's end on, or from the beginning.
    text: BytesMut,
    elements: Elements,
    /// What stood before the first row.
    head: Option<Vec<u8>>,
    /// What was asked for.
    since: Seq,
    /// The last one told.
    last_seq: Seq,
    /// Rows of a page.
    limit: usize,
    /// Rows of the answer.
    most: Option<usize>,
    /// Rows that came.
    rows: usize,
    max_bytes: usize,
}

impl RemotePeer {
    /// See [`crate::peer::Peer::changes_answer`].
    pub async fn changes_answer(&self, query: &ChangesQuery, most: Option<usize>) -> Result<RemoteChanges, PeerError> {
        let mut call = self.changes_call(query, Operation::Changes, most);
        let interval = query.limit;
        if interval > 1 && most.is_some_and(|most| most > interval) {
            call.path += &format!("&seq_interval={interval}");
        }
        Ok(RemoteChanges {
            answer: self.open(&call).await?,
            text: BytesMut::new(),
            elements: Elements::default(),
            head: None,
            since: query.since.clone(),
            last_seq: query.since.clone(),
            limit: query.limit,
            most,
            rows: 0,
            max_bytes: query.max_bytes,
        })
    }
}

impl RemoteChanges {
    /// See [`crate::peer::ChangesAnswer::next`].
    pub async fn next(&mut self) -> Result<ChangesPage, PeerError> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        loop {
            let (mut done, mut full) = (0, false);
            while !full && let Some(row) = self.elements.next(&self.text) {
                self.head.get_or_insert_with(|| self.text[..row.start].to_vec());
                (done, bytes) = (row.end, bytes + row.len());
                let row = serde_json::from_slice::<Row>(&self.text[row.clone()])
                    .map_err(|error| self.unexpected(&self.text[row], &error))?;
                changes.push(row.into_change(&mut self.last_seq));
                self.rows += 1;
                // What stands after the last row belongs to its page.
                full = (changes.len() >= self.limit || bytes >= self.max_bytes) && self.most != Some(self.rows);
            }
            self.elements.consume(done);
            self.text.advance(done);
            let long = self.text.len() > self.max_bytes;
            if full && self.most.is_some_and(|most| self.rows >= most + self.limit) && self.last_seq != self.since {
                // It doesn't keep to the limit, and may have no end: the rest is asked for anew.
                return Ok(self.page(changes, Pending::Unknown, Extent::Limited));
            }
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
        if !page.results.is_empty() {
            // The rows were looked for in another array than theirs.
            return Err(malformed(self.answer.request(), EXPECTED, "rows after an array of something else".into()));
        }
        self.last_seq = page.last_seq;
        Ok(self.page(changes, page.pending, if self.most.is_some() { Extent::Limited } else { Extent::Last }))
    }

    fn page(&self, changes: Vec<Change>, pending: Pending, extent: Extent) -> ChangesPage {
        let limit = self.most.unwrap_or(self.limit);
        ChangesPage { changes, limit, last_seq: self.last_seq.clone(), pending, extent }
    }

    fn unexpected(&self, text: &[u8], error: &serde_json::Error) -> PeerError {
        malformed(self.answer.request(), EXPECTED, format!("`{}` ({error})", beginning(text)))
    }
}
