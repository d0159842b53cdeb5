//! Documents on their way from a source to a target.

use std::ops::Range;

use bytes::Bytes;

use super::{DocId, Rev};

/// Where a document stands in a [`DocBatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocSpan {
    /// Its id.
    pub id: DocId,
    /// Its revision.
    pub rev: Rev,
    /// Its JSON text within [`DocBatch::json`].
    pub span: Range<usize>,
}

/// Documents as their source wrote them, laid out as the `_bulk_docs` request that carries them on.
#[derive(Debug, Clone)]
pub struct DocBatch {
    json: Vec<u8>,
    docs: Vec<DocSpan>,
}

const REQUEST_HEAD: &[u8] = br#"{"new_edits":false,"docs":["#;
const REQUEST_TAIL: &[u8] = b"]}";

impl Default for DocBatch {
    fn default() -> Self {
        Self { json: REQUEST_HEAD.to_vec(), docs: Vec::new() }
    }
}

impl DocBatch {
    /// Adds a document by letting `write` append its JSON text.
    pub fn push_with(&mut self, id: DocId, rev: Rev, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.docs.is_empty() {
            self.json.push(b',');
        }
        let start = self.json.len();
        write(&mut self.json);
        self.docs.push(DocSpan { id, rev, span: start..self.json.len() });
    }

    /// Adds a document's JSON text.
    pub fn push(&mut self, id: DocId, rev: Rev, json: &[u8]) {
        self.push_with(id, rev, |out| out.extend_from_slice(json));
    }

    /// The documents, in the order in which they were added.
    pub fn docs(&self) -> &[DocSpan] {
        &self.docs
    }

    /// The text of one of its documents.
    pub fn text(&self, doc: &DocSpan) -> &[u8] {
        &self.json[doc.span.clone()]
    }

    /// Whether it holds no document.
    pub fn is_empty(&self) -> bool {
        self.docs.is_empty()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.json.len()
    }

    /// The whole as a `_bulk_docs` request's body, and where its documents stand in it.
    pub fn into_request(mut self) -> (Bytes, Vec<DocSpan>) {
        self.json.extend_from_slice(REQUEST_TAIL);
        (self.json.into(), self.docs)
    }

    /// Cuts the batch in two halves, for a target that finds it too large.
    ///
    /// The first half keeps the odd document. A batch of one stays whole and leaves an empty second half.
    pub fn halve(self) -> (Self, Self) {
        let middle = self.docs.len().div_ceil(2);
        let mut halves = (Self::default(), Self::default());
        for (index, doc) in self.docs.iter().enumerate() {
            let half = if index < middle { &mut halves.0 } else { &mut halves.1 };
            half.push(doc.id.clone(), doc.rev.clone(), self.text(doc));
        }
        halves
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(count: usize) -> DocBatch {
        let mut batch = DocBatch::default();
        for number in 0..count {
            let rev = Rev { pos: 1, hash: "a".into() };
            batch.push(DocId::from(number.to_string()), rev, format!(r#"{{"_id":"{number}","n":1.0}}"#).as_bytes());
        }
        batch
    }

    proptest! {
        #[test]
        fn a_request_carries_each_document_where_it_says(count in 0..20_usize) {
            let (request, docs) = batch(count).into_request();
            let read: serde_json::Value = serde_json::from_slice(&request).unwrap();
            prop_assert_eq!(&read["new_edits"], false);
            prop_assert_eq!(read["docs"].as_array().unwrap().len(), count);
            for (number, doc) in docs.iter().enumerate() {
                let text = format!(r#"{{"_id":"{number}","n":1.0}}"#);
                prop_assert_eq!(&request[doc.span.clone()], text.as_bytes());
            }
        }

        #[test]
        fn halves_hold_every_document_in_order(count in 0..20_usize) {
            let whole = batch(count);
            let (first, second) = whole.clone().halve();
            prop_assert!(first.docs().len() - second.docs().len() <= 1);
            let texts = |half: &DocBatch| half.docs().iter().map(|doc| half.text(doc).to_vec()).collect::<Vec<_>>();
            prop_assert_eq!([texts(&first), texts(&second)].concat(), texts(&whole));
        }
    }
}
