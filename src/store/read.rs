//! A database at one moment: documents, the feed, where attachments are.
//!
//! A [`Snapshot`] sees one committed state however long it is read, and neither waits for the writer nor holds it up; a
//! snapshot that is held long makes the file grow, so feeds and large answers take a fresh one every so often.
//!
//! Documents as JSON: [`render`]; text that is too long to be held: [`text`].

pub mod render;
pub mod text;

use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::StoreError;
use super::attachments::Attachment;
use super::holds::{OpenAttachment, SnapshotGuard};
use super::keys::{
    self, ATT_REFS, BODIES, BlobRef, Body, DOCS, INFO, Info, PURGES, Purges, SEQ_COUNTS, SEQS, SeqEntry,
};
use super::ranks::{self, Rank, Ranks};
use super::revtree::{Leaf, RevTree};
use super::varint;
use crate::document::Rev;

/// A document as it is stored: all of its revisions, without bodies.
#[derive(Debug, Clone)]
pub struct DocRecord {
    /// The update that touched it last.
    pub seq: u64,
    /// Its revisions.
    pub tree: RevTree,
}

impl DocRecord {
    /// Appends a record.
    pub(super) fn encode(seq: u64, tree: &RevTree, out: &mut Vec<u8>) {
        varint::put(out, seq);
        tree.encode(out);
    }

    /// Reads a record.
    pub(super) fn decode(mut record: &[u8]) -> Result<Self, StoreError> {
        let seq = varint::take(&mut record).ok_or(StoreError::Damaged("a document's record"))?;
        Ok(Self { seq, tree: RevTree::decode(record)? })
    }
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

impl ChangeRow {
    fn new(seq: u64, entry: SeqEntry<'_>) -> Self {
        Self { seq, id: entry.id.to_owned(), deleted: entry.deleted, leaves: entry.leaves }
    }
}

/// A leaf's body as it is stored.
pub struct Stored<'a>(redb::AccessGuard<'a, &'static [u8]>);

impl Stored<'_> {
    /// Bytes, about those of the document that it makes.
    pub fn size(&self) -> usize {
        self.0.value().len()
    }
}

/// The database at one moment. Blocking: use it within [`super::Database::read`].
pub struct Snapshot {
    transaction: ReadTransaction,
    docs: ReadOnlyTable<&'static str, &'static [u8]>,
    seqs: ReadOnlyTable<u64, &'static [u8]>,
    bodies: ReadOnlyTable<u64, &'static [u8]>,
    info: Info,
    /// So that what it shows can be held.
    reading: SnapshotGuard,
    ranks: Ranks,
    /// A file that was compacted meanwhile stays open as long as it is read.
    _engine: Arc<redb::Database>,
}

impl Snapshot {
    /// Takes a snapshot of now, after `reading` began.
    pub(super) fn new(engine: Arc<redb::Database>, reading: SnapshotGuard, ranks: Ranks) -> Result<Self, StoreError> {
        let transaction = engine.begin_read()?;
        let stored = transaction.open_table(INFO)?.get(())?.map(|stored| Info::decode(stored.value()));
        Ok(Self {
            docs: transaction.open_table(DOCS)?,
            seqs: transaction.open_table(SEQS)?,
            bodies: transaction.open_table(BODIES)?,
            info: stored.unwrap_or_default(),
            reading,
            ranks,
            transaction,
            _engine: engine,
        })
    }

    pub(super) fn info(&self) -> Info {
        self.info
    }

    /// What was purged.
    pub(super) fn purges(&self) -> Result<Purges, StoreError> {
        let table = match self.transaction.open_table(PURGES) {
            Ok(table) => table,
            // Nothing was written to the file since it was made by an older couchrep.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Purges::default()),
            Err(error) => return Err(error.into()),
        };
        Ok(table.get(())?.map(|stored| Purges::decode(stored.value())).unwrap_or_default())
    }

    /// How many documents purges have named.
    pub fn purge_seq(&self) -> Result<u64, StoreError> {
        Ok(self.purges()?.purge_seq)
    }

    /// The newest update's seq.
    pub fn update_seq(&self) -> u64 {
        self.info.update_seq
    }

    /// Documents that aren't deleted.
    pub fn doc_count(&self) -> u64 {
        self.info.doc_count
    }

    /// A document's revisions; `None` if there never was one. Its winner may be a deletion.
    pub fn document(&self, id: &str) -> Result<Option<DocRecord>, StoreError> {
        let Some(stored) = self.docs.get(id)? else { return Ok(None) };
        DocRecord::decode(stored.value()).map(Some)
    }

    /// After which seq a feed goes on that is asked for after `since`. A place beyond the end was one of a database that was deleted and made
    /// anew, or that lost its last writes in a crash: as in CouchDB, whoever comes with it gets everything.
    pub fn going_on_after(&self, since: u64) -> u64 {
        if since > self.update_seq() { 0 } else { since }
    }

    /// Feeds rows after `since`, oldest first, to `each` until it answers `false`.
    pub fn changes(
        &self,
        since: u64,
        mut each: impl FnMut(ChangeRow) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.seqs.range(since.saturating_add(1)..)? {
            let (seq, entry) = row?;
            if !each(ChangeRow::new(seq.value(), SeqEntry::decode(entry.value())?))? {
                break;
            }
        }
        Ok(())
    }

    /// The same, newest first, from the newest row below `below` on.
    pub fn changes_descending(
        &self,
        below: u64,
        mut each: impl FnMut(ChangeRow) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.seqs.range(..below)?.rev() {
            let (seq, entry) = row?;
            if !each(ChangeRow::new(seq.value(), SeqEntry::decode(entry.value())?))? {
                break;
            }
        }
        Ok(())
    }

    /// How many rows the feed has after `seq`.
    pub fn pending(&self, seq: u64) -> Result<u64, StoreError> {
        let bucket = keys::seq_bucket(seq);
        let mut pending = 0;
        for row in self.seqs.range(seq.saturating_add(1)..keys::bucket_start(bucket + 1))? {
            row?;
            pending += 1;
        }
        for row in self.transaction.open_table(SEQ_COUNTS)?.range(bucket + 1..)? {
            pending += row?.1.value();
        }
        Ok(pending)
    }

    /// Feeds documents, deleted ones included, in the order of their ids' bytes, from `start` (inclusive) on, to `each`
    /// until it answers `false`.
    pub fn documents(
        &self,
        start: Option<&str>,
        mut each: impl FnMut(&str, DocRecord) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.docs.range(start.unwrap_or_default()..)? {
            let (id, record) = row?;
            if !each(id.value(), DocRecord::decode(record.value())?)? {
                break;
            }
        }
        Ok(())
    }

    /// The same, descending, from `start` (inclusive; `None`: from the last).
    pub fn documents_descending(
        &self,
        start: Option<&str>,
        mut each: impl FnMut(&str, DocRecord) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let rows = match start {
            Some(start) => self.docs.range(..=start)?,
            None => self.docs.range::<&str>(..)?,
        };
        for row in rows.rev() {
            let (id, record) = row?;
            if !each(id.value(), DocRecord::decode(record.value())?)? {
                break;
            }
        }
        Ok(())
    }

    /// Counts a thousand of the documents that aren't deleted and stand before `id`; `true` if these were the last.
    pub fn count_before(&self, id: &str, rank: &mut Rank) -> Result<bool, StoreError> {
        self.ranks.start(self.update_seq(), id, rank);
        let (place, before) = (rank.place.clone(), &mut rank.before);
        let (mut walked, mut next) = (0, None);
        self.documents(Some(&place), |at, record| {
            if at >= id {
                return Ok(false);
            }
            if walked == ranks::STEP {
                next = Some(Box::from(at));
                return Ok(false);
            }
            walked += 1;
            *before += u64::from(record.tree.winner().is_some_and(|winner| !winner.deleted));
            Ok(true)
        })?;
        let Some(next) = next else { return Ok(true) };
        self.ranks.reach(self.update_seq(), next, rank);
        Ok(false)
    }

    /// A leaf's attachments, in order.
    pub fn attachments(&self, leaf: &Leaf) -> Result<Vec<Attachment>, StoreError> {
        match leaf.attached {
            true => Body::decode(self.body(leaf)?.value())?.attachments(),
            false => Ok(Vec::new()),
        }
    }

    /// The attachments of a stored body.
    pub(super) fn stored_attachments(&self, body: u64) -> Result<Vec<Attachment>, StoreError> {
        match self.bodies.get(body)? {
            Some(stored) => Body::decode(stored.value())?.attachments(),
            None => Ok(Vec::new()),
        }
    }

    /// Makes an attachment that this snapshot shows readable to its end, whatever becomes of its document.
    pub fn hold(&self, attachment: Attachment) -> Result<OpenAttachment, StoreError> {
        let blob = self.blob(&attachment)?;
        Ok(OpenAttachment::new(attachment, self.reading.hold(blob)))
    }

    /// Where an attachment's bytes are.
    fn blob(&self, attachment: &Attachment) -> Result<u64, StoreError> {
        let stored = self.transaction.open_table(ATT_REFS)?.get(attachment.digest.0)?;
        Ok(BlobRef::decode(stored.ok_or(StoreError::Damaged("an attachment has no bytes"))?.value()).blob)
    }

    fn body(&self, leaf: &Leaf) -> Result<redb::AccessGuard<'_, &'static [u8]>, StoreError> {
        self.bodies.get(leaf.body)?.ok_or(StoreError::Damaged("a leaf has no body"))
    }

    /// A leaf's body as it is stored.
    pub fn stored(&self, leaf: &Leaf) -> Result<Stored<'_>, StoreError> {
        Ok(Stored(self.body(leaf)?))
    }

    /// Chunks of all attachments.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> Result<u64, StoreError> {
        use redb::ReadableTableMetadata as _;
        Ok(self.transaction.open_table(keys::ATTS)?.len()?)
    }
}
