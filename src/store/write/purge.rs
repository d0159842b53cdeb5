//! A transaction's purges: revisions that go as if they had never been written.
//!
//! Rules from CouchDB (`couch_db_updater:purge_docs/2`): what is left of a document moves to the feed's end, a document
//! without a leaf leaves the feed and the counts, and every document that was named counts as a purge, whether something
//! of it went or not. Nothing tells replications of it: what a peer still has may come back.

use redb::ReadableTable as _;

use super::Transaction;
use crate::document::{DocId, Rev};
use crate::store::StoreError;
use crate::store::keys::{self, Purges};
use crate::store::read::DocRecord;

impl Transaction<'_> {
    /// Purges the leaves among `revs` of a document; answers those that were some.
    pub(in crate::store) fn purge(&mut self, id: &DocId, revs: &[Rev]) -> Result<Vec<Rev>, StoreError> {
        self.purges.purge_seq += 1;
        self.info.update_seq += 1;
        let record = match self.docs.get(id.as_str())? {
            Some(stored) => DocRecord::decode(stored.value())?,
            None => return Ok(Vec::new()),
        };
        let DocRecord { seq, mut tree } = record;
        let was_deleted = tree.winner().is_some_and(|leaf| leaf.deleted);
        let purged = tree.purge(revs);
        if purged.is_empty() {
            return Ok(Vec::new());
        }
        self.generation += u64::from(id.is_design());
        for leaf in &purged {
            self.drop_body(leaf.body)?;
        }
        match tree.winner() {
            Some(winner) => {
                self.count_document(Some(was_deleted), winner.deleted);
                self.put_record(id, Some(seq), self.info.update_seq, &tree)?;
            }
            None => {
                match was_deleted {
                    true => self.info.doc_del_count -= 1,
                    false => self.info.doc_count -= 1,
                }
                self.seqs.remove(seq)?;
                *self.count_changes.entry(keys::seq_bucket(seq)).or_default() -= 1;
                self.docs.remove(id.as_str())?;
                self.note_seq(seq);
                self.note_doc(id);
            }
        }
        Ok(purged.into_iter().map(|leaf| leaf.rev).collect())
    }

    /// Sets how many purges are to be remembered.
    pub(in crate::store) fn set_purged_infos_limit(&mut self, limit: u64) {
        self.purges = Purges { infos_limit: limit, ..self.purges };
    }
}
