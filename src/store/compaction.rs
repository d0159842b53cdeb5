//! Compaction: a database's file copied without what is free in it, while readers and writers go on.
//!
//! The engine's own compaction needs the file for itself alone, for minutes. So the file is copied, as CouchDB does:
//!
//! 1. The writer begins to note which keys it changes ([`Changed`]), and a snapshot of that moment is copied to a file of
//!    its own beside the database's. Readers and writers know nothing of it.
//! 2. What was changed meanwhile is copied from a newer snapshot, and so on, each round shorter than the one before, until
//!    little is left.
//! 3. The writer itself copies that last bit between two transactions, and the small tables as a whole; commits and syncs
//!    the copy; renames it over the database's file, and syncs the directory. Then everyone who begins to read or write
//!    gets the new engine ([`Engine`]). Whoever reads the old file reads on; it has no name, and goes with its last reader.
//!
//! What holds at a crash: until the rename the old file is the database, and has every write that was answered; the copy is
//! litter, which the next opening removes ([`discard_left_over`]). The rename is one step of the file system, and what it
//! puts there is whole and synced. No write is made to the new file before the rename itself is synced, so that either
//! file that a power cut may leave under the name has all that was ever answered. Unsynced writes are synced by that too.
//!
//! A compaction that fails before the rename, because the disk is full for example, leaves the database as it was. If only the sync
//! of the rename fails, or the process ends before it, the next opening syncs it before anything is written. The copy takes as much
//! disk as the database needs, beside it, and a page cache more, as long as it takes. `instance_start_time`, seqs and blobs'
//! numbers stay, so that neither feeds, replications, uploads nor downloads notice. Nothing is copied to a closed database.

use std::path::Path;

use redb::{Key, ReadTransaction, TableDefinition, TableError, TableHandle, Value, WriteTransaction};

use super::StoreError;
use super::changed::Changed;
use super::copied::{FileCopy, Round, copy_path};
use super::engine::Engine;
use super::keys::{ATT_REFS, ATTS, BODIES, DOCS, INFO, Info, LOCAL, PURGES, SEQ_COUNTS, SEQS, SETTINGS, UPLOADS};
use super::work::{Done, Work, WriterHandle};
use crate::tasks;

/// Changed keys that are left to the writer itself: a few milliseconds.
const FEW: usize = 1000;
/// Rounds after which the rest is left to it anyway, since writers are as fast as the copy.
const ROUNDS: usize = 20;

/// Removes what a compaction that a crash ended has left. Blocks.
pub(super) fn discard_left_over(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(copy_path(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Compacts the file at `path`.
pub(super) async fn compact(writer: &WriterHandle, path: &Path, cache_bytes: usize) -> Result<(), StoreError> {
    let compacted = copy(writer, path, cache_bytes).await;
    if compacted.is_err() {
        // Whoever wrote it has nothing to note any more, or has ended.
        _ = writer.ask(Work::CompactionEnds).await;
        let path = path.to_owned();
        tasks::blocking("remove a copy", move || discard_left_over(&path)).await??;
    }
    compacted
}

async fn copy(writer: &WriterHandle, path: &Path, cache_bytes: usize) -> Result<(), StoreError> {
    let mut round = ask(writer, Work::CompactionBegins).await?;
    let (target, stop) = (copy_path(path), writer.clone());
    let mut engine = tasks::blocking("copy a database", move || {
        discard_left_over(&target)?;
        let mut engine = redb::Database::builder().set_cache_size(cache_bytes).create(&target)?;
        everything(&round.snapshot, &engine, &stop)?;
        drop(round);
        // What was free within the copy's own file.
        engine.compact()?;
        Ok::<_, StoreError>(engine)
    })
    .await??;
    for _ in 0..ROUNDS {
        round = ask(writer, Work::CompactionRound).await?;
        let few = round.changed.len() <= FEW;
        let catching_up = move || {
            let mut transaction = engine.begin_write()?;
            // The last step syncs all of it.
            transaction.set_durability(redb::Durability::None)?;
            catch_up(&round, &transaction)?;
            transaction.commit()?;
            Ok::<_, StoreError>(engine)
        };
        engine = tasks::blocking("catch up with a database", catching_up).await??;
        if few {
            break;
        }
    }
    let copy = FileCopy { engine, path: path.to_owned() };
    writer.ask(Work::Compacted(Box::new(copy))).await.map(drop)
}

async fn ask(writer: &WriterHandle, work: Work) -> Result<Round, StoreError> {
    match writer.ask(work).await? {
        Done::Round(round) => Ok(*round),
        _ => Err(StoreError::Closing),
    }
}

/// Copies all large tables of a snapshot.
fn everything(from: &ReadTransaction, to: &redb::Database, stop: &WriterHandle) -> Result<(), StoreError> {
    know_all_tables(from)?;
    let transaction = to.begin_write()?;
    table(from, &transaction, DOCS, stop)?;
    table(from, &transaction, SEQS, stop)?;
    table(from, &transaction, BODIES, stop)?;
    table(from, &transaction, LOCAL, stop)?;
    table(from, &transaction, ATTS, stop)?;
    table(from, &transaction, ATT_REFS, stop)?;
    Ok(transaction.commit()?)
}

/// A table that is added to the file, and not here, would be lost.
fn know_all_tables(from: &ReadTransaction) -> Result<(), StoreError> {
    let tables = [
        DOCS.name(),
        SEQS.name(),
        SEQ_COUNTS.name(),
        BODIES.name(),
        LOCAL.name(),
        ATTS.name(),
        ATT_REFS.name(),
        UPLOADS.name(),
        INFO.name(),
        PURGES.name(),
        SETTINGS.name(),
    ];
    match from.list_tables()?.all(|table| tables.contains(&table.name())) {
        true => Ok(()),
        false => Err(StoreError::Damaged("a table that compaction doesn't know")),
    }
}

/// Copies what was changed in the large tables.
fn catch_up(round: &Round, to: &WriteTransaction) -> Result<(), StoreError> {
    let Round { changed, snapshot: from } = round;
    keys(from, to, DOCS, changed.docs.iter().map(|id| &**id))?;
    keys(from, to, LOCAL, changed.local.iter().map(|id| &**id))?;
    keys(from, to, SEQS, changed.seqs.iter().copied())?;
    keys(from, to, BODIES, changed.bodies.iter().copied())?;
    keys(from, to, ATT_REFS, changed.att_refs.iter().copied())?;
    let (source, mut target) = (from.open_table(ATTS)?, to.open_table(ATTS)?);
    for &blob in &changed.blobs {
        let chunks = (blob, 0)..=(blob, u32::MAX);
        target.retain_in(chunks.clone(), |_, _| false)?;
        for row in source.range(chunks)? {
            let (key, chunk) = row?;
            target.insert(key.value(), chunk.value())?;
        }
    }
    Ok(())
}

/// The last step, which is the writer's own, between two of its transactions: nothing is written meanwhile. Blocks.
///
/// With an error the database is as it was.
pub(super) fn finish(copy: FileCopy, changed: Changed, info: Info, engine: &Engine) -> Result<(), StoreError> {
    let old = engine.now();
    let round = Round::new(changed, &old)?;
    know_all_tables(&round.snapshot)?;
    let mut transaction = copy.engine.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_quick_repair(true);
    catch_up(&round, &transaction)?;
    whole(&round.snapshot, &transaction, SEQ_COUNTS)?;
    whole(&round.snapshot, &transaction, UPLOADS)?;
    whole(&round.snapshot, &transaction, PURGES)?;
    whole(&round.snapshot, &transaction, SETTINGS)?;
    transaction.open_table(INFO)?.insert((), info.encode())?;
    transaction.commit()?;
    std::fs::rename(copy_path(&copy.path), &copy.path)?;
    drop(engine.change(copy.engine));
    Ok(())
}

/// Syncs that the file's name is the new file's. If this fails nothing may be written to it: a power cut may bring the old one
/// back.
pub(super) fn sync_name(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(path);
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(StoreError::Unnamed)
}

/// Copies a table.
fn table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    stop: &WriterHandle,
) -> Result<(), StoreError> {
    let Some(source) = opened(from.open_table(table))? else { return Ok(()) };
    let mut target = to.open_table(table)?;
    for row in redb::ReadableTable::iter(&source)? {
        let (key, value) = row?;
        target.insert(key.value(), value.value())?;
        if stop.is_closed() {
            return Err(StoreError::Closing);
        }
    }
    Ok(())
}

/// Copies a small table over what is there.
fn whole<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    to.delete_table(table)?;
    let Some(source) = opened(from.open_table(table))? else { return Ok(()) };
    let mut target = to.open_table(table)?;
    for row in redb::ReadableTable::iter(&source)? {
        let (key, value) = row?;
        target.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// Copies some keys of a table, or their absence.
fn keys<'k, K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    keys: impl Iterator<Item = K::SelfType<'k>>,
) -> Result<(), StoreError> {
    let (source, mut target) = (from.open_table(table)?, to.open_table(table)?);
    for key in keys {
        match source.get(&key)? {
            Some(value) => drop(target.insert(&key, value.value())?),
            None => drop(target.remove(&key)?),
        }
    }
    Ok(())
}

/// A table, if the file has it.
fn opened<T>(table: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
