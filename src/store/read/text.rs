//! Text that is in the store and too long to be held, and `_local` documents, which nothing else reads.

use std::ops::Range;

use bytes::Bytes;

use super::Snapshot;
use crate::store::StoreError;
use crate::store::keys::{Body, LOCAL, LocalRecord, local_rev};

/// Text that is in the store: some of a body, or of a `_local` document. It goes when its revision does.
#[derive(Debug, Clone)]
pub struct StoredText {
    pub(super) of: TextSource,
    /// Its first byte within the stored JSON.
    pub(super) start: usize,
    /// Its bytes.
    pub length: usize,
}

#[derive(Debug, Clone)]
pub(super) enum TextSource {
    /// The body that is stored under this number.
    Body(u64),
    /// The `_local` document of this id, as long as it was written so often.
    Local(String, u64),
}

/// A `_local` document.
pub struct LocalDoc<'a> {
    /// Its id without `_local/`.
    pub id: &'a str,
    number: u64,
    /// Its members without `_id` and `_rev`, a JSON object.
    pub json: &'a [u8],
}

impl LocalDoc<'_> {
    /// Its revision.
    pub fn rev(&self) -> String {
        local_rev(self.number)
    }

    /// Some of its JSON, to be read later.
    pub fn text(&self, range: Range<usize>) -> StoredText {
        let of = TextSource::Local(self.id.to_owned(), self.number);
        StoredText { of, start: range.start, length: range.len() }
    }
}

impl Snapshot {
    /// Up to so many bytes of a text, from `offset` on.
    pub fn text_piece(&self, text: &StoredText, offset: usize, bytes: usize) -> Result<Bytes, StoreError> {
        let end = text.length.min(offset + bytes);
        let cut = |json: &[u8]| json.get(text.start + offset..text.start + end).map(Bytes::copy_from_slice);
        let piece = match &text.of {
            TextSource::Body(body) => match self.bodies.get(*body)? {
                Some(stored) => cut(Body::decode(stored.value())?.json),
                None => None,
            },
            TextSource::Local(id, number) => match self.transaction.open_table(LOCAL)?.get(id.as_str())? {
                Some(stored) => {
                    let record = LocalRecord::decode(stored.value())?;
                    if record.number == *number { cut(record.json) } else { None }
                }
                None => None,
            },
        };
        piece.ok_or(StoreError::TextGone)
    }

    /// Feeds `_local` documents in the order of their ids' bytes, from `start` (inclusive) on, to `each` until it answers
    /// `false`.
    pub fn local_docs(
        &self,
        start: &str,
        mut each: impl FnMut(LocalDoc<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.transaction.open_table(LOCAL)?.range(start..)? {
            let (id, stored) = row?;
            let LocalRecord { number, json } = LocalRecord::decode(stored.value())?;
            if !each(LocalDoc { id: id.value(), number, json })? {
                break;
            }
        }
        Ok(())
    }
}
