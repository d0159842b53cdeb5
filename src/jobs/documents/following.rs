//! Follows replicator databases: which there are, and what is written into them.
//!
//! The store's log tells what happened to databases, and nobody misses a database's newest event there; each database is read on
//! from where it was read last. One that can't be read is read again after a pause.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{Documents, states};
use crate::document::DocId;
use crate::jobs::replication::JobDocument;
use crate::store::{DbEvent, DbName, StoreError};

/// Rows of the log that are looked at together.
const UPDATES: usize = 1000;
/// Documents of a feed that are looked at together.
const ROWS: usize = 500;
/// Before a database that couldn't be read is tried again.
const AGAIN_PAUSE: Duration = Duration::from_secs(5);

impl Documents {
    /// Looks at all documents, and at those that are written from then on, one after the other.
    pub(super) async fn follow(self) {
        let updates = self.inner.store.db_updates();
        let mut watch = updates.watch();
        let mut read: HashMap<DbName, u64> = HashMap::new();
        let mut since = 0;
        // Databases that couldn't be read.
        let mut again = BTreeSet::new();
        loop {
            for name in std::mem::take(&mut again) {
                if !self.read_on(&name, read.entry(name.clone()).or_default()).await {
                    again.insert(name);
                }
            }
            loop {
                let rows = updates.since(since, UPDATES);
                let Some(last) = rows.last() else { break };
                since = last.seq;
                for row in rows.into_iter().filter(|row| row.name.is_replicator()) {
                    if row.event != DbEvent::Updated {
                        self.forget_database(&row.name);
                        read.remove(&row.name);
                    }
                    if row.event != DbEvent::Deleted {
                        let from = read.entry(row.name.clone()).or_default();
                        if !self.read_on(&row.name, from).await {
                            again.insert(row.name);
                        }
                    }
                }
            }
            let places = std::mem::take(&mut *self.again());
            for place in places {
                if let Err(error) = self.read_again(&place).await {
                    let (db, doc) = (place.database.as_str(), place.id.as_str());
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(db, doc.id = doc, error, "a document can't be read");
                }
            }
            let pause = async {
                match again.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(AGAIN_PAUSE).await,
                }
            };
            tokio::select! {
                changed = watch.changed() => if changed.is_err() { return },
                () = self.inner.look_again.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Looks at the documents of a database that were written after `since`; answers whether that was possible.
    async fn read_on(&self, name: &DbName, since: &mut u64) -> bool {
        let read = self.read_documents(name, since).await;
        if let Err(error) = &read {
            let (db, error) = (name.as_str(), error as &dyn std::error::Error);
            tracing::error!(db, error, "documents that describe replications can't be read");
        }
        read.is_ok()
    }

    async fn read_documents(&self, name: &DbName, since: &mut u64) -> Result<(), StoreError> {
        let database = match self.inner.store.database(name).await {
            Err(StoreError::NoDatabase) => return Ok(()),
            database => database?,
        };
        loop {
            let from = *since;
            let rows = database.read(move |snapshot| {
                let mut rows = Vec::new();
                snapshot.changes(from, |row| {
                    let document = if row.deleted { None } else { states::read(snapshot, &row.id)? };
                    rows.push((row.seq, DocId::from(row.id), document));
                    Ok(rows.len() < ROWS)
                })?;
                Ok(rows)
            });
            let rows = rows.await?;
            let Some((last, ..)) = rows.last() else { return Ok(()) };
            *since = *last;
            let mut failed = Vec::new();
            for (_, id, document) in rows {
                let place = JobDocument { database: name.clone(), id };
                if let Some(change) = self.see(&place, document) {
                    failed.push((place.id, change));
                }
            }
            // Those that can't be written now are told of when they are written to.
            if let Err(error) = states::write(&database, failed).await {
                let (db, error) = (name.as_str(), &error as &dyn std::error::Error);
                tracing::warn!(db, error, "states of replications can't be written");
            }
        }
    }

    /// Looks at a document as it is now.
    async fn read_again(&self, place: &JobDocument) -> Result<(), StoreError> {
        let database = match self.inner.store.database(&place.database).await {
            Err(StoreError::NoDatabase) => return Ok(()),
            database => database?,
        };
        let id = place.id.clone();
        let document = database.read(move |snapshot| states::read(snapshot, id.as_str())).await?;
        let change = self.see(place, document).map(|change| (place.id.clone(), change));
        states::write(&database, change.into_iter().collect()).await
    }

    /// Documents that are to be read once more.
    pub(super) fn again(&self) -> MutexGuard<'_, Vec<JobDocument>> {
        self.inner.again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
