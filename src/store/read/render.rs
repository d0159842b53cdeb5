//! A document as JSON, put together from the stored bytes.
//!
//! `_id` and `_rev` in front, the document's own members as they came, then what was asked for, in the order of CouchDB's
//! `couch_doc:to_json_obj/2`. What is too large to be held is left out, and its place told ([`Gap`]).

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::text::{StoredText, TextSource};
use super::{DocRecord, Snapshot, Stored};
use crate::document::{Encoding, Rev};
use crate::json::push_string;
use crate::replicator_docs::Reader;
use crate::store::StoreError;
use crate::store::attachments::Attachment;
use crate::store::holds::OpenAttachment;
use crate::store::keys::{ATTS, Body};
use crate::store::new_rev;
use crate::store::revtree::Leaf;
use crate::term::Shape;

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
    /// Who sees no credentials in others' replicator documents ([`crate::store::Database::reader`]). What he sees instead of one
    /// is all held in memory, and has a revision that isn't stored, as in CouchDB.
    pub reader: Option<Reader>,
}

/// A leaf's revision and its own members, as they are shown.
struct Shown<'a> {
    rev: Cow<'a, Rev>,
    json: Cow<'a, [u8]>,
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
        attachment: OpenAttachment,
        /// Whether its bytes are wanted decoded, as opposed to as they are stored.
        decoded: bool,
    },
    /// A document's own members.
    Text(StoredText),
}

impl Snapshot {
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
        let Shown { rev, json } = self.shown(id, record, leaf, &body, options)?;
        let apart = options.members_apart && matches!(json, Cow::Borrowed(_));
        out.reserve(if apart { 0 } else { json.len() } + id.len() + 160);
        out.extend_from_slice(b"{\"_id\":");
        push_string(out, id);
        out.extend_from_slice(b",\"_rev\":");
        push_rev(out, &rev);
        let fields = &json[1..json.len() - 1];
        if !fields.is_empty() {
            out.push(b',');
            match apart {
                false => out.extend_from_slice(fields),
                true => {
                    let text = StoredText { of: TextSource::Body(leaf.body), start: 1, length: fields.len() };
                    gaps.push(Gap { at: out.len(), missing: Missing::Text(text) });
                }
            }
        }
        if leaf.deleted {
            out.extend_from_slice(b",\"_deleted\":true");
        }
        self.render_revisions(record, leaf, &rev, options, out);
        if body.has_attachments() {
            gaps.extend(self.render_attachments(record, leaf, body.attachments()?, options, out)?);
        }
        out.push(b'}');
        Ok(gaps)
    }

    /// The revision under which a leaf is shown.
    pub fn shown_rev(
        &self,
        id: &str,
        record: &DocRecord,
        leaf: &Leaf,
        options: &DocOptions,
    ) -> Result<Rev, StoreError> {
        if options.reader.is_none() {
            return Ok(leaf.rev.clone());
        }
        let stored = self.stored(leaf)?;
        Ok(self.shown(id, record, leaf, &Body::decode(stored.0.value())?, options)?.rev.into_owned())
    }

    fn shown<'a>(
        &self,
        id: &str,
        record: &DocRecord,
        leaf: &'a Leaf,
        body: &Body<'a>,
        options: &DocOptions,
    ) -> Result<Shown<'a>, StoreError> {
        let reader = options.reader.as_ref().filter(|_| !id.starts_with("_design/"));
        let Some(json) = reader.and_then(|reader| reader.sees(body.json)) else {
            return Ok(Shown { rev: Cow::Borrowed(&leaf.rev), json: Cow::Borrowed(body.json) });
        };
        let path = record.tree.path(&leaf.rev);
        let parent = path.and_then(|path| path.ids.into_iter().nth(1));
        let parent = parent.map(|hash| Rev { pos: leaf.rev.pos - 1, hash });
        let hash = new_rev::hash(leaf.deleted, parent.as_ref(), (&Shape::of(&json), &json), &body.attachments()?);
        Ok(Shown { rev: Cow::Owned(Rev { pos: leaf.rev.pos, hash }), json: Cow::Owned(json) })
    }

    /// Tells of a leaf that is shown as `rev`. As in CouchDB, `_revs_info` has the revisions that are stored.
    fn render_revisions(&self, record: &DocRecord, leaf: &Leaf, rev: &Rev, options: &DocOptions, out: &mut Vec<u8>) {
        let tree = &record.tree;
        if options.revs
            && let Some(path) = tree.path(&leaf.rev)
        {
            out.extend_from_slice(b",\"_revisions\":{\"start\":");
            out.extend_from_slice(path.start.to_string().as_bytes());
            out.extend_from_slice(b",\"ids\":");
            let ids: Vec<_> = [&rev.hash].into_iter().chain(path.ids.iter().skip(1)).collect();
            push_list(out, &ids, |out, hash| push_string(out, &hash.to_string()));
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
