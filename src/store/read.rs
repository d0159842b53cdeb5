//! Reading documents.

use crate::document::Rev;

use super::StoreError;
use super::attachments::Attachment;
use super::revtree::{Leaf, RevTree};

/// A document as it is stored: all of its revisions, without bodies.
#[derive(Debug, Clone)]
pub struct DocRecord {
    /// The update that touched it last.
    pub seq: u64,
    /// Its revisions.
    pub tree: RevTree,
}

/// How attachments stand in a rendered document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachmentsAs {
    /// `"stub":true`.
    #[default]
    Stubs,
    /// `"data":"<base64>"`.
    Inline,
    /// `"follows":true`.
    Follows,
}

/// What a rendered document shows besides its own members.
#[derive(Debug, Clone, Default)]
pub struct DocOptions {
    /// `_revisions`.
    pub revs: bool,
    /// `_revs_info`.
    pub revs_info: bool,
    /// `_conflicts`.
    pub conflicts: bool,
    /// `_deleted_conflicts`.
    pub deleted_conflicts: bool,
    /// `_local_seq`.
    pub local_seq: bool,
    /// How attachments stand.
    pub attachments: AttachmentsAs,
    /// With attachments inline or following: those that these revisions have stay stubs.
    pub atts_since: Option<Vec<Rev>>,
    /// `encoding` and `encoded_length` of attachments that are stored gzipped; follows and inline data are then gzipped too.
    pub att_encoding_info: bool,
}

/// A row of the feed.
#[derive(Debug, Clone)]
pub struct ChangeRow {
    /// Its place.
    pub seq: u64,
    /// The document.
    pub id: String,
    /// Whether the winner is a deletion.
    pub deleted: bool,
    /// All leaves, the winner first.
    pub leaves: Vec<Rev>,
}

/// The database at one moment. Blocking: use it within [`super::Database::read`].
pub struct Snapshot {}

impl Snapshot {
    /// A document's revisions; `None` where there never was one. Its winner may be a deletion.
    pub fn document(&self, id: &str) -> Result<Option<DocRecord>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Appends a leaf's document as JSON.
    pub fn render(
        &self,
        id: &str,
        record: &DocRecord,
        leaf: &Leaf,
        options: &DocOptions,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let _ = (id, record, leaf, options, out);
        todo!()
    }

    /// A leaf's attachments, in order. `follows` says which of them [`AttachmentsAs::Follows`] sends along.
    pub fn attachments(&self, record: &DocRecord, leaf: &Leaf) -> Result<Vec<Attachment>, StoreError> {
        let _ = (record, leaf);
        todo!()
    }

    /// Those of a leaf's attachments that none of the revisions `since` has: they follow, the others stay stubs.
    pub fn attachments_since(
        &self,
        record: &DocRecord,
        leaf: &Leaf,
        since: &[Rev],
    ) -> Result<Vec<Attachment>, StoreError> {
        let _ = (record, leaf, since);
        todo!()
    }

    /// Feeds rows behind `since`, oldest first, to `each` until it answers `false`.
    pub fn changes(
        &self,
        since: u64,
        each: impl FnMut(ChangeRow) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let _ = (since, each);
        todo!()
    }

    /// The same, newest first, from the newest down to the row behind `since`.
    pub fn changes_descending(
        &self,
        since: u64,
        each: impl FnMut(ChangeRow) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let _ = (since, each);
        todo!()
    }

    /// How many rows the feed has behind `seq`.
    pub fn pending(&self, seq: u64) -> Result<u64, StoreError> {
        let _ = seq;
        todo!()
    }

    /// The newest update's seq.
    pub fn update_seq(&self) -> u64 {
        todo!()
    }

    /// Documents that aren't deleted.
    pub fn doc_count(&self) -> u64 {
        todo!()
    }

    /// Feeds documents, deleted ones included, in the order of their ids' bytes, from `start` (inclusive) on, to `each`
    /// until it answers `false`.
    pub fn documents(
        &self,
        start: Option<&str>,
        each: impl FnMut(&str, DocRecord) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let _ = (start, each);
        todo!()
    }

    /// The same, descending, from `start` (inclusive; `None`: from the last).
    pub fn documents_descending(
        &self,
        start: Option<&str>,
        each: impl FnMut(&str, DocRecord) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let _ = (start, each);
        todo!()
    }
}
