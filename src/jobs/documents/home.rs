//! Where documents of replications are: in the embedded store, or in the CouchDB beside which this server stands.
//!
//! Both are asked the same few things: which databases there are and what happens to them, pages of a database's feed, single
//! documents, and to write some over the revisions that were read. What documents mean, and what is written into them, is nothing to either.
//!
//! A CouchDB has a document processor of its own, which goes on while its scheduler stands still. It reads what is written here, so nothing
//! is written there that it doesn't know ([`DocumentHome::has_processor`]), and its word on a document stands.

mod reading;
mod store;
mod couchdb;
mod listening;

use futures::{StreamExt as _, stream};
use serde_json::{Map, Value};
use tokio::sync::watch;

use self::couchdb::OfCouchDb;
pub use self::reading::{NotPut, PAGE_BYTES, ROWS, ReadPage, ReadPlace, Stored};
use self::store::OfStore;
pub use self::store::stored;
use crate::access::Caller;
use crate::beside::{AdminError, CouchDbAsAdmin};
use crate::document::DocId;
use crate::jobs::replication::JobDocument;
use crate::peer::PeerError;
use crate::replicate::ReplicateError;
use crate::store::{DbEvent, DbName, DbUpdates, Store, StoreError};

/// Jobs that are taken off a CouchDB's scheduler at once: each asks all of its nodes.
const ENDS_AT_ONCE: usize = 8;

/// Where they are. Cheap to clone.
#[derive(Clone)]
pub enum DocumentHome {
    /// In the store.
    Store(OfStore),
    /// In a CouchDB.
    CouchDb(OfCouchDb),
}

/// They can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Of the CouchDB.
    #[error(transparent)]
    CouchDb(#[from] AdminError),
}

impl HomeError {
    /// Whether the database isn't there, in its server's own words.
    pub fn is_no_database(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::NoDatabase),
            Self::CouchDb(error) => error.is_not_found(),
        }
    }
}

impl From<HomeError> for ReplicateError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Store(error) => PeerError::from(error).into(),
            HomeError::CouchDb(error) => Self::CouchDb(std::sync::Arc::new(error)),
        }
    }
}

/// What happens to the databases; each time from where it was asked last.
pub struct HomeUpdates {
    updates: DbUpdates,
    since: u64,
    watch: watch::Receiver<u64>,
}

/// Rows that are looked at together.
const UPDATES: usize = 1000;

impl HomeUpdates {
    fn new(updates: DbUpdates) -> Self {
        let watch = updates.watch();
        Self { updates, since: 0, watch }
    }

    /// Some of what happened since the last time; `None`: nothing.
    pub fn take(&mut self) -> Option<Vec<(DbName, DbEvent)>> {
        let rows = self.updates.since(self.since, UPDATES);
        self.since = rows.last()?.seq;
        Some(rows.into_iter().filter(|row| row.name.is_replicator()).map(|row| (row.name, row.event)).collect())
    }

    /// Waits until something may have happened; `false`: nothing will any more.
    pub async fn changed(&mut self) -> bool {
        self.watch.changed().await.is_ok()
    }
}

impl DocumentHome {
    /// The embedded store.
    pub fn of_store(store: Store) -> Self {
        Self::Store(OfStore::new(store))
    }

    /// A CouchDB, asked as its admin.
    pub fn of_couchdb(admin: CouchDbAsAdmin) -> Self {
        Self::CouchDb(OfCouchDb::new(admin))
    }

    /// Finds out what happens to the databases, where nobody tells; doesn't end.
    pub async fn listen(&self) {
        match self {
            Self::Store(_) => std::future::pending().await,
            Self::CouchDb(couchdb) => couchdb.listen().await,
        }
    }

    /// Whether something else reads these documents too and writes into them: CouchDB's own document processor. It marks duplicates, knows
    /// no state `crashing`, and crashes if it reads one.
    pub fn has_processor(&self) -> bool {
        matches!(self, Self::CouchDb(_))
    }

    /// The databases that hold such documents, as far as they are known.
    pub fn names(&self) -> Vec<DbName> {
        match self {
            Self::Store(store) => store.names(),
            Self::CouchDb(couchdb) => couchdb.names(),
        }
    }

    /// What happens to them, from the beginning.
    pub fn updates(&self) -> HomeUpdates {
        HomeUpdates::new(match self {
            Self::Store(store) => store.updates(),
            Self::CouchDb(couchdb) => couchdb.updates(),
        })
    }

    /// Whether somebody may write into a database what is his own, as far as that is known before he does: a CouchDB says it then.
    pub async fn may_open(&self, name: &DbName, caller: &Caller) -> Result<(), ReplicateError> {
        match self {
            Self::Store(store) => Ok(store.may_open(name, caller).await.map_err(HomeError::from)??),
            Self::CouchDb(_) => Ok(()),
        }
    }

    /// Has nobody else begin jobs that have come to their ends here: a CouchDB's scheduler knows those of documents, too.
    pub async fn end_elsewhere(&self, ids: Vec<String>) {
        if let Self::CouchDb(couchdb) = self {
            stream::iter(ids).for_each_concurrent(ENDS_AT_ONCE, |id| async move { couchdb.end_job(&id).await }).await;
        }
    }

    /// Reads on in a database, and moves the place.
    pub async fn page(&self, name: &DbName, place: &mut ReadPlace) -> Result<ReadPage, HomeError> {
        match self {
            Self::Store(store) => Ok(store.page(name, place).await?),
            Self::CouchDb(couchdb) => {
                let page = couchdb.page(name, place).await;
                match couchdb.believed(name, page) {
                    // Its deletion is told in its own time.
                    Err(error) if error.is_not_found() => Ok(ReadPage::default()),
                    page => Ok(page?),
                }
            }
        }
    }

    /// Documents of a database as they are now, in the order of the ids; one that can't be read holds up no other. Not of all ids, but of
    /// as many as may be held at once, the first ones, and of one at least.
    pub async fn documents(
        &self,
        name: &DbName,
        ids: Vec<DocId>,
    ) -> Result<Vec<Result<Option<Stored>, HomeError>>, HomeError> {
        match self {
            Self::Store(store) => {
                let found = store.documents(name, ids).await?;
                Ok(found.into_iter().map(|found| found.map_err(HomeError::from)).collect())
            }
            Self::CouchDb(couchdb) => {
                let found = couchdb.documents(name, &ids).await;
                Ok(couchdb.believed(name, found)?.into_iter().map(Ok).collect())
            }
        }
    }

    /// One document; `None` if it isn't there.
    pub async fn document(&self, place: &JobDocument) -> Result<Option<Stored>, HomeError> {
        self.documents(&place.database, vec![place.id.clone()]).await?.pop().unwrap_or(Ok(None))
    }

    /// Writes documents over the revisions that they name, `_deleted` among their members or not, as somebody who may or may not.
    /// `synced`: none of them may be lost by a crash.
    pub async fn put(
        &self,
        name: &DbName,
        documents: Vec<(DocId, Map<String, Value>)>,
        author: &Caller,
        synced: bool,
    ) -> Result<Vec<Result<(), NotPut>>, HomeError> {
        match self {
            Self::Store(store) => Ok(store.put(name, documents, author, synced).await?),
            Self::CouchDb(couchdb) => {
                let put = couchdb.put(name, documents, author).await;
                Ok(couchdb.believed(name, put)?)
            }
        }
    }
}
