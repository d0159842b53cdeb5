//! A database at one moment: documents, the feed, and documents as JSON.
//!
//! A [`Snapshot`] sees one committed state however long it is read, and neither waits for the writer nor holds it up; a
//! snapshot that is held long makes the file grow, so feeds and large answers take a fresh one every so often.
//!
//! Documents are put together from the stored bytes: `_id` and `_rev` in front, the document's own members as they
//! came, then what was asked for, in the order of CouchDB's `couch_doc:to_json_obj/2`.

use std::io::{Read as _, Write as _};
use std::ops::Range;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::StoreError;
use super::attachments::{Attachment, Encoding};
use super::holds::{Held, Reading};
use super::keys::{
    self, ATT_REFS, ATTS, BODIES, BlobRef, Body, DOCS, INFO, Info, LOCAL, LocalRecord, SEQ_COUNTS, SEQS, SeqEntry,
    local_rev, put_varint, take_varint,
};
use super::ranks::{Rank, Ranks};
use super::revtree::{Leaf, RevTree};
use crate::document::Rev;
use crate::json::push_string;

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
        put_varint(out, seq);
        tree.encode(out);
    }

    /// Reads a record.
    pub(super) fn decode(mut record: &[u8]) -> Result<Self, StoreError> {
        let seq = take_varint(&mut record).ok_or(StoreError::Damaged("a document's record"))?;
        Ok(Self { seq, tree: RevTree::decode(record)? })
    }
}

/// How attachments stand in a rendered document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachmentsAs {
    /// `"stub":true`.
    #[default]
    Stubs,
    /// `"data":"<base64>"`; of large ones only a [`Gap`] between the quotes.
    Inline,
    /// `"follows":true`, with their encoding, as they are stored.
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
    /// `encoding` and `encoded_length` of attachments that are stored gzipped; inline data is then gzipped too.
    pub att_encoding_info: bool,
    /// The document's own members are left out: a [`Gap`] stands for them.
    pub members_apart: bool,
}

/// Bytes of a rendered document beyond which attachments are left out of it.
const INLINE_BYTES: usize = 128 << 10;

/// A place in a rendered document where something is left out that is too large to be held in memory.
#[derive(Debug, Clone)]
pub struct Gap {
    /// Bytes of the text before it.
    pub at: usize,
    /// What is missing there.
    pub missing: Missing,
}

/// What is left out of a rendered document.
#[derive(Debug, Clone)]
pub enum Missing {
    /// An attachment's data as base64.
    Attachment {
        /// Which.
        attachment: Held,
        /// Whether its bytes are wanted decoded, as opposed to as they are stored.
        decoded: bool,
    },
    /// A document's own members.
    Text(StoredText),
}

/// Text that is in the store: some of a body, or of a `_local` document. It goes when its revision does.
#[derive(Debug, Clone)]
pub struct StoredText {
    pub(super) of: TextOf,
    /// Its first byte within the stored JSON.
    pub(super) start: usize,
    /// Its bytes.
    pub length: usize,
}

#[derive(Debug, Clone)]
pub(super) enum TextOf {
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
        let of = TextOf::Local(self.id.to_owned(), self.number);
        StoredText { of, start: range.start, length: range.len() }
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
    reading: Reading,
    ranks: Ranks,
}

impl Snapshot {
    /// Takes a snapshot of now, after `reading` began.
    pub(super) fn new(engine: &redb::Database, reading: Reading, ranks: Ranks) -> Result<Self, StoreError> {
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
        })
    }

    pub(super) fn info(&self) -> Info {
        self.info
    }

    /// The newest update's seq.
    pub fn update_seq(&self) -> u64 {
        self.info.update_seq
    }

    /// Documents that aren't deleted.
    pub fn doc_count(&self) -> u64 {
        self.info.doc_count
    }

    /// A document's revisions; `None` where there never was one. Its winner may be a deletion.
    pub fn document(&self, id: &str) -> Result<Option<DocRecord>, StoreError> {
        let Some(stored) = self.docs.get(id)? else { return Ok(None) };
        DocRecord::decode(stored.value()).map(Some)
    }

    /// Feeds rows behind `since`, oldest first, to `each` until it answers `false`.
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

    /// How many rows the feed has behind `seq`.
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

    /// Counts on how many documents that aren't deleted stand before `id`; `true` if that was all.
    pub fn count_before(&self, id: &str, rank: &mut Rank) -> Result<bool, StoreError> {
        self.ranks.count(self, id, rank)
    }

    /// A leaf's attachments, in order.
    pub fn attachments(&self, leaf: &Leaf) -> Result<Vec<Attachment>, StoreError> {
        match leaf.attached {
            true => Body::decode(self.body(leaf)?.value())?.attachments(),
            false => Ok(Vec::new()),
        }
    }

    /// Those of a leaf's attachments that have come since the newest of its ancestors in `since`: they follow, the
    /// others stay stubs.
    pub fn attachments_since(
        &self,
        record: &DocRecord,
        leaf: &Leaf,
        since: &[Rev],
    ) -> Result<Vec<Attachment>, StoreError> {
        let had = had_until(record, leaf, since);
        let mut attachments = self.attachments(leaf)?;
        attachments.retain(|attachment| had.is_none_or(|had| attachment.revpos > had));
        Ok(attachments)
    }

    /// Makes an attachment that this snapshot shows readable to its end, whatever becomes of its document.
    pub fn hold(&self, attachment: Attachment) -> Result<Held, StoreError> {
        let blob = self.blob(&attachment)?;
        Ok(Held::new(attachment, self.reading.hold(blob)))
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

    /// Appends a leaf's document as JSON, and tells what it leaves out where attachments are to stand inline: enough that
    /// neither one of them nor many take more memory than a body.
    pub fn render(
        &self,
        id: &str,
        record: &DocRecord,
        leaf: &Leaf,
        options: &DocOptions,
        out: &mut Vec<u8>,
    ) -> Result<Vec<Gap>, StoreError> {
        self.render_stored(id, record, leaf, &self.stored(leaf)?, options, out)
    }

    /// The same, of a body that was looked up before.
    pub fn render_stored(
        &self,
        id: &str,
        record: &DocRecord,
        leaf: &Leaf,
        stored: &Stored<'_>,
        options: &DocOptions,
        out: &mut Vec<u8>,
    ) -> Result<Vec<Gap>, StoreError> {
        let mut gaps = Vec::new();
        let body = Body::decode(stored.0.value())?;
        out.reserve(if options.members_apart { 0 } else { body.json.len() } + id.len() + 160);
        out.extend_from_slice(b"{\"_id\":");
        push_string(out, id);
        out.extend_from_slice(b",\"_rev\":");
        push_rev(out, &leaf.rev);
        let fields = &body.json[1..body.json.len() - 1];
        if !fields.is_empty() {
            out.push(b',');
            match options.members_apart {
                false => out.extend_from_slice(fields),
                true => {
                    let text = StoredText { of: TextOf::Body(leaf.body), start: 1, length: fields.len() };
                    gaps.push(Gap { at: out.len(), missing: Missing::Text(text) });
                }
            }
        }
        if leaf.deleted {
            out.extend_from_slice(b",\"_deleted\":true");
        }
        self.render_revisions(record, leaf, options, out);
        if body.has_attachments() {
            gaps.extend(self.render_attachments(record, leaf, body.attachments()?, options, out)?);
        }
        out.push(b'}');
        Ok(gaps)
    }

    fn render_revisions(&self, record: &DocRecord, leaf: &Leaf, options: &DocOptions, out: &mut Vec<u8>) {
        let tree = &record.tree;
        if options.revs
            && let Some(path) = tree.path(&leaf.rev)
        {
            out.extend_from_slice(b",\"_revisions\":{\"start\":");
            out.extend_from_slice(path.start.to_string().as_bytes());
            out.extend_from_slice(b",\"ids\":");
            push_list(out, &path.ids, |out, hash| push_string(out, &hash.to_string()));
            out.push(b'}');
        }
        if options.revs_info
            && let Some(path) = tree.path(&leaf.rev)
        {
            out.extend_from_slice(b",\"_revs_info\":");
            let ages: Vec<_> = path.ids.iter().zip(0..).collect();
            push_list(out, &ages, |out, (hash, age)| {
                let status = match (age, leaf.deleted) {
                    (0, false) => "available",
                    (0, true) => "deleted",
                    _ => "missing",
                };
                out.extend_from_slice(b"{\"rev\":");
                push_rev(out, &Rev { pos: path.start - age, hash: (*hash).clone() });
                out.extend_from_slice(format!(",\"status\":\"{status}\"}}").as_bytes());
            });
        }
        for (wanted, deleted, name) in
            [(options.conflicts, false, "_conflicts"), (options.deleted_conflicts, true, "_deleted_conflicts")]
        {
            if !wanted {
                continue;
            }
            let others = tree.leaves().into_iter().skip(1).filter(|other| other.deleted == deleted);
            let others: Vec<Rev> = others.map(|other| other.rev).collect();
            if !others.is_empty() {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                push_list(out, &others, push_rev);
            }
        }
        if options.local_seq {
            out.extend_from_slice(format!(",\"_local_seq\":{}", record.seq).as_bytes());
        }
    }

    fn render_attachments(
        &self,
        record: &DocRecord,
        leaf: &Leaf,
        attachments: Vec<Attachment>,
        options: &DocOptions,
        out: &mut Vec<u8>,
    ) -> Result<Vec<Gap>, StoreError> {
        let mut gaps = Vec::new();
        let had = options.atts_since.as_deref().and_then(|since| had_until(record, leaf, since));
        out.extend_from_slice(b",\"_attachments\":{");
        for (index, attachment) in attachments.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let known = had.is_some_and(|had| attachment.revpos <= had);
            let shown = if known { AttachmentsAs::Stubs } else { options.attachments };
            push_string(out, &attachment.name);
            out.extend_from_slice(b":{\"content_type\":");
            push_string(out, &attachment.content_type);
            write!(out, ",\"revpos\":{},\"digest\":\"{}\"", attachment.revpos, attachment.digest)?;
            match shown {
                AttachmentsAs::Stubs => write!(out, ",\"length\":{},\"stub\":true", attachment.told_length())?,
                AttachmentsAs::Follows => write!(out, ",\"length\":{},\"follows\":true", attachment.told_length())?,
                AttachmentsAs::Inline => {
                    let decoded = !options.att_encoding_info;
                    let bytes = if decoded { attachment.length } else { attachment.stored_length };
                    out.extend_from_slice(b",\"data\":\"");
                    if out.len() as u64 + bytes.max(attachment.stored_length) > INLINE_BYTES as u64 {
                        let missing = Missing::Attachment { attachment: self.hold(attachment.clone())?, decoded };
                        gaps.push(Gap { at: out.len(), missing });
                    } else {
                        write!(out, "{}", Base64Display::new(&self.attachment_data(attachment, decoded)?, &BASE64))?;
                    }
                    out.push(b'"');
                }
            }
            let encoding_shown = options.att_encoding_info || shown == AttachmentsAs::Follows;
            if encoding_shown && attachment.encoding == Encoding::Gzip {
                write!(out, ",\"encoding\":\"gzip\",\"encoded_length\":{}", attachment.stored_length)?;
            }
            out.push(b'}');
        }
        out.push(b'}');
        Ok(gaps)
    }

    /// Up to so many bytes of a text, from `offset` on.
    pub fn text_piece(&self, text: &StoredText, offset: usize, bytes: usize) -> Result<Bytes, StoreError> {
        let end = text.length.min(offset + bytes);
        let cut = |json: &[u8]| json.get(text.start + offset..text.start + end).map(Bytes::copy_from_slice);
        let piece = match &text.of {
            TextOf::Body(body) => match self.bodies.get(*body)? {
                Some(stored) => cut(Body::decode(stored.value())?.json),
                None => None,
            },
            TextOf::Local(id, number) => match self.transaction.open_table(LOCAL)?.get(id.as_str())? {
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

    /// Chunks of all attachments.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> Result<u64, StoreError> {
        use redb::ReadableTableMetadata as _;
        Ok(self.transaction.open_table(ATTS)?.len()?)
    }

    /// All of an attachment's bytes, for those that travel within a document.
    fn attachment_data(&self, attachment: &Attachment, decoded: bool) -> Result<Vec<u8>, StoreError> {
        let blob = self.blob(attachment)?;
        let mut data = Vec::with_capacity(attachment.stored_length as usize);
        for row in self.transaction.open_table(ATTS)?.range((blob, 0)..=(blob, u32::MAX))? {
            data.extend_from_slice(row?.1.value());
        }
        if decoded && attachment.encoding == Encoding::Gzip {
            let mut plain = Vec::with_capacity(attachment.length as usize);
            flate2::read::MultiGzDecoder::new(data.as_slice()).read_to_end(&mut plain)?;
            return Ok(plain);
        }
        Ok(data)
    }
}

/// The generation of the newest of a leaf's ancestors in `since`, which has all attachments up to that `revpos`. Without
/// one nothing is known, not even an attachment of `revpos` 0, which CouchDB gives to those that were written without any.
fn had_until(record: &DocRecord, leaf: &Leaf, since: &[Rev]) -> Option<u64> {
    if since.is_empty() {
        return None;
    }
    let path = record.tree.path(&leaf.rev)?;
    let on_path = |rev: &&Rev| {
        let age = path.start.checked_sub(rev.pos).map(|age| age as usize);
        age.and_then(|age| path.ids.get(age)).is_some_and(|hash| *hash == rev.hash)
    };
    since.iter().filter(on_path).map(|rev| rev.pos).max()
}

fn push_rev(out: &mut Vec<u8>, rev: &Rev) {
    push_string(out, &rev.to_string());
}

fn push_list<T>(out: &mut Vec<u8>, items: &[T], mut push: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}
