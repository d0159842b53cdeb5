//! Documents of replications in the embedded store.

use serde_json::{Map, Value};

use super::reading::{NotPut, PAGE_BYTES, ROWS, ReadPage, ReadPlace, Stored};
use crate::access::{Caller, Denied};
use crate::document::{DocId, DocParts, Seq};
use crate::replicator_docs::MAX_READ_BYTES;
use crate::store::{DbName, DbUpdates, DocOptions, Durability, Edit, Refusal, Snapshot, Store, StoreError};

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct OfStore {
    store: Store,
}

impl OfStore {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    pub(super) fn names(&self) -> Vec<DbName> {
        self.store.names().into_iter().filter(DbName::is_replicator).collect()
    }

    /// Whether somebody may open a database, and so write to it what is his own.
    pub(super) async fn may_open(&self, name: &DbName, caller: &Caller) -> Result<Result<(), Denied>, StoreError> {
        Ok(self.store.database(name).await?.security().may_open(caller))
    }

    pub(super) fn updates(&self) -> DbUpdates {
        self.store.db_updates()
    }

    pub(super) async fn page(&self, name: &DbName, place: &mut ReadPlace) -> Result<ReadPage, StoreError> {
        let database = match self.store.database(name).await {
            Err(StoreError::NoDatabase) => return Ok(ReadPage::default()),
            database => database?,
        };
        let from = place.since.as_ref().and_then(|seq| seq.as_json().parse().ok()).unwrap_or(0);
        let read = database.read(move |snapshot| {
            let (mut rows, mut bytes, mut more, mut last) = (Vec::new(), 0, false, from);
            snapshot.changes(from, |row| {
                let none = row.deleted || row.id.starts_with("_design/");
                let stored = if none { None } else { stored(snapshot, &row.id)? };
                bytes += stored.as_ref().map_or(0, |stored| stored.bytes);
                last = row.seq;
                rows.push((DocId::from(row.id), stored));
                more = rows.len() == ROWS || bytes >= PAGE_BYTES;
                Ok(!more)
            })?;
            Ok((rows, more, last, snapshot.purge_seq()?))
        });
        let (rows, more, last, purge_seq) = read.await?;
        place.since = Some(Seq::from(last));
        let purged = std::mem::replace(&mut place.purge_seq, purge_seq) != purge_seq;
        Ok(ReadPage { rows, more, purged })
    }

    pub(super) async fn documents(
        &self,
        name: &DbName,
        ids: Vec<DocId>,
    ) -> Result<Vec<Result<Option<Stored>, StoreError>>, StoreError> {
        let database = self.store.database(name).await?;
        let read = move |snapshot: &Snapshot| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for id in ids {
                let stored = stored(snapshot, id.as_str());
                bytes += stored.as_ref().ok().and_then(Option::as_ref).map_or(0, |stored| stored.bytes);
                found.push(stored);
                if bytes >= PAGE_BYTES {
                    break;
                }
            }
            Ok(found)
        };
        database.read(read).await
    }

    pub(super) async fn put(
        &self,
        name: &DbName,
        documents: Vec<(DocId, Map<String, Value>)>,
        author: &Caller,
        synced: bool,
    ) -> Result<Vec<Result<(), NotPut>>, StoreError> {
        let database = self.store.database(name).await?;
        // One that can't be made holds up no other.
        let mut put: Vec<_> = documents.iter().map(|_| Ok(())).collect();
        let (mut edits, mut places) = (Vec::new(), Vec::new());
        for (place, (id, document)) in documents.into_iter().enumerate() {
            match edit(id, &document) {
                Ok(edit) => {
                    edits.push(edit);
                    places.push(place);
                }
                Err(error) => put[place] = Err(NotPut::Refused(error.to_string())),
            }
        }
        let durability = if synced { Durability::Synced } else { Durability::Unsynced };
        for (written, place) in database.write(edits, author, durability).await?.into_iter().zip(places) {
            put[place] = match written {
                Ok(_) => Ok(()),
                Err(Refusal::Conflict) => Err(NotPut::Conflict),
                Err(refusal) => Err(NotPut::Refused(refusal.to_string())),
            };
        }
        Ok(put)
    }
}

fn edit(id: DocId, document: &Map<String, Value>) -> Result<Edit, StoreError> {
    let unreadable = |_| StoreError::Damaged("a document that describes a replication");
    let text = serde_json::to_vec(document).unwrap_or_default();
    let parts = DocParts::parse(&text).map_err(unreadable)?;
    Edit::new(&parts, id, false, Vec::new()).map_err(unreadable)
}

/// A document as it is stored, if it is there. One may be too large that was stored before that was refused.
pub fn stored(snapshot: &Snapshot, id: &str) -> Result<Option<Stored>, StoreError> {
    let Some(record) = snapshot.document(id)? else { return Ok(None) };
    let Some(winner) = record.tree.winner().filter(|winner| !winner.deleted) else { return Ok(None) };
    let mut text = Vec::new();
    snapshot.render(id, &record, &winner, &DocOptions::default(), &mut text)?;
    let document = if text.len() > MAX_READ_BYTES { None } else { serde_json::from_slice(&text).ok() };
    Ok(Some(Stored { bytes: text.len(), document }))
}
