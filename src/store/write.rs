//! One transaction on a database's file: documents, `_local` documents, attachments' bytes.
//!
//! [`Transaction`] applies edits one after the other, each seeing those before it, and keeps every table in step: a
//! document's record, its one row in the feed, the bodies of its leaves and no others, attachments' references. It
//! blocks, and knows nothing of who waits for it: the database's writer does (`writer.rs`). Nothing of it is seen by
//! readers, or survives, unless the whole commits.
//!
//! Rules from CouchDB: `couch_db:prep_and_validate_update/6` (which parent a new edit may have),
//! `couch_key_tree:merge/2`, one row in the feed a document.

mod blobs;
mod purge;

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, WriteTransaction};

use super::attachments::Attachment;
use super::changed::Changed;
use super::edit::EditKind;
use super::keys::{
    self, ATT_REFS, ATTS, BODIES, BlobRef, Body, DOCS, Info, LOCAL, PURGES, Purges, SEQ_COUNTS, SEQS, SETTINGS,
    SeqEntry, UPLOADS,
};
use super::prepared::{Judged, Prepared};
use super::read::DocRecord;
use super::replaced::{Old, judged_part, new_edit_parent};
use super::revtree::{NewLeaf, RevTree};
use super::settings::Setting;
use super::work::{LocalParent, Refusal};
use super::{StoreError, new_rev};
use crate::document::{DocId, Rev, Revisions};
use crate::term::Shape;

/// The tables of one write transaction.
pub(super) struct Transaction<'t> {
    transaction: &'t WriteTransaction,
    docs: Table<'t, &'static str, &'static [u8]>,
    seqs: Table<'t, u64, &'static [u8]>,
    seq_counts: Table<'t, u64, u64>,
    bodies: Table<'t, u64, &'static [u8]>,
    local: Table<'t, &'static str, &'static [u8]>,
    atts: Table<'t, (u64, u32), &'static [u8]>,
    att_refs: Table<'t, [u8; 16], (u64, u64)>,
    uploads: Table<'t, u64, ()>,
    purges_table: Table<'t, (), [u64; 2]>,
    pub(super) info: Info,
    /// Revisions of a path that are kept.
    revs_limit: usize,
    /// How often what judges writes was changed, this transaction's own changes among them.
    pub(super) generation: u64,
    /// As they are after this transaction.
    purges: Purges,
    /// What this transaction adds to and takes from `seq_counts`.
    count_changes: BTreeMap<u64, i64>,
    /// Blobs that no document refers to any more: dropped after this transaction, for somebody may read them.
    pub(super) freed: Vec<u64>,
    /// Settings that this transaction changes.
    pub(super) changed: Vec<Setting>,
    scratch: Vec<u8>,
    /// Where changed keys are noted, while the file is copied.
    noted: &'t mut Option<Changed>,
}

impl<'t> Transaction<'t> {
    pub(super) fn new(
        transaction: &'t WriteTransaction,
        info: Info,
        revs_limit: usize,
        generation: u64,
        noted: &'t mut Option<Changed>,
    ) -> Result<Self, StoreError> {
        let purges_table = transaction.open_table(PURGES)?;
        let purges = purges_table.get(())?.map(|stored| Purges::decode(stored.value()));
        Ok(Self {
            transaction,
            purges_table,
            purges: purges.unwrap_or_default(),
            docs: transaction.open_table(DOCS)?,
            seqs: transaction.open_table(SEQS)?,
            seq_counts: transaction.open_table(SEQ_COUNTS)?,
            bodies: transaction.open_table(BODIES)?,
            local: transaction.open_table(LOCAL)?,
            atts: transaction.open_table(ATTS)?,
            att_refs: transaction.open_table(ATT_REFS)?,
            uploads: transaction.open_table(UPLOADS)?,
            info,
            revs_limit,
            generation,
            count_changes: BTreeMap::new(),
            freed: Vec::new(),
            changed: Vec::new(),
            scratch: Vec::new(),
            noted,
        })
    }

    /// Notes a key that is changed.
    fn note(&mut self, note: impl FnOnce(&mut Changed)) {
        if let Some(changed) = self.noted {
            note(changed);
        }
    }

    fn note_doc(&mut self, id: &DocId) {
        self.note(|changed| _ = changed.docs.insert(id.as_str().into()));
    }

    fn note_seq(&mut self, seq: u64) {
        self.note(|changed| _ = changed.seqs.insert(seq));
    }

    fn note_digest(&mut self, digest: [u8; 16]) {
        self.note(|changed| _ = changed.att_refs.insert(digest));
    }

    /// Writes what was gathered meanwhile; the numbers are to be stored by the caller.
    pub(super) fn finish(mut self) -> Result<Info, StoreError> {
        for (bucket, change) in std::mem::take(&mut self.count_changes) {
            let before = self.seq_counts.get(bucket)?.map_or(0, |count| count.value());
            match before.saturating_add_signed(change) {
                0 => drop(self.seq_counts.remove(bucket)?),
                count => drop(self.seq_counts.insert(bucket, count)?),
            }
        }
        let before = self.purges_table.get(())?.map(|stored| Purges::decode(stored.value()));
        if self.purges != before.unwrap_or_default() {
            self.purges_table.insert((), self.purges.encode())?;
        }
        Ok(self.info)
    }

    /// Whether all edits of a call replace what they were judged by; what was judged of those that don't is forgotten.
    pub(super) fn are_judged(&self, edits: &mut [Prepared]) -> Result<bool, StoreError> {
        let mut all = true;
        for edit in edits {
            let Some(Judged { old: Some(old), is_branch, .. }) = &edit.judged else { continue };
            let tree = match self.docs.get(edit.id.as_str())? {
                Some(stored) => DocRecord::decode(stored.value())?.tree,
                None => RevTree::default(),
            };
            let found = Old::find(&tree, &edit.kind, edit.deleted);
            if found.as_ref() != Ok(old) || old.is_branch(&tree) != *is_branch {
                edit.judged = None;
                all = false;
            }
        }
        Ok(all)
    }

    /// Applies one edit. A refused edit changes nothing.
    pub(super) fn edit(&mut self, edit: Prepared) -> Result<Result<Rev, Refusal>, StoreError> {
        let record = match self.docs.get(edit.id.as_str())? {
            Some(stored) => Some(DocRecord::decode(stored.value())?),
            None => None,
        };
        let Prepared { id, kind, deleted, body, shape, attachments, judged, .. } = edit;
        let (old_seq, mut tree) = match record {
            Some(DocRecord { seq, tree }) => (Some(seq), tree),
            None => (None, RevTree::default()),
        };
        let kind = match kind {
            EditKind::Replicated { path } if judged.is_some() => {
                EditKind::Replicated { path: judged_part(&tree, path) }
            }
            kind => kind,
        };
        // Whose attachments stubs stand for: the revision's ancestors, nearest first.
        let (ancestors, generation) = match &kind {
            EditKind::New { parent } => match new_edit_parent(&tree, parent.as_ref(), deleted) {
                Ok(parent) => {
                    let generation = parent.as_ref().map_or(1, |parent| parent.start + 1);
                    (parent, generation)
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            EditKind::Replicated { path } => {
                if tree.contains(&path.newest()) {
                    return self.known_revision(&id, old_seq, tree, path);
                }
                (Some(path.clone()), path.start)
            }
        };
        let resolved = self.resolve(&id, &tree, ancestors.as_ref(), generation, attachments)?;
        let (attachments, packed) = match resolved {
            Ok(resolved) => resolved,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let path = match kind {
            EditKind::Replicated { path } => path,
            EditKind::New { .. } => {
                let parent = ancestors.as_ref().map(Revisions::newest);
                let shape = shape.unwrap_or_else(|| Shape::of(&body));
                let hash = new_rev::hash(deleted, parent.as_ref(), (&shape, &body), &attachments);
                let older = ancestors.into_iter().flat_map(|path| path.ids);
                Revisions { start: generation, ids: [hash].into_iter().chain(older).collect() }
            }
        };
        let rev = path.newest();
        self.info.update_seq += 1;
        let seq = self.info.update_seq;
        let was = (!tree.is_empty()).then(|| tree.winner()).flatten();
        let merged =
            tree.merge(&path, NewLeaf { deleted, attached: !attachments.is_empty(), body: seq }, self.revs_limit);
        if !merged.added {
            // A new edit that makes a revision which is there already: the same edit was made before.
            self.info.update_seq -= 1;
            return Ok(Err(Refusal::Conflict));
        }
        for (attachment, data) in attachments.iter().zip(packed) {
            self.refer(attachment, data)?;
        }
        for leaf in merged.dropped {
            self.drop_body(leaf.body)?;
        }
        self.put_body(seq, &attachments, &body)?;
        self.count_document(was.map(|leaf| leaf.deleted), tree.winner().is_some_and(|leaf| leaf.deleted));
        self.put_record(&id, old_seq, seq, &tree)?;
        Ok(Ok(rev))
    }

    /// A replicated revision that is there: at most its path has become longer, which the feed needn't tell unless
    /// that path shows a leaf to be none: then the leaves are others, and maybe the winner.
    fn known_revision(
        &mut self,
        id: &DocId,
        seq: Option<u64>,
        mut tree: RevTree,
        path: &Revisions,
    ) -> Result<Result<Rev, Refusal>, StoreError> {
        let known = tree.leaf(&path.newest());
        let was = tree.winner().map(|leaf| leaf.deleted);
        let leaf = NewLeaf { deleted: false, attached: false, body: 0 };
        let merged = tree.merge(path, leaf, self.revs_limit);
        if let (true, Some(seq)) = (merged.changed, seq) {
            debug_assert_eq!(tree.leaf(&path.newest()), known);
            if merged.dropped.is_empty() {
                self.scratch.clear();
                DocRecord::encode(seq, &tree, &mut self.scratch);
                self.docs.insert(id.as_str(), self.scratch.as_slice())?;
                self.note_doc(id);
                return Ok(Ok(path.newest()));
            }
            for leaf in merged.dropped {
                self.drop_body(leaf.body)?;
            }
            self.count_document(was, tree.winner().is_some_and(|leaf| leaf.deleted));
            self.info.update_seq += 1;
            self.put_record(id, Some(seq), self.info.update_seq, &tree)?;
        }
        Ok(Ok(path.newest()))
    }

    fn put_body(&mut self, seq: u64, attachments: &[Attachment], json: &[u8]) -> Result<(), StoreError> {
        self.scratch.clear();
        Body::encode_head(attachments, &mut self.scratch);
        let mut place = self.bodies.insert_reserve(seq, self.scratch.len() + json.len())?;
        let (head, rest) = place.as_mut().split_at_mut(self.scratch.len());
        head.copy_from_slice(&self.scratch);
        rest.copy_from_slice(json);
        self.info.active_size += json.len() as u64;
        drop(place);
        self.note(|changed| _ = changed.bodies.insert(seq));
        Ok(())
    }

    /// Drops the body of a leaf that is one no more, and its references to attachments.
    fn drop_body(&mut self, body: u64) -> Result<(), StoreError> {
        let Some(stored) = self.bodies.remove(body)? else { return Ok(()) };
        let record = Body::decode(stored.value())?;
        let attachments = record.attachments()?;
        self.info.active_size = self.info.active_size.saturating_sub(record.json.len() as u64);
        drop(stored);
        self.note(|changed| _ = changed.bodies.insert(body));
        for attachment in attachments {
            let digest = attachment.digest.0;
            self.note_digest(digest);
            let Some(known) = self.att_refs.get(digest)?.map(|stored| BlobRef::decode(stored.value())) else {
                continue;
            };
            if known.references > 1 {
                self.att_refs.insert(digest, BlobRef { references: known.references - 1, ..known }.encode())?;
            } else {
                self.att_refs.remove(digest)?;
                self.note_upload(known.blob)?;
                self.freed.push(known.blob);
                self.info.active_size = self.info.active_size.saturating_sub(attachment.stored_length);
            }
        }
        Ok(())
    }

    /// Writes a document's record, and moves its row to the feed's end.
    fn put_record(&mut self, id: &DocId, old_seq: Option<u64>, seq: u64, tree: &RevTree) -> Result<(), StoreError> {
        self.generation += u64::from(id.is_design());
        if let Some(old) = old_seq {
            self.seqs.remove(old)?;
            self.note_seq(old);
            *self.count_changes.entry(keys::seq_bucket(old)).or_default() -= 1;
        }
        *self.count_changes.entry(keys::seq_bucket(seq)).or_default() += 1;
        self.scratch.clear();
        SeqEntry::encode(id.as_str(), tree, &mut self.scratch);
        self.seqs.insert(seq, self.scratch.as_slice())?;
        self.scratch.clear();
        DocRecord::encode(seq, tree, &mut self.scratch);
        self.docs.insert(id.as_str(), self.scratch.as_slice())?;
        self.note_seq(seq);
        self.note_doc(id);
        Ok(())
    }

    fn count_document(&mut self, was_deleted: Option<bool>, is_deleted: bool) {
        match was_deleted {
            Some(true) => self.info.doc_del_count -= 1,
            Some(false) => self.info.doc_count -= 1,
            None => {}
        }
        match is_deleted {
            true => self.info.doc_del_count += 1,
            false => self.info.doc_count += 1,
        }
    }

    /// Changes a setting.
    pub(super) fn set(&mut self, setting: Setting) -> Result<(), StoreError> {
        let (name, text) = setting.stored();
        self.transaction.open_table(SETTINGS)?.insert(name, text.as_str())?;
        match setting {
            Setting::RevsLimit(limit) => self.revs_limit = limit,
            Setting::Security(_) => self.generation += 1,
        }
        self.changed.push(setting);
        Ok(())
    }

    /// Writes or deletes a `_local` document over the revision it has.
    pub(super) fn put_local(
        &mut self,
        id: &str,
        parent: &LocalParent,
        body: Option<&[u8]>,
    ) -> Result<Result<String, Refusal>, StoreError> {
        let stored = match self.local.get(id)? {
            Some(stored) => Some(keys::LocalRecord::decode(stored.value())?.number),
            None => None,
        };
        if let LocalParent::Rev(rev) = parent
            && stored.map(keys::local_rev) != *rev
        {
            return Ok(Err(Refusal::Conflict));
        }
        self.note(|changed| _ = changed.local.insert(id.into()));
        let Some(body) = body else {
            self.local.remove(id)?;
            return Ok(Ok(keys::local_rev(0)));
        };
        let number = stored.unwrap_or(0) + 1;
        self.scratch.clear();
        keys::LocalRecord { number, json: body }.encode(&mut self.scratch);
        self.local.insert(id, self.scratch.as_slice())?;
        Ok(Ok(keys::local_rev(number)))
    }
}
