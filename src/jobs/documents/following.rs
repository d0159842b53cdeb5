//! Follows replicator databases: which there are, and what is written into them.
//!
//! The store's log tells what happened to databases, and nobody misses a database's newest event there; each database is read on
//! from where it was read last. What can't be read is read again after a pause. A purge takes documents out of the feed: after one all that
//! are known of the database are looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::home::{HomeError, ReadPlace, Stored};
use super::states::StateChange;
use super::{Documents, states};
use crate::document::DocId;
use crate::jobs::replication::JobDocument;
use crate::store::{DbEvent, DbName};
use crate::takeover::DocumentRunner;

/// Before what couldn't be read is tried again.
const AGAIN_PAUSE: Duration = Duration::from_secs(5);

impl Documents {
    /// Follows them for as long as they are ours to run.
    pub(super) async fn follow(self) {
        let mut runner = self.inner.runner.clone();
        loop {
            until(&mut runner, true).await;
            tokio::select! {
                biased;
                () = until(&mut runner, false) => {
                    tracing::warn!("documents of replications are no longer ours to run");
                    self.forget_all();
                }
                () = self.follow_ours() => return,
                () = self.inner.home.listen() => return,
            }
        }
    }

    /// Looks at all documents, and at those that are written from then on, one after the other. No database waits until all of another
    /// one is read: of each a page is read in turn.
    async fn follow_ours(&self) {
        let mut updates = self.inner.home.updates();
        let mut read: HashMap<DbName, ReadPlace> = HashMap::new();
        // Databases of which more is to be read.
        let mut unread = BTreeSet::new();
        // What couldn't be read, and when it is tried again.
        let mut failed: BTreeMap<DbName, Instant> = BTreeMap::new();
        let mut failed_documents: BTreeMap<JobDocument, Instant> = BTreeMap::new();
        loop {
            while let Some(rows) = updates.take() {
                for (name, event) in rows {
                    if event != DbEvent::Updated {
                        self.forget_database(&name);
                        read.remove(&name);
                    }
                    if event != DbEvent::Deleted {
                        unread.insert(name);
                    }
                }
            }
            let now = Instant::now();
            unread.extend(failed.extract_if(.., |_, again| *again <= now).map(|(name, _)| name));
            for name in std::mem::take(&mut unread) {
                match self.read_page(&name, read.entry(name.clone()).or_default()).await {
                    Ok(true) => _ = unread.insert(name),
                    Ok(false) => {}
                    Err(error) => {
                        let (db, error) = (name.as_str(), &error as &dyn std::error::Error);
                        tracing::error!(db, error, "documents that describe replications can't be read");
                        failed.insert(name, Instant::now() + AGAIN_PAUSE);
                    }
                }
            }
            let mut places = std::mem::take(&mut *self.again());
            places.extend(failed_documents.extract_if(.., |_, again| *again <= now).map(|(place, _)| place));
            for place in places {
                if let Err(error) = self.read_again(&place).await {
                    let (db, doc) = (place.database.as_str(), place.id.as_str());
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(db, doc.id = doc, error, "a document can't be read");
                    failed_documents.insert(place, Instant::now() + AGAIN_PAUSE);
                }
            }
            if !unread.is_empty() {
                continue;
            }
            let again = failed.values().chain(failed_documents.values()).min().copied();
            let pause = async {
                match again {
                    None => std::future::pending().await,
                    Some(again) => tokio::time::sleep_until(again).await,
                }
            };
            tokio::select! {
                more = updates.changed() => if !more { return },
                () = self.inner.look_again.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Looks at some documents of a database that were written since it was read so far; answers whether there may be more.
    async fn read_page(&self, name: &DbName, place: &mut ReadPlace) -> Result<bool, HomeError> {
        let page = self.inner.home.page(name, place).await?;
        if page.purged {
            // What was purged stands nowhere in the feed.
            self.known().of_database(name).iter().for_each(|place| self.look_at(place));
        }
        let mut failed = Vec::new();
        for (id, stored) in page.rows {
            let place = JobDocument { database: name.clone(), id };
            if let Some(change) = self.see_stored(&place, stored) {
                failed.push((place.id, change));
            }
        }
        // Those that can't be written now are told of when they are written to.
        if let Err(error) = self.write_failed(name, failed).await {
            let (db, error) = (name.as_str(), &error as &dyn std::error::Error);
            tracing::warn!(db, error, "states of replications can't be written");
        }
        Ok(page.more)
    }

    /// Looks at a document as it is now.
    async fn read_again(&self, place: &JobDocument) -> Result<(), HomeError> {
        let stored = match self.inner.home.document(place).await {
            // Its deletion is told in its own time.
            Err(error) if error.is_no_database() => return Ok(()),
            stored => stored?,
        };
        match self.see_stored(place, stored) {
            Some(change) => self.write_failed(&place.database, vec![(place.id.clone(), change)]).await,
            None => Ok(()),
        }
    }

    fn see_stored(&self, place: &JobDocument, stored: Option<Stored>) -> Option<StateChange> {
        if stored.as_ref().is_some_and(|stored| stored.document.is_none()) {
            let (db, doc) = (place.database.as_str(), place.id.as_str());
            tracing::warn!(db, doc.id = doc, "a document is too large, or nested too deeply, to be a replication");
        }
        self.see(place, stored.and_then(|stored| stored.document))
    }

    /// Writes that nothing can be made of documents.
    pub(super) async fn write_failed(&self, name: &DbName, failed: Vec<(DocId, StateChange)>) -> Result<(), HomeError> {
        if failed.is_empty() {
            return Ok(());
        }
        let unwritten = match states::write(&self.inner.home, name, failed).await {
            Err(error) if error.is_no_database() => return Ok(()),
            unwritten => unwritten?,
        };
        for (id, change) in unwritten.into_iter().filter(|(_, change)| change.over.is_some()) {
            self.inner.untold.keep(JobDocument { database: name.clone(), id }, change);
        }
        Ok(())
    }

    /// Documents that are to be read once more.
    pub(super) fn again(&self) -> MutexGuard<'_, BTreeSet<JobDocument>> {
        self.inner.again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until documents are ours to run, or aren't any more; for ever if that doesn't change.
async fn until(runner: &mut Option<watch::Receiver<DocumentRunner>>, wanted: bool) {
    let is_so = match runner {
        None => wanted,
        Some(runner) => runner.wait_for(|runner| (*runner == DocumentRunner::Us) == wanted).await.is_ok(),
    };
    if !is_so {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::Caller;
    use crate::accounts::Accounts;
    use crate::config::{Config, StoreSettings};
    use crate::document::{DocParts, Rev};
    use crate::jobs::documents::DescribedJobs;
    use crate::jobs::documents::home::{DocumentHome, PAGE_BYTES, ROWS, stored};
    use crate::jobs::owners::Owners;
    use crate::jobs::running::RunningJobs;
    use crate::jobs::scheduler::Scheduler;
    use crate::jobs::tests::context;
    use crate::replicator_docs::MAX_READ_BYTES;
    use crate::store::{Database, Durability, Edit, Store};
    use serde_json::json;
    use tempfile::TempDir;

    /// Documents that nobody follows, and a database of them.
    async fn documents() -> (Documents, Arc<Database>, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), StoreSettings::default()).await.unwrap();
        let database = store.create(&DbName::parse("a/_replicator").unwrap()).await.unwrap();
        let settings = watch::channel(Arc::new(Config::default())).1;
        let accounts = Accounts::open(settings, store.clone()).await.unwrap();
        let (context, running) = (context(), RunningJobs::default());
        let (home, owners) = (DocumentHome::of_store(store), Owners::Accounts(accounts));
        let scheduler = Scheduler::new(context.clone(), running.clone(), Some(owners.clone()));
        let described = DescribedJobs { home, runner: None, owners };
        (Documents::new(described, (context, running, scheduler)), database, directory)
    }

    /// Writes documents that are at their ends, and large, as only the replicator may.
    async fn fill(database: &Arc<Database>, documents: usize, bytes: usize) -> Vec<Rev> {
        let edits = (0..documents).map(|n| {
            let body = json!({"_replication_state": "completed", "text": "x".repeat(bytes)}).to_string();
            Edit::new(&DocParts::parse(body.as_bytes()).unwrap(), format!("{bytes}-{n}").into(), false, Vec::new())
        });
        let edits = edits.collect::<Result<_, _>>().unwrap();
        let written = database.write(edits, &Caller::replicator(), Durability::Unsynced).await.unwrap();
        written.into_iter().collect::<Result<_, _>>().unwrap()
    }

    /// A database that is written to all the time kept the others waiting for ever, and a page of large documents took gigabytes.
    #[tokio::test]
    async fn a_database_is_read_by_pages_of_so_many_documents_and_bytes() {
        let (documents, database, _directory) = documents().await;
        let mut place = ReadPlace::default();
        fill(&database, ROWS + 3, 1).await;
        let seq = |place: &ReadPlace| place.since.as_ref().unwrap().as_json().parse::<u64>().unwrap();
        let mut read = async || (documents.read_page(database.name(), &mut place).await.unwrap(), seq(&place));
        assert_eq!([read().await, read().await], [(true, ROWS as u64), (false, ROWS as u64 + 3)]);
        fill(&database, 5, PAGE_BYTES / 2).await;
        let rows = ROWS as u64 + 3;
        assert_eq!([read().await, read().await, read().await], [(true, rows + 2), (true, rows + 4), (false, rows + 5)]);
        assert_eq!(read().await, (false, rows + 5));
    }

    /// The jobs of a database whose deletion wasn't told yet ran on, here and where they were given back to.
    #[tokio::test]
    async fn when_documents_are_no_longer_ours_those_of_a_database_that_is_gone_are_forgotten_too() {
        let (documents, ..) = documents().await;
        let place = JobDocument { database: DbName::parse("gone/_replicator").unwrap(), id: "a".into() };
        let body = json!({"source": "http://h/a", "target": "http://h/b"});
        assert!(documents.see(&place, body.as_object().cloned()).is_none());
        assert!(documents.status(&place).is_some());
        documents.forget_all();
        assert!(documents.status(&place).is_none());
    }

    /// One that was stored before it was refused ended the server at each start.
    #[tokio::test]
    async fn of_a_stored_document_that_is_too_large_no_values_are_made() {
        let (documents, database, _directory) = documents().await;
        let rev = fill(&database, 1, MAX_READ_BYTES).await.remove(0);
        let id = DocId::from(format!("{MAX_READ_BYTES}-0"));
        let name = id.clone();
        let stored = database.read(move |snapshot| stored(snapshot, name.as_str())).await.unwrap().unwrap();
        assert!(stored.bytes > MAX_READ_BYTES && stored.document.is_none());
        assert_eq!(stored.shown()["_replication_state"], "failed");
        assert!(documents.read_page(database.name(), &mut ReadPlace::default()).await.unwrap());
        let (home, place) = (documents.home(), JobDocument { database: database.name().clone(), id: id.clone() });
        assert!(!states::set_member(home, &place, ("paused", None)).await.unwrap());
        let change = StateChange::failed(None, "no");
        assert_eq!(states::write(home, database.name(), vec![(id.clone(), change)]).await.unwrap(), []);
        assert_eq!(database.update_seq(), 1);
        // Admins, and nobody else, take it away.
        let delete = async |caller: Caller| {
            let deletion = json!({"_rev": rev.to_string(), "_deleted": true}).to_string();
            let deletion = Edit::new(&DocParts::parse(deletion.as_bytes()).unwrap(), id.clone(), false, Vec::new());
            database.write(vec![deletion.unwrap()], &caller, Durability::Unsynced).await.unwrap().remove(0)
        };
        let ann = Caller { name: Some("ann".into()), ..Caller::default() };
        let refused = delete(ann).await.unwrap_err().to_string();
        assert_eq!(refused, "Can't update replication documents from other users.");
        delete(Caller::server_admin()).await.unwrap();
    }
}
