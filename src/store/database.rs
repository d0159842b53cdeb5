//! One open database, as everyone else uses it: readers that never wait, and one writer.
//!
//! Readers take snapshots on threads that may block; they neither wait for the writer nor hold it up. Every write is a
//! request to the database's writer (`writer.rs`), which says what survives a crash.

mod local_docs;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::ReadableDatabase;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::local_docs::{LocalRange, LocalRow};
use super::attachments::CHUNK_BYTES;
use super::attachments::Upload;
use super::caches::Cache;
use super::compaction;
use super::counters::StoreCounters;
use super::db_updates::Publisher;
use super::edit::{AttachmentData, Edit, EditKind, NewAttachment};
use super::engine::Engine;
use super::holds::{Holds, OpenAttachment};
use super::keys::ATTS;
use super::passwords::hash_passwords;
use super::prepared::Prepared;
use super::ranks::Ranks;
use super::read::Snapshot;
use super::settings::{DatabaseSettings, Setting};
use super::validation::Rules;
use super::work::{Done, Durability, Refusal, Work, WriterHandle};
use super::writer;
use super::{DbName, StoreError};
use crate::access::{Caller, Security};
use crate::config::StoreSettings;
use crate::document::{DocId, Rev};
use crate::javascript::Interpreters;
use crate::replicator_docs::Reader;
use crate::replicator_docs::writing::{Author, Check};
use crate::tasks::{self, Tasks};

/// Chunks of an attachment that are read at once: few, since each of many slow readers holds what was read for it.
const CHUNKS_AT_ONCE: usize = 1;

/// Numbers for `GET /{db}`.
#[derive(Debug, Clone)]
pub struct DatabaseStats {
    /// Documents that aren't deleted.
    pub doc_count: u64,
    /// Documents that are.
    pub doc_del_count: u64,
    /// The newest update.
    pub update_seq: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of bodies of leaves and of attachments.
    pub active_size: u64,
    /// Documents that purges named.
    pub purge_seq: u64,
    /// How many purges are to be remembered.
    pub purged_infos_limit: u64,
    /// Whether the file is being compacted, or is about to.
    pub compact_running: bool,
    /// Microseconds since 1970, as text; changes when unsynced writes may have been lost.
    pub instance_start_time: String,
}

impl DatabaseStats {
    /// What `GET /{db}` answers.
    pub fn info(&self, name: &str) -> Value {
        json!({
            "instance_start_time": self.instance_start_time,
            "db_name": name,
            "purge_seq": self.purge_seq,
            "update_seq": self.update_seq,
            // CouchDB 1.x's word for it: without it Futon's list of databases breaks off.
            "disk_size": self.file_size,
            "sizes": { "file": self.file_size, "external": self.active_size, "active": self.active_size },
            "props": {},
            "doc_del_count": self.doc_del_count,
            "doc_count": self.doc_count,
            "disk_format_version": 8,
            "compact_running": self.compact_running,
            "cluster": { "q": 1, "n": 1, "w": 1, "r": 1 },
        })
    }
}

/// One open database.
#[derive(Debug)]
pub struct Database {
    name: DbName,
    engine: Engine,
    writer: WriterHandle,
    holds: Holds,
    settings: DatabaseSettings,
    ranks: Ranks,
    updates: watch::Receiver<u64>,
    instance_start_time: String,
    path: Box<Path>,
    interpreters: Interpreters,
    password_iterations: NonZeroU32,
    check: Check,
    /// What writes were last judged by; none before the first write. Guards nothing else; never held across an await.
    rules: Mutex<Option<Arc<Rules>>>,
    compacting: AtomicBool,
    /// After the engine, since the engine fills it.
    cache: Cache,
}

/// The right to compact a database's file, and the database, which stays open for it.
pub(super) struct Compaction(Arc<Database>);

impl Drop for Compaction {
    fn drop(&mut self) {
        self.0.compacting.store(false, Ordering::Relaxed);
    }
}

impl Compaction {
    /// Compacts it. What comes of it stands in the log.
    pub(super) async fn run(self) {
        let Database { name, writer, path, cache, .. } = &*self.0;
        match compaction::compact(writer, path, cache.bytes()).await {
            Ok(()) => tracing::info!(db = %name, "compacted"),
            Err(StoreError::Closing) => tracing::debug!(db = %name, "not compacted: the database was closed"),
            Err(error) => {
                tracing::warn!(db = %name, error = &error as &dyn std::error::Error, "not compacted");
            }
        }
    }
}

/// Bytes of new revisions that are hashed where they are asked for: some ten microseconds, as another thread takes to begin.
const HASHED_AT_ONCE: usize = 8 << 10;

impl Database {
    /// Opens the file, or makes it. Blocks.
    pub(super) fn open(
        publisher: Publisher,
        path: &Path,
        (settings, check): (&StoreSettings, Check),
        tasks: (&Tasks, &Arc<StoreCounters>),
        interpreters: Interpreters,
        cache: Cache,
    ) -> Result<Self, StoreError> {
        let engine = redb::Database::builder().set_cache_size(cache.bytes()).create(path);
        let engine = Engine::new(engine.map_err(|error| match error {
            // Somebody still reads what was closed.
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Closing,
            error => error.into(),
        })?);
        compaction::discard_left_over(path)?;
        // A compaction may have ended between its rename and the sync of that.
        compaction::sync_name(path)?;
        let (name, updates) = (publisher.name.clone(), publisher.latest.subscribe());
        let holds = Holds::default();
        let told = DatabaseSettings::read(&engine.now())?;
        let (writer, instance_start_time) =
            writer::start(engine.clone(), settings, tasks, publisher, holds.clone(), told.clone())?;
        Ok(Self {
            name,
            engine,
            writer,
            holds,
            settings: told,
            ranks: Ranks::default(),
            updates,
            instance_start_time,
            path: path.into(),
            interpreters,
            password_iterations: settings.password_iterations,
            check,
            rules: Mutex::default(),
            compacting: AtomicBool::new(false),
            cache,
        })
    }

    /// Its name.
    pub fn name(&self) -> &DbName {
        &self.name
    }

    pub(super) fn writer(&self) -> &WriterHandle {
        &self.writer
    }

    /// How often anybody read.
    #[cfg(test)]
    pub(super) fn reads(&self) -> u64 {
        self.holds.reads()
    }

    /// What writes were last judged by.
    pub(super) fn known_rules(&self) -> Option<Arc<Rules>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what writes are judged by.
    pub(super) fn keep_rules(&self, rules: Arc<Rules>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
    }

    /// What finds out whether documents of a replicator database describe replications.
    pub(super) fn check(&self) -> Check {
        self.check
    }

    /// Whoever reads documents without seeing others' credentials; `None` if all that is in them is for the caller to see.
    pub fn reader(&self, caller: &Caller) -> Option<Reader> {
        (self.name.is_replicator() && !self.security().is_admin(caller)).then(|| Reader::new(caller))
    }

    /// Who runs functions of design documents.
    pub(super) fn interpreters(&self) -> &Interpreters {
        &self.interpreters
    }

    /// Numbers for `GET /{db}`.
    pub async fn stats(&self) -> Result<DatabaseStats, StoreError> {
        let (path, instance_start_time) = (self.path.clone(), self.instance_start_time.clone());
        let compact_running = self.compacting.load(Ordering::Relaxed);
        self.read(move |snapshot| {
            let (info, purges) = (snapshot.info(), snapshot.purges()?);
            Ok(DatabaseStats {
                doc_count: info.doc_count,
                doc_del_count: info.doc_del_count,
                update_seq: info.update_seq,
                file_size: std::fs::metadata(path)?.len(),
                active_size: info.active_size,
                purge_seq: purges.purge_seq,
                purged_infos_limit: purges.infos_limit,
                compact_running,
                instance_start_time,
            })
        })
        .await
    }

    /// Who its admins and members are, without waiting.
    pub fn security(&self) -> Arc<Security> {
        self.settings.security()
    }

    /// Changes that; synced when it is answered.
    pub async fn set_security(&self, security: Security) -> Result<(), StoreError> {
        self.writer.ask(Work::Set(Setting::Security(Arc::new(security)))).await.map(drop)
    }

    /// Revisions of a path that are kept.
    pub fn revs_limit(&self) -> usize {
        self.settings.revs_limit()
    }

    /// Changes that for what is written from now on; synced when it is answered. At least 1.
    pub async fn set_revs_limit(&self, limit: usize) -> Result<(), StoreError> {
        self.writer.ask(Work::Set(Setting::RevsLimit(limit.max(1)))).await.map(drop)
    }

    /// The newest update's seq, without waiting.
    pub fn update_seq(&self) -> u64 {
        *self.updates.borrow()
    }

    /// Tells of every new update seq, whether this handle is kept or not ([`super::Store::reopen`]); closes when the
    /// database is deleted or the store closes.
    pub fn updates(&self) -> watch::Receiver<u64> {
        self.updates.clone()
    }

    /// Reads a snapshot on a thread that may block.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_at(None, work).await
    }

    /// The same, of a snapshot that was taken before, if there is one.
    pub async fn read_at<T: Send + 'static>(
        &self,
        snapshot: Option<Arc<Snapshot>>,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // What is read is held before the engine is taken: else a compaction may come between.
        let (reading, engine, ranks) = (self.holds.read(&self.writer), self.engine.now(), self.ranks.clone());
        self.blocking("read a database", move || match snapshot {
            Some(snapshot) => work(&snapshot),
            None => work(&Snapshot::new(engine, reading, ranks)?),
        })
        .await
    }

    /// Takes a snapshot to be read more than once. Whoever keeps it keeps the database open too: with this handle.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, StoreError> {
        // What is read is held before the engine is taken: else a compaction may come between.
        let (reading, engine, ranks) = (self.holds.read(&self.writer), self.engine.now(), self.ranks.clone());
        self.blocking("take a snapshot", move || Snapshot::new(engine, reading, ranks).map(Arc::new)).await
    }

    /// Reads on a thread that may block. Where the disk fails, the engine is done with the file: it is opened anew.
    async fn blocking<T: Send + 'static>(
        &self,
        task: &'static str,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = tasks::blocking(task, read).await?;
        if read.as_ref().is_err_and(StoreError::is_fatal) {
            self.writer.give_up();
        }
        read
    }

    /// Writes documents in one transaction with whatever else waits; answers in order, one revision or refusal an edit.
    ///
    /// `author` is who asks for it: design documents judge by that (`validation.rs`).
    pub async fn write(
        &self,
        edits: Vec<Edit>,
        author: &Caller,
        durability: Durability,
    ) -> Result<Vec<Result<Rev, Refusal>>, StoreError> {
        let edits = self.own_rules(edits, author).await?;
        let hashed = |edit: &&Edit| matches!(edit.kind, EditKind::New { .. });
        let inline = |attachment: &NewAttachment| matches!(attachment.data, AttachmentData::Inline { .. });
        let takes_time = edits.iter().filter(hashed).map(|edit| edit.body.len()).sum::<usize>() > HASHED_AT_ONCE
            || edits.iter().flat_map(|edit| &edit.attachments).any(inline);
        let prepare =
            |edits: Vec<Edit>| edits.into_iter().enumerate().map(Prepared::new).collect::<Result<Vec<_>, _>>();
        let edits = match takes_time {
            true => tasks::blocking("prepare edits", move || prepare(edits)).await??,
            false => prepare(edits)?,
        };
        self.write_judged(edits, author, durability).await
    }

    /// Changes edits as the databases of users and of replications have it, before anything is made of them.
    async fn own_rules(&self, mut edits: Vec<Edit>, author: &Caller) -> Result<Vec<Edit>, StoreError> {
        if self.name.is_users() {
            let is_admin = self.security().is_admin(author);
            return hash_passwords(edits, (author, is_admin), self.password_iterations).await;
        }
        if self.name.is_replicator() {
            let author = Author { caller: author, is_admin: self.security().is_admin(author) };
            for edit in edits.iter_mut().filter(|edit| !edit.id.is_design()) {
                edit.body = author.own(std::mem::take(&mut edit.body));
            }
        }
        Ok(edits)
    }

    /// Purges the leaves among these revisions, synced; answers which of each document's were leaves, in order.
    ///
    /// They go as if they had never been written: out of the feed, the counts and the history of what is left.
    pub async fn purge(&self, documents: Vec<(DocId, Vec<Rev>)>) -> Result<Vec<Vec<Rev>>, StoreError> {
        match self.writer.ask(Work::Purge { documents }).await? {
            Done::Purged(purged) => Ok(purged),
            _ => Err(StoreError::Closing),
        }
    }

    /// Sets how many purges are to be remembered.
    pub async fn set_purged_infos_limit(&self, limit: u64) -> Result<(), StoreError> {
        self.writer.ask(Work::PurgedInfosLimit(limit)).await.map(drop)
    }

    /// Syncs everything written so far; answers `instance_start_time`.
    pub async fn ensure_full_commit(&self) -> Result<String, StoreError> {
        self.writer.ask(Work::Sync).await?;
        Ok(self.instance_start_time.clone())
    }

    /// Starts to take an attachment's bytes. `gzipped`: they come gzipped and stay so; otherwise text is gzipped here.
    pub fn upload(&self, content_type: &str, gzipped: bool) -> Upload {
        Upload::new(self.writer.clone(), content_type, gzipped)
    }

    /// Reads a piece of an attachment's stored bytes, some ten KiB from `offset` on; empty at the end.
    ///
    /// Each piece is read from a snapshot of its own, so a slow reader holds no old pages.
    pub async fn attachment_piece(&self, attachment: &OpenAttachment, offset: u64) -> Result<Bytes, StoreError> {
        if offset >= attachment.attachment().stored_length {
            return Ok(Bytes::new());
        }
        let (engine, blob) = (self.engine.now(), attachment.blob());
        self.blocking("read an attachment", move || {
            let transaction = engine.begin_read()?;
            let first = (offset / CHUNK_BYTES as u64) as u32;
            let mut piece = Vec::with_capacity(CHUNKS_AT_ONCE * CHUNK_BYTES);
            for row in transaction.open_table(ATTS)?.range((blob, first)..=(blob, u32::MAX))?.take(CHUNKS_AT_ONCE) {
                piece.extend_from_slice(row?.1.value());
            }
            let within = (offset % CHUNK_BYTES as u64) as usize;
            let piece = Bytes::from(piece);
            if piece.len() <= within {
                Err(StoreError::Damaged("an attachment is cut"))
            } else {
                Ok(piece.slice(within..))
            }
        })
        .await
    }

    /// Whether nothing can be written any more: it was closed, or its writer crashed.
    pub(super) fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    /// Begins to compact the file; `None` if somebody does already.
    pub(super) fn begin_compaction(self: Arc<Self>) -> Option<Compaction> {
        (!self.compacting.swap(true, Ordering::Relaxed)).then(|| Compaction(self))
    }

    /// Where its file is.
    #[cfg(test)]
    pub(super) fn file(&self) -> &Path {
        &self.path
    }

    /// Its engine of now.
    #[cfg(test)]
    pub(super) fn engine(&self) -> Arc<redb::Database> {
        self.engine.now()
    }

    /// Whether its file is being compacted, or is about to.
    #[cfg(test)]
    pub(super) fn is_compacting(&self) -> bool {
        self.compacting.load(Ordering::Relaxed)
    }

    /// Whether nobody holds the file but to write to it again: a read runs to its end even if its caller is gone.
    pub(super) fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// Ends the writer after a sync; later writes are answered [`StoreError::Closing`].
    pub(super) async fn close(&self) {
        self.writer.close().await;
    }
}
