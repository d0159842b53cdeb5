//! The embedded store: databases that are files.
//!
//! One file a database, named by a random number; a registry file maps names to files, so making and deleting a database
//! are atomic: a crash leaves at worst a file that no name points to. Handles of databases stay open while they are used
//! and, up to a number, while they are not. Everything that blocks runs on threads that may.
//!
//! Read in this order: `revtree` (what a document's revisions are), `keys` (how a file is laid out), `write` (one
//! transaction), `writer` (who runs them, and what survives a crash), `compaction`, `read`, `attachments`, `holds` (whose
//! bytes stay while they are read), `db_updates`, `edit`, `settings`, `database`, `validation`, `filter`.

mod error;
pub mod revtree;
mod selected;
mod name;
mod registry;
mod keys;
mod varint;
mod passwords;
mod prepared;
mod settings;
mod replaced;
mod stubs;
mod work;
mod counters;
mod write;
mod changed;
mod copied;
mod engine;
mod db_updates;
mod writer;
mod compaction;
mod read;
mod attachments;
mod holds;
mod ranks;
mod edit;
mod new_rev;
mod database;
mod caches;
mod validation;
mod filter;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use futures::future::join_all;
use tokio::sync::{MutexGuard, watch};
use tokio::time::{Duration, Instant};

pub use attachments::{Attachment, Upload, Uploaded};
pub use counters::StoreCounters;
pub use database::{Database, DatabaseStats, LocalRange, LocalRow};
pub use db_updates::{DbEvent, DbUpdate, DbUpdates};
pub use edit::{AttachmentData, Edit, EditKind, NewAttachment};
pub use error::StoreError;
pub use filter::{Filter, FilterError, FilterRequest, FilterRun, ReadyFilter};
pub use holds::OpenAttachment;
pub use name::DbName;
pub use ranks::Rank;
pub use read::render::{AttachmentsAs, DocOptions, Gap, Missing};
pub use read::text::{LocalDoc, StoredText};
pub use read::{ChangeRow, DocRecord, Snapshot};
pub use revtree::{Leaf, RevTree};
pub use work::{Durability, Refusal};

use self::caches::Caches;
use self::db_updates::Publisher;
use self::registry::{FileId, Registry};
use crate::config::StoreSettings;
use crate::javascript::Interpreters;
use crate::replicator_docs::writing::Check;
use crate::tasks::{self, Tasks};

/// Databases that are made, opened or closed at once.
const LOCKS: usize = 64;
/// Databases closed together beyond those that have become too many.
const CLOSED_AHEAD: usize = 16;

/// How long whoever asks for a database that ended by itself waits until others let go of it.
const LET_GO: Duration = Duration::from_secs(2);
/// Nothing tells of the last one that lets go.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All databases under one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    settings: StoreSettings,
    /// What finds out whether documents of replicator databases describe replications.
    check: Check,
    /// Held while a name is booked, on a thread that may block.
    registry: Mutex<Registry>,
    /// What the registry says. Guards nothing else; never held across an await.
    files: Mutex<BTreeMap<DbName, FileId>>,
    /// Databases that are open.
    open: DashMap<DbName, OpenDatabase>,
    /// The newest update seq of every database that was opened, as it changes: whoever waits for one needn't keep it
    /// open. Closes when the database is deleted or the store closes.
    updates: DashMap<FileId, Arc<watch::Sender<u64>>>,
    /// What happened to which database.
    db_updates: DbUpdates,
    /// Held while a database is made, opened, closed or deleted, each of which runs to its end once it has begun. Names
    /// are spread over them, so that one database's disk holds up few others. Nobody but [`Store::close`] holds two.
    changing: [tokio::sync::Mutex<Closed>; LOCKS],
    /// Held by whoever closes databases that have become too many; nothing that waits for it holds another lock.
    closing_excess: tokio::sync::Mutex<()>,
    /// Held by the one database that is compacted: it takes the disk's time from the others.
    compacting: tokio::sync::Mutex<()>,
    tasks: Tasks,
    /// Shared by all databases, so that their number is bounded.
    interpreters: Interpreters,
    caches: Caches,
    counters: Arc<StoreCounters>,
}

/// Whether the store is closed.
type Closed = bool;

struct OpenDatabase {
    database: Arc<Database>,
    last_used: Instant,
}

impl Store {
    /// Opens the store in `directory`, which is made if absent; only one process may have it open.
    ///
    /// Documents of replicator databases may say whatever they like; see [`Store::open_with`].
    pub async fn open(directory: &Path, settings: StoreSettings) -> Result<Self, StoreError> {
        Self::open_with(directory, settings, |_| Ok(())).await
    }

    /// The same; what `check` refuses is no document of a replicator database.
    pub async fn open_with(directory: &Path, settings: StoreSettings, check: Check) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        tasks::blocking("open the store", move || {
            make_private(&directory)?;
            let (registry, files) = Registry::open(&directory)?;
            let inner = Inner {
                directory,
                interpreters: Interpreters::new(settings.javascript.clone()),
                caches: Caches::new(settings.cache_bytes),
                settings,
                check,
                registry: Mutex::new(registry),
                db_updates: DbUpdates::new(files.keys()),
                files: Mutex::new(files),
                open: DashMap::new(),
                updates: DashMap::new(),
                closing_excess: tokio::sync::Mutex::default(),
                compacting: tokio::sync::Mutex::default(),
                changing: std::array::from_fn(|_| tokio::sync::Mutex::default()),
                tasks: Tasks::default(),
                counters: Arc::default(),
            };
            Ok(Self { inner: Arc::new(inner) })
        })
        .await?
    }

    /// Makes a database. [`StoreError::AlreadyExists`] if it is there.
    pub async fn create(&self, name: &DbName) -> Result<Arc<Database>, StoreError> {
        let (store, name) = (self.clone(), name.clone());
        let creating = async move {
            let created = store.create_whole(&name).await;
            store.close_excess().await;
            created
        };
        self.inner.tasks.to_its_end("create a database", creating).await?
    }

    async fn create_whole(&self, name: &DbName) -> Result<Arc<Database>, StoreError> {
        let _changing = self.inner.change(name).await?;
        if self.file(name).is_some() {
            return Err(StoreError::AlreadyExists);
        }
        let file = rand::random();
        let database = self.inner.clone().make_file(name.clone(), file).await?;
        self.inner.clone().register(name.clone(), Some(file)).await?;
        Ok(self.keep_open(name, database))
    }

    /// Makes a database if it isn't there.
    pub async fn ensure(&self, name: &DbName) -> Result<(), StoreError> {
        match self.create(name).await {
            Ok(_) | Err(StoreError::AlreadyExists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a database and all that is in it. [`StoreError::NoDatabase`] if it isn't there.
    ///
    /// Whoever still reads it reads on; whoever writes is answered [`StoreError::Closing`].
    pub async fn delete(&self, name: &DbName) -> Result<(), StoreError> {
        let (store, name) = (self.clone(), name.clone());
        self.inner.tasks.to_its_end("delete a database", async move { store.delete_whole(&name).await }).await?
    }

    async fn delete_whole(&self, name: &DbName) -> Result<(), StoreError> {
        let _changing = self.inner.change(name).await?;
        let file = self.file(name).ok_or(StoreError::NoDatabase)?;
        self.inner.clone().register(name.clone(), None).await?;
        self.inner.updates.remove(&file);
        if let Some((_, open)) = self.inner.open.remove(name) {
            open.close().await?;
        }
        let path = self.inner.path(file);
        tasks::blocking("delete a database's file", move || std::fs::remove_file(path)).await??;
        Ok(())
    }

    /// Opens a database. [`StoreError::NoDatabase`] if it isn't there.
    pub async fn database(&self, name: &DbName) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.opened(name) {
            return Ok(database);
        }
        let (store, name) = (self.clone(), name.clone());
        let opening = async move {
            let opened = store.open_whole(&name).await;
            store.close_excess().await;
            opened
        };
        self.inner.tasks.to_its_end("open a database", opening).await?
    }

    /// Opens a database that somebody waits for ([`Database::updates`]) without keeping it open.
    /// [`StoreError::NoDatabase`] if it was deleted, even if there is another one of its name.
    pub async fn reopen(&self, name: &DbName, updates: &watch::Receiver<u64>) -> Result<Arc<Database>, StoreError> {
        let database = self.database(name).await?;
        if database.updates().same_channel(updates) { Ok(database) } else { Err(StoreError::NoDatabase) }
    }

    async fn open_whole(&self, name: &DbName) -> Result<Arc<Database>, StoreError> {
        let _changing = self.inner.change(name).await?;
        if let Some(database) = self.opened(name) {
            return Ok(database);
        }
        let file = self.file(name).ok_or(StoreError::NoDatabase)?;
        // One whose writer crashed or gave up is opened anew, as soon as nobody uses it any more.
        if let Some((_, ended)) = self.inner.open.remove_if(name, |_, open| open.database.is_closed()) {
            let limit = Instant::now() + LET_GO;
            // Its writer may not have come to its end yet; one that takes longer is found out when the file is opened.
            _ = tokio::time::timeout_at(limit, ended.database.close()).await;
            while !unused(&ended) && Instant::now() < limit {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            tasks::blocking("close a database", move || drop(ended)).await?;
        }
        let database = self.inner.clone().open_file(name.clone(), file).await?;
        Ok(self.keep_open(name, database))
    }

    /// Has a database's file compacted some time, one after the other; [`DatabaseStats::compact_running`] tells until when. One
    /// that is being compacted already needn't be asked for again.
    pub fn compact(&self, database: Arc<Database>) {
        let Some(compaction) = database.begin_compaction() else { return };
        let inner = self.inner.clone();
        drop(self.inner.tasks.spawn("compact a database", async move {
            let _turn = inner.compacting.lock().await;
            compaction.run().await;
        }));
    }

    /// The names of all databases, sorted.
    pub fn names(&self) -> Vec<DbName> {
        self.inner.files().keys().cloned().collect()
    }

    /// What happened to which database since the start.
    pub fn db_updates(&self) -> DbUpdates {
        self.inner.db_updates.clone()
    }

    /// What its databases count together.
    pub fn counters(&self) -> &StoreCounters {
        &self.inner.counters
    }

    /// How many databases are open.
    pub fn open_databases(&self) -> usize {
        self.inner.open.len()
    }

    /// Bytes of all databases' files.
    pub async fn file_bytes(&self) -> Result<u64, StoreError> {
        let inner = self.inner.clone();
        let sum = move || {
            let files: Vec<_> = inner.files().values().copied().collect();
            // One that was deleted meanwhile takes no room.
            files.iter().filter_map(|file| Some(std::fs::metadata(inner.path(*file)).ok()?.len())).sum()
        };
        Ok(tasks::blocking("measure the databases' files", sum).await?)
    }

    /// Syncs and closes all databases; later operations answer [`StoreError::Closing`].
    pub async fn close(&self) {
        let mut changing = join_all(self.inner.changing.iter().map(tokio::sync::Mutex::lock)).await;
        changing.iter_mut().for_each(|closed| **closed = true);
        let open: Vec<_> = self.inner.open.iter().map(|open| open.database.clone()).collect();
        self.inner.open.clear();
        join_all(open.iter().map(|database| database.close())).await;
        self.inner.updates.clear();
        self.inner.db_updates.close();
    }

    fn file(&self, name: &DbName) -> Option<FileId> {
        self.inner.files().get(name).copied()
    }

    fn opened(&self, name: &DbName) -> Option<Arc<Database>> {
        let mut open = self.inner.open.get_mut(name).filter(|open| !open.database.is_closed())?;
        open.last_used = Instant::now();
        Some(open.database.clone())
    }

    fn keep_open(&self, name: &DbName, database: Arc<Database>) -> Arc<Database> {
        let last_used = Instant::now();
        self.inner.open.insert(name.clone(), OpenDatabase { database: database.clone(), last_used });
        database
    }

    /// Closes the databases that nobody has used for longest if there are too many; some more than need be, so that the
    /// next ones to be opened needn't look for others.
    async fn close_excess(&self) {
        let (open, limit) = (&self.inner.open, self.inner.settings.open_databases);
        if open.len() <= limit {
            return;
        }
        // Whoever waits here waits for what would be theirs to close.
        let _closing = self.inner.closing_excess.lock().await;
        let excess = open.len().saturating_sub(limit);
        if excess == 0 {
            return;
        }
        let mut idle: Vec<_> =
            open.iter().filter(|open| unused(open)).map(|open| (open.last_used, open.key().clone())).collect();
        idle.sort();
        idle.truncate(excess + CLOSED_AHEAD.min(limit / 10));
        join_all(idle.iter().map(|(_, name)| self.close_unused(name))).await;
    }

    async fn close_unused(&self, name: &DbName) {
        let Ok(_changing) = self.inner.change(name).await else { return };
        // Somebody may have taken it up since; a handle that is given out is given out under the map's lock.
        if let Some((_, closing)) = self.inner.open.remove_if(name, |_, open| unused(open)) {
            // An engine that fails to close is found out when it is opened again.
            _ = closing.close().await;
        }
    }
}

impl OpenDatabase {
    /// Ends its writer, and closes its file if nobody else has it.
    async fn close(self) -> Result<(), StoreError> {
        self.database.close().await;
        // The engine writes and syncs once more.
        Ok(tasks::blocking("close a database", move || drop(self)).await?)
    }
}

/// Makes a directory that nobody else may look into: hashes of passwords will be in it.
fn make_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory)
}

/// Whether nobody has the database: neither its handle, nor its file by a read that outlived its caller.
fn unused(open: &OpenDatabase) -> bool {
    Arc::strong_count(&open.database) == 1 && open.database.is_idle()
}

impl Inner {
    /// Waits until nobody else makes, opens, closes or deletes the database.
    async fn change(&self, name: &DbName) -> Result<MutexGuard<'_, Closed>, StoreError> {
        let place = BuildHasherDefault::<DefaultHasher>::default().hash_one(name) as usize % LOCKS;
        let changing = self.changing[place].lock().await;
        if *changing { Err(StoreError::Closing) } else { Ok(changing) }
    }

    /// Where the database's updates are told.
    fn updates(&self, file: FileId) -> Arc<watch::Sender<u64>> {
        self.updates.entry(file).or_default().clone()
    }

    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<DbName, FileId>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files lie in 256 directories, so that none grows too long.
    fn path(&self, file: FileId) -> PathBuf {
        let name = format!("{file:032x}");
        self.directory.join("databases").join(&name[..2]).join(format!("{name}.redb"))
    }

    async fn open_file(self: Arc<Self>, name: DbName, file: FileId) -> Result<Arc<Database>, StoreError> {
        let path = self.path(file);
        tasks::blocking("open a database", move || {
            // The engine would make a missing file anew, and everyone would take the database for an empty one.
            let there = path.try_exists()?;
            there.then_some(()).ok_or(StoreError::Damaged("a database's file is missing"))?;
            Ok(Arc::new(self.open_at(name, &path, file)?))
        })
        .await?
    }

    fn open_at(&self, name: DbName, path: &Path, file: FileId) -> Result<Database, StoreError> {
        let publisher = Publisher { name, latest: self.updates(file), log: self.db_updates.clone() };
        let (interpreters, cache) = (self.interpreters.clone(), self.caches.cache());
        let tasks = (&self.tasks, &self.counters);
        Database::open(publisher, path, (&self.settings, self.check), tasks, interpreters, cache)
    }

    /// Makes a database's file, so that it is there after a power cut once a name points to it.
    async fn make_file(self: Arc<Self>, name: DbName, file: FileId) -> Result<Arc<Database>, StoreError> {
        let path = self.path(file);
        tasks::blocking("make a database", move || {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
            // What nobody knows of would take its place for ever.
            let database = self.open_at(name, &path, file).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
            // The shard, `databases`, and the data directory.
            for directory in path.ancestors().skip(1).take(3) {
                std::fs::File::open(directory)?.sync_all()?;
            }
            Ok(Arc::new(database))
        })
        .await?
    }

    /// Books a name (or, with no file, strikes it out) before anyone is told.
    async fn register(self: Arc<Self>, name: DbName, file: Option<FileId>) -> Result<(), StoreError> {
        tasks::blocking("register a database", move || {
            let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            registry.book(&name, file)?;
            match file {
                Some(file) => {
                    self.files().insert(name.clone(), file);
                    self.db_updates.note(&name, DbEvent::Created);
                }
                None => {
                    self.files().remove(&name);
                    self.db_updates.note(&name, DbEvent::Deleted);
                }
            }
            Ok(())
        })
        .await?
    }
}
