//! A database of the embedded store, as a peer: the same operations without HTTP, JSON requests or copies in between.
//!
//! Documents still travel as JSON text ([`DocBatch`]), so that any source goes with any target. Everything that reads
//! or writes blocks, and so runs on threads that may; a call that is dropped while it writes still writes.
//!
//! A handle, not an open database: each operation opens it anew (a look into a map while it is open), so a deleted
//! database is [`PeerError::DatabaseMissing`] from then on, and whoever is its member no more is
//! [`PeerError::Unauthorized`].

mod feed;
mod changes_answer;
mod bulk_get;
mod attached;
mod refusal;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use self::refusal::{bad_document, blame, failure, refused_by_store};
use super::{Blame, Change, DatabaseInfo, Doubt, LocalDoc, PeerError, Written};
use crate::access::{Caller, Denied};
use crate::document::{DocBatch, DocParts, Wanted};
use crate::effort::pulse::Pulse;
use crate::store::{Database, DbName, DocOptions, Durability, Edit, LocalRange, Snapshot, Store, StoreError};
use crate::tasks;

pub use self::bulk_get::LocalBulkGet;
pub use self::changes_answer::LocalChanges;

/// A database of the embedded store.
#[derive(Clone)]
pub struct LocalPeer {
    store: Store,
    name: DbName,
    /// Whose rights count, and who filter functions are told asks.
    caller: Arc<Caller>,
    /// Of the job that it was opened for.
    pulse: Pulse,
}

impl std::fmt::Debug for LocalPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalPeer({})", self.name)
    }
}

impl LocalPeer {
    /// A database by its name; whether it is there, its operations tell.
    pub fn new(store: Store, name: DbName, caller: Arc<Caller>, pulse: Pulse) -> Self {
        Self { store, name, caller, pulse }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    async fn database(&self) -> Result<Arc<Database>, PeerError> {
        let database = self.store.database(&self.name).await.map_err(|error| self.explain(error))?;
        database.security().may_open(&self.caller).map_err(|denied| self.unauthorized(denied))?;
        Ok(database)
    }

    /// The same, to read its documents. Those of the users' database and of replicator databases are for server admins, as over
    /// HTTP, where lists of them are for admins: hashes of passwords and credentials are among them.
    async fn readable(&self) -> Result<Arc<Database>, PeerError> {
        let database = self.database().await?;
        if self.name.is_users() || self.name.is_replicator() {
            self.caller.may_administer().map_err(|denied| self.unauthorized(denied))?;
        }
        Ok(database)
    }

    fn unauthorized(&self, denied: Denied) -> PeerError {
        PeerError::Unauthorized { database: self.name.to_string(), reason: Some(denied.to_string()) }
    }

    /// What a store's error means to a replication.
    fn explain(&self, error: StoreError) -> PeerError {
        match error {
            StoreError::NoDatabase => PeerError::DatabaseMissing { database: self.name.to_string() },
            error => error.into(),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PeerError> {
        self.database().await?.read(work).await.map_err(|error| self.explain(error))
    }

    /// See [`super::Peer::info`].
    pub async fn info(&self) -> Result<DatabaseInfo, PeerError> {
        let stats = self.database().await?.stats().await?;
        Ok(DatabaseInfo {
            instance_start_time: stats.instance_start_time,
            update_seq: stats.update_seq.into(),
            documents: Some(stats.doc_count + stats.doc_del_count),
        })
    }

    /// See [`super::Peer::create`].
    pub async fn create(&self) -> Result<(), PeerError> {
        match self.store.database(&self.name).await {
            Err(StoreError::NoDatabase) => {}
            there => return there.map(drop).map_err(|error| self.explain(error)),
        }
        self.caller.may_make_databases().map_err(|denied| self.unauthorized(denied))?;
        self.store.ensure(&self.name).await.map_err(|error| self.explain(error))
    }

    /// See [`super::Peer::design_doc`].
    pub async fn design_doc(&self, name: &str) -> Result<Option<Bytes>, PeerError> {
        let id = format!("_design/{name}");
        self.readable().await?;
        self.read(move |snapshot| {
            let Some(record) = snapshot.document(&id)? else { return Ok(None) };
            let Some(winner) = record.tree.winner().filter(|winner| !winner.deleted) else { return Ok(None) };
            let mut json = Vec::new();
            snapshot.render(&id, &record, &winner, &DocOptions::default(), &mut json)?;
            Ok(Some(json.into()))
        })
        .await
    }

    /// See [`super::Peer::local_doc`].
    pub async fn local_doc(&self, id: &str) -> Result<Option<LocalDoc>, PeerError> {
        let Some((rev, body)) = self.database().await?.local_doc(id).await? else { return Ok(None) };
        let body = serde_json::from_slice(&body).map_err(|_| StoreError::Damaged("a _local document"))?;
        Ok(Some(LocalDoc { rev, body }))
    }

    /// See [`super::Peer::put_local_doc`].
    pub async fn put_local_doc(&self, id: &str, rev: Option<&str>, body: &RawValue) -> Result<String, PeerError> {
        let written = self.database().await?.put_local_doc(id, rev, Some(body.get().into())).await?;
        written.map_err(|_| PeerError::Conflict)
    }

    /// See [`super::Peer::remove_local_doc`].
    pub async fn remove_local_doc(&self, id: &str, rev: &str) -> Result<(), PeerError> {
        let removed = self.database().await?.put_local_doc(id, Some(rev), None).await?;
        removed.map(drop).map_err(|_| PeerError::Conflict)
    }

    /// See [`super::Peer::local_ids`].
    pub async fn local_ids(&self, prefix: &str) -> Result<Vec<String>, PeerError> {
        let database = self.database().await?;
        let mut range = LocalRange { start: Some(prefix.to_owned()), ..LocalRange::default() };
        let mut ids = Vec::new();
        loop {
            let rows = database.local_docs(range).await?;
            let before = ids.len();
            ids.extend(rows.into_iter().map(|row| row.id).take_while(|id| id.starts_with(prefix)));
            if ids.len() == before {
                return Ok(ids);
            }
            range = LocalRange { after: ids.last().cloned(), ..LocalRange::default() };
        }
    }

    /// See [`super::Peer::revs_diff`].
    pub async fn revs_diff(&self, changes: &[Change]) -> Result<Vec<Wanted>, PeerError> {
        let changes = changes.to_vec();
        self.read(move |snapshot| {
            let mut wanted = Vec::new();
            for change in changes {
                let Some(record) = snapshot.document(change.id.as_str())? else {
                    wanted.push(Wanted { id: change.id, revs: change.revs, atts_since: Vec::new() });
                    continue;
                };
                let revs = record.tree.missing(&change.revs);
                if !revs.is_empty() {
                    let atts_since = record.tree.possible_ancestors(&revs);
                    wanted.push(Wanted { id: change.id, revs, atts_since });
                }
            }
            Ok(wanted)
        })
        .await
    }

    /// See [`super::Peer::bulk_get`].
    pub fn bulk_get(&self, wanted: Vec<Wanted>) -> LocalBulkGet {
        LocalBulkGet::new(self.clone(), wanted, false)
    }

    /// See [`super::Peer::bulk_get_inline`].
    pub fn bulk_get_inline(&self, wanted: Vec<Wanted>) -> LocalBulkGet {
        LocalBulkGet::new(self.clone(), wanted, true)
    }

    /// See [`super::Peer::bulk_docs`].
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Written, PeerError> {
        let database = self.database().await?;
        let (docs, edits, mut refused) = tasks::blocking("take documents apart", move || {
            let mut refused = Vec::new();
            let mut edits = Vec::with_capacity(batch.docs().len());
            let mut docs = Vec::with_capacity(batch.docs().len());
            for doc in batch.docs() {
                let parts = DocParts::parse(batch.text(doc));
                match parts.and_then(|parts| Edit::new(&parts, doc.id.clone(), true, Vec::new())) {
                    Ok(edit) => {
                        edits.push(edit);
                        docs.push((doc.id.clone(), doc.rev.clone()));
                    }
                    Err(error) => refused.push(failure(doc.id.clone(), doc.rev.clone(), bad_document(&error))),
                }
            }
            (docs, edits, refused)
        })
        .await
        .map_err(StoreError::from)?;
        let written = database.write(edits, &self.caller, Durability::Unsynced).await?;
        let mut doubtful = Vec::new();
        for ((id, rev), written) in docs.into_iter().zip(written) {
            let Err(refusal) = written else { continue };
            let failure = failure(id, rev, refused_by_store(&refusal));
            match blame(&refusal) {
                Blame::Document => refused.push(failure),
                blame => doubtful.push(Doubt { failure, blame }),
            }
        }
        Ok(Written { refused, doubtful })
    }

    /// See [`super::Peer::ensure_full_commit`].
    pub async fn ensure_full_commit(&self) -> Result<String, PeerError> {
        self.database().await?.ensure_full_commit().await.map_err(|error| self.explain(error))
    }
}
