//! How a database's file is laid out: every table, every key, every record that isn't a document.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `docs` | document id | update seq, then the revision tree ([`super::revtree`]) |
//! | `seqs` | update seq | [`SeqEntry`]: id, leaves, whether the winner is a deletion |
//! | `seq_counts` | update seq / 1024 | how many rows of `seqs` stand there, so that `pending` needn't count them all |
//! | `bodies` | update seq of the edit that brought the leaf | [`Body`]: attachments, then the JSON bytes as they came |
//! | `local` | id without `_local/` | revision number, then the JSON bytes |
//! | `atts` | blob, chunk number | at most [`super::attachments::CHUNK_BYTES`] bytes |
//! | `att_refs` | MD5 digest of the stored bytes | [`BlobRef`]: blob, references |
//! | `uploads` | blob | nothing: a blob that no document refers to, yet or any more; dropped at the next opening |
//! | `info` | nothing | [`Info`] |
//! | `settings` | `security`, `revs_limit` | what was set, as text ([`super::settings`]); absent from files that never had one |
//! | `purges` | nothing | [`Purges`]; absent in files that are older than purges |
//!
//! Compaction copies them all, and must know each of them ([`super::compaction`]).
//!
//! One edit is one update seq and brings one leaf, so a body's key needs nothing but that seq. Integers are varints
//! within records; keys of integers are in the engine's own order, which is numeric.

use redb::TableDefinition;

use super::StoreError;
use super::attachments::Attachment;
use super::revtree::RevTree;
use super::varint;
use crate::document::{Digest, Encoding, Rev, RevHash};

/// Documents by id.
pub const DOCS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("docs");
/// The feed.
pub const SEQS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("seqs");
/// Rows of the feed, by the thousand.
pub const SEQ_COUNTS: TableDefinition<'_, u64, u64> = TableDefinition::new("seq_counts");
/// Bodies of leaves.
pub const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// `_local` documents.
pub const LOCAL: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("local");
/// Attachments' bytes.
pub const ATTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("atts");
/// Who refers to them.
pub const ATT_REFS: TableDefinition<'_, [u8; 16], (u64, u64)> = TableDefinition::new("att_refs");
/// Blobs without a document.
pub const UPLOADS: TableDefinition<'_, u64, ()> = TableDefinition::new("uploads");
/// The database's own numbers.
pub const INFO: TableDefinition<'_, (), [u64; 6]> = TableDefinition::new("info");

/// What a database was told about itself.
pub const SETTINGS: TableDefinition<'_, &str, &str> = TableDefinition::new("settings");
/// Purges.
pub const PURGES: TableDefinition<'_, (), [u64; 2]> = TableDefinition::new("purges");

/// The row of `seq_counts` that counts a row of the feed.
pub fn seq_bucket(seq: u64) -> u64 {
    seq >> 10
}

/// The first seq of a row of `seq_counts`.
pub fn bucket_start(bucket: u64) -> u64 {
    bucket << 10
}

/// The database's own numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// Documents whose winner isn't a deletion.
    pub doc_count: u64,
    /// Documents whose winner is.
    pub doc_del_count: u64,
    /// The newest update.
    pub update_seq: u64,
    /// Bytes of leaves' bodies and of attachments.
    pub active_size: u64,
    /// Microseconds since 1970.
    pub instance_start_time: u64,
    /// Whether unsynced writes may follow this state.
    pub unsynced: bool,
}

impl Info {
    /// As it is stored.
    pub fn encode(&self) -> [u64; 6] {
        [
            self.doc_count,
            self.doc_del_count,
            self.update_seq,
            self.active_size,
            self.instance_start_time,
            self.unsynced.into(),
        ]
    }

    /// From what is stored.
    pub fn decode(stored: [u64; 6]) -> Self {
        let [doc_count, doc_del_count, update_seq, active_size, instance_start_time, unsynced] = stored;
        Self { doc_count, doc_del_count, update_seq, active_size, instance_start_time, unsynced: unsynced != 0 }
    }
}

/// What was purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purges {
    /// Documents that purges named.
    pub purge_seq: u64,
    /// How many purges are to be remembered.
    pub infos_limit: u64,
}

impl Default for Purges {
    /// None yet, and CouchDB's default for `_purged_infos_limit`.
    fn default() -> Self {
        Self { purge_seq: 0, infos_limit: 1000 }
    }
}

impl Purges {
    /// As it is stored.
    pub fn encode(&self) -> [u64; 2] {
        [self.purge_seq, self.infos_limit]
    }

    /// From what is stored.
    pub fn decode([purge_seq, infos_limit]: [u64; 2]) -> Self {
        Self { purge_seq, infos_limit }
    }
}

/// A row of the feed, without its seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeqEntry<'a> {
    /// The document.
    pub id: &'a str,
    /// Whether the winner is a deletion.
    pub deleted: bool,
    /// All leaves, the winner first.
    pub leaves: Vec<Rev>,
}

impl<'a> SeqEntry<'a> {
    /// Appends the record of a document's row.
    pub fn encode(id: &str, tree: &RevTree, out: &mut Vec<u8>) {
        let leaves = tree.leaves();
        out.push(leaves.first().is_some_and(|winner| winner.deleted).into());
        varint::put(out, leaves.len() as u64);
        for leaf in &leaves {
            varint::put(out, leaf.rev.pos);
            put_hash(out, &leaf.rev.hash);
        }
        out.extend_from_slice(id.as_bytes());
    }

    /// Reads a row's record.
    pub fn decode(mut record: &'a [u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged("a row of the feed");
        let deleted = *record.split_off_first().ok_or_else(damaged)? != 0;
        let count = varint::take(&mut record).ok_or_else(damaged)?;
        let mut leaves = Vec::with_capacity(count.min(16) as usize);
        for _ in 0..count {
            let pos = varint::take(&mut record).ok_or_else(damaged)?;
            leaves.push(Rev { pos, hash: take_hash(&mut record).ok_or_else(damaged)? });
        }
        Ok(Self { id: std::str::from_utf8(record).map_err(|_| damaged())?, deleted, leaves })
    }
}

/// Flags of an attachment.
const GZIPPED: u8 = 1;
const TELLS_STORED: u8 = 2;

/// A leaf's stored body.
#[derive(Debug)]
pub struct Body<'a> {
    attachments: &'a [u8],
    /// The document's own members, a JSON object, byte for byte as it came.
    pub json: &'a [u8],
}

impl<'a> Body<'a> {
    /// Appends what stands before the JSON bytes in a record.
    pub fn encode_head(attachments: &[Attachment], out: &mut Vec<u8>) {
        varint::put(out, attachments.len() as u64);
        for attachment in attachments {
            put_text(out, &attachment.name);
            put_text(out, &attachment.content_type);
            varint::put(out, attachment.revpos);
            out.extend_from_slice(&attachment.digest.0);
            varint::put(out, attachment.length);
            varint::put(out, attachment.stored_length);
            out.push(
                u8::from(attachment.encoding == Encoding::Gzip) * GZIPPED
                    + u8::from(attachment.tells_stored) * TELLS_STORED,
            );
        }
    }

    /// Reads a record.
    pub fn decode(record: &'a [u8]) -> Result<Self, StoreError> {
        let mut json = record;
        read_attachments(&mut json, |_| {})?;
        Ok(Self { attachments: &record[..record.len() - json.len()], json })
    }

    /// The leaf's attachments, in order.
    pub fn attachments(&self) -> Result<Vec<Attachment>, StoreError> {
        let mut attachments = Vec::new();
        read_attachments(&mut { self.attachments }, |attachment| attachments.push(attachment))?;
        Ok(attachments)
    }

    /// Whether the leaf has any.
    pub fn has_attachments(&self) -> bool {
        self.attachments != [0]
    }
}

fn read_attachments(record: &mut &[u8], mut each: impl FnMut(Attachment)) -> Result<(), StoreError> {
    let damaged = || StoreError::Damaged("an attachment's record");
    for _ in 0..varint::take(record).ok_or_else(damaged)? {
        each(take_attachment(record).ok_or_else(damaged)?);
    }
    Ok(())
}

fn take_attachment(record: &mut &[u8]) -> Option<Attachment> {
    let name = take_text(record)?;
    let content_type = take_text(record)?;
    let revpos = varint::take(record)?;
    let digest = Digest(record.split_off(..16)?.try_into().ok()?);
    let (length, stored_length) = (varint::take(record)?, varint::take(record)?);
    let flags = *record.split_off_first()?;
    let encoding = if flags & GZIPPED == 0 { Encoding::Identity } else { Encoding::Gzip };
    let tells_stored = flags & TELLS_STORED != 0;
    Some(Attachment { name, content_type, revpos, digest, length, stored_length, encoding, tells_stored })
}

/// A blob that documents refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRef {
    /// Where its chunks are.
    pub blob: u64,
    /// Leaves that refer to it.
    pub references: u64,
}

impl BlobRef {
    /// As it is stored.
    pub fn encode(&self) -> (u64, u64) {
        (self.blob, self.references)
    }

    /// From what is stored.
    pub fn decode((blob, references): (u64, u64)) -> Self {
        Self { blob, references }
    }
}

/// A `_local` document.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalRecord<'a> {
    /// How often it was written.
    pub number: u64,
    /// Its members without `_id` and `_rev`, a JSON object.
    pub json: &'a [u8],
}

impl<'a> LocalRecord<'a> {
    /// Appends a record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.number);
        out.extend_from_slice(self.json);
    }

    /// Reads a record.
    pub fn decode(mut record: &'a [u8]) -> Result<Self, StoreError> {
        let number = varint::take(&mut record).ok_or(StoreError::Damaged("a _local document"))?;
        Ok(Self { number, json: record })
    }
}

/// The revision of a `_local` document that was written so often.
pub fn local_rev(number: u64) -> String {
    format!("0-{number}")
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text(record: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(varint::take(record)?).ok()?;
    Some(std::str::from_utf8(record.split_off(..length)?).ok()?.to_owned())
}

/// Appends a revision's hash: a zero and sixteen bytes, or a length and text. The length of no text is a zero of two
/// bytes, since one stands for sixteen.
pub fn put_hash(out: &mut Vec<u8>, hash: &RevHash) {
    match hash {
        RevHash::Md5(bytes) => {
            out.push(0);
            out.extend_from_slice(bytes);
        }
        RevHash::Other(text) if text.is_empty() => out.extend_from_slice(&[0x80, 0]),
        RevHash::Other(text) => put_text(out, text),
    }
}

/// Takes a revision's hash off the front; `None` if there is none.
pub fn take_hash(record: &mut &[u8]) -> Option<RevHash> {
    if let Some(0) = record.first() {
        return Some(RevHash::Md5(record.split_off(..17)?[1..].try_into().ok()?));
    }
    take_text(record).map(|text| RevHash::Other(text.into()))
}
