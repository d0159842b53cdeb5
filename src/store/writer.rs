//! The one writer of a database: a task that turns whatever waits into one transaction.
//!
//! Group commit, because a commit costs about as much as a dozen documents. What it promises about crashes:
//! - A synced write that was answered survives. A call's documents survive all or none.
//! - An unsynced write (`X-Couch-Full-Commit: false`) is synced by the next synced one, by `ensure_full_commit`, or
//!   within [`StoreSettings::sync_interval`].
//! - `instance_start_time` changes at the next opening exactly if unsynced writes may have been lost: the first
//!   unsynced write after a sync marks the file and is itself synced, and the next sync takes the mark off. An opening
//!   that finds the mark also skips [`SEQ_GAP`] update seqs, so that no seq which somebody saw before the crash stands
//!   for another change after it.
//!
//! A transaction that fails changed nothing; everyone in its group is told why. Where the disk failed, because it is full
//! for example, the engine does nothing more with the file, and the writer ends: the database is opened anew by whoever
//! asks for it next, as after a crash.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{ReadableDatabase, ReadableTableMetadata};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::changed::Changed;
use super::compaction;
use super::copied::Round;
use super::counters::StoreCounters;
use super::db_updates::Publisher;
use super::engine::Engine;
use super::holds::Holds;
use super::keys::{INFO, Info, UPLOADS};
use super::settings::DatabaseSettings;
use super::work::{Done, Durability, Reply, Work, WriterHandle};
use super::write::Transaction;
use crate::config::StoreSettings;
use crate::tasks::{self, Tasks};

/// Requests that wait before others must wait to queue.
const QUEUE: usize = 64;
/// Requests that become one transaction at most, so that the first of them needn't wait long.
const GROUP: usize = 32;
/// Seqs skipped after an unclean end: more than could be written between two syncs.
const SEQ_GAP: u64 = 1 << 20;

/// Opens a database for writing and starts its writer. Blocks.
///
/// Answers where to ask, and `instance_start_time`; `publisher` is told the newest update's seq as it changes.
pub(super) fn start(
    engine: Engine,
    settings: &StoreSettings,
    (tasks, counters): (&Tasks, &Arc<StoreCounters>),
    publisher: Publisher,
    holds: Holds,
    told: DatabaseSettings,
) -> Result<(WriterHandle, String), StoreError> {
    let stored = stored_info(&engine.now())?;
    let mut info = stored.unwrap_or_default();
    if info.unsynced {
        info.update_seq += SEQ_GAP;
    }
    if info.unsynced || stored.is_none() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64);
        info.instance_start_time = now.max(info.instance_start_time + 1);
    }
    let generation = Arc::new(AtomicU64::new(0));
    let mut writer = Writer {
        engine,
        info,
        generation: generation.clone(),
        publisher,
        holds,
        told,
        free: Vec::new(),
        noted: None,
        counters: counters.clone(),
    };
    match info.unsynced {
        // Updates that were told of before may be lost.
        true => writer.publisher.publish(info.update_seq),
        false => writer.publisher.begin(info.update_seq),
    }
    if info.unsynced || stored.is_none() || has_uploads(&writer.engine.now())? {
        // Makes the tables, and drops the blobs that no document refers to: an end, clean or not, may come between.
        writer.commit(Durability::Synced, |transaction| transaction.discard_uploads())?;
    }
    let (requests, queue) = mpsc::channel(QUEUE);
    let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
    let handle =
        WriterHandle { requests, closing: closing.clone(), ended: ended.clone(), failure: Arc::default(), generation };
    let running = run(writer, queue, closing, handle.failure.clone(), settings.sync_interval);
    let end = ended.drop_guard();
    tasks.spawn("database writer", async move {
        running.await;
        drop(end);
    });
    Ok((handle, info.instance_start_time.to_string()))
}

fn stored_info(engine: &redb::Database) -> Result<Option<Info>, StoreError> {
    match engine.begin_read()?.open_table(INFO) {
        Ok(table) => Ok(table.get(())?.map(|stored| Info::decode(stored.value()))),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn has_uploads(engine: &redb::Database) -> Result<bool, StoreError> {
    Ok(!engine.begin_read()?.open_table(UPLOADS)?.is_empty()?)
}

/// Serves groups of requests until told to close, or until nobody is left who could ask.
async fn run(
    mut writer: Writer,
    mut queue: mpsc::Receiver<(Work, Option<Reply>)>,
    closing: CancellationToken,
    failure: Arc<OnceLock<Arc<StoreError>>>,
    sync_interval: Duration,
) {
    let mut group = Vec::with_capacity(GROUP);
    let mut sync_at = None;
    loop {
        // Whoever waits meanwhile is served in the same transaction.
        group.extend(writer.free.drain(..).map(|blob| (Work::Discard { blob }, None)));
        while group.len() < GROUP
            && !group.is_empty()
            && let Ok(request) = queue.try_recv()
        {
            group.push(request);
        }
        let (received, due) = tokio::select! {
            biased;
            () = std::future::ready(()), if !group.is_empty() => (group.len(), false),
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            () = sleep_until(sync_at.unwrap_or_else(Instant::now)), if sync_at.is_some() => {
                group.push((Work::Sync, None));
                (1, true)
            }
            received = queue.recv_many(&mut group, GROUP) => (received, false),
        };
        if received == 0 {
            break;
        }
        let requests = std::mem::replace(&mut group, Vec::with_capacity(GROUP));
        let served = tasks::blocking("write to a database", move || {
            let served = writer.serve(requests);
            (writer, served)
        });
        match served.await {
            Ok((served, Ok(()))) => writer = served,
            // Dropping the queue refuses whoever waits in it.
            Ok((_, Err(error))) => return drop(failure.set(error)),
            // Its state is gone with it; the next opening makes a new one from the file.
            Err(error) => return tracing::error!(error = %error, "a database's writer crashed"),
        }
        sync_at = match writer.info.unsynced {
            // A deadline that passed while others were served stays: writers that never rest would put it off for ever.
            true => sync_at.filter(|_| !due).or_else(|| Some(Instant::now() + sync_interval)),
            false => None,
        };
    }
    match tasks::blocking("sync a database", move || writer.serve(vec![(Work::Sync, None)])).await {
        Ok(_) => {}
        Err(error) => tracing::error!(error = %error, "a database's last sync crashed"),
    }
}

/// The writer's own state: it alone begins write transactions.
struct Writer {
    engine: Engine,
    /// What the file says of itself; `unsynced` is the mark.
    info: Info,
    /// How often what judges writes was changed; the writer alone counts.
    generation: Arc<AtomicU64>,
    /// Is told of it before anybody is answered: whoever has written must find a source ahead of what was copied before.
    publisher: Publisher,
    holds: Holds,
    told: DatabaseSettings,
    /// Blobs that nobody needs any more, to be dropped by the next transaction.
    free: Vec<u64>,
    /// What is changed while the file is copied.
    noted: Option<Changed>,
    counters: Arc<StoreCounters>,
}

impl Writer {
    /// Serves a group of requests, and answers all of them. Fails if the engine is done with the file.
    fn serve(&mut self, group: Vec<(Work, Option<Reply>)>) -> Result<(), Arc<StoreError>> {
        let (steps, group): (Vec<_>, Vec<_>) = group.into_iter().partition(|(work, _)| work.is_compaction());
        if !group.is_empty() {
            self.write(group)?;
        }
        for (step, reply) in steps {
            let done = self.compact(step).map_err(Arc::new);
            // The old file is out of use, and nobody knows which of both a power cut would leave: written to no more.
            let unnamed = done.as_ref().err().filter(|error| matches!(***error, StoreError::Unnamed(_))).cloned();
            // Whoever asked may have gone.
            let _ = reply.map(|reply| reply.send(done.map_err(StoreError::WriteFailed)));
            unnamed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Does a step of a compaction, between two transactions.
    fn compact(&mut self, step: Work) -> Result<Done, StoreError> {
        match step {
            Work::CompactionBegins => self.round(Changed::default()),
            Work::CompactionRound => {
                let changed = self.noted.take().ok_or(StoreError::Overtaken)?;
                self.round(changed)
            }
            Work::Compacted(copy) => {
                let changed = self.noted.take().ok_or(StoreError::Overtaken)?;
                let info = Info { unsynced: false, ..self.info };
                let path = copy.path.clone();
                compaction::finish(*copy, changed, info, &self.engine)?;
                self.info = info;
                compaction::sync_name(&path)?;
                Ok(Done::Nothing)
            }
            _ => {
                self.noted = None;
                Ok(Done::Nothing)
            }
        }
    }

    /// Hands over what was changed so far, and notes what is changed from here on.
    fn round(&mut self, changed: Changed) -> Result<Done, StoreError> {
        let round = Round::new(changed, &self.engine.now())?;
        self.noted = Some(Changed::default());
        Ok(Done::Round(Box::new(round)))
    }

    /// Applies a group of requests in one transaction, and answers all of them.
    fn write(&mut self, group: Vec<(Work, Option<Reply>)>) -> Result<(), Arc<StoreError>> {
        let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        // Whoever asked may have gone.
        let answer = |reply: Option<Reply>, answer| {
            let _ = reply.map(|reply| reply.send(answer));
        };
        let idle = works.iter().all(|work| matches!(work, Work::Sync)) && !self.info.unsynced;
        let synced = works.iter().any(|work| work.durability() == Durability::Synced);
        let durability = if synced { Durability::Synced } else { Durability::Unsynced };
        let done = match idle {
            true => Ok(works.iter().map(|_| Done::Nothing).collect()),
            false => {
                self.commit(durability, |transaction| works.into_iter().map(|work| apply(transaction, work)).collect())
            }
        };
        match done {
            Ok(done) => {
                let done: Vec<Done> = done;
                done.iter().for_each(|done| self.counters.wrote(done));
                replies.into_iter().zip(done).for_each(|(reply, done)| answer(reply, Ok(done)));
                Ok(())
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a write failed, nothing of it is stored");
                let error = Arc::new(error);
                for reply in replies {
                    answer(reply, Err(StoreError::WriteFailed(error.clone())));
                }
                if error.is_fatal() { Err(error) } else { Ok(()) }
            }
        }
    }

    /// Runs one transaction. With an error nothing of it happened.
    fn commit<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let sync = durability == Durability::Synced || !self.info.unsynced;
        let mut transaction = self.engine.now().begin_write()?;
        transaction.set_durability(if sync { redb::Durability::Immediate } else { redb::Durability::None })?;
        transaction.set_quick_repair(sync);
        let (revs_limit, generation) = (self.told.revs_limit(), self.generation.load(Ordering::Relaxed));
        let mut tables = Transaction::new(&transaction, self.info, revs_limit, generation, &mut self.noted)?;
        let done = work(&mut tables)?;
        let (freed, changed) = (std::mem::take(&mut tables.freed), std::mem::take(&mut tables.changed));
        let generation = tables.generation;
        let mut info = tables.finish()?;
        info.unsynced = durability == Durability::Unsynced;
        transaction.open_table(INFO)?.insert((), info.encode())?;
        transaction.commit()?;
        self.counters.committed(sync);
        self.info = info;
        changed.into_iter().for_each(|setting| self.told.change(setting));
        // Whoever reads it finds the settings changed too.
        self.generation.store(generation, Ordering::Release);
        self.publisher.publish(info.update_seq);
        self.free.extend(self.holds.free(freed));
        if self.noted.as_ref().is_some_and(Changed::is_too_much) {
            self.noted = None;
        }
        Ok(done)
    }
}

fn apply(transaction: &mut Transaction<'_>, work: Work) -> Result<Done, StoreError> {
    Ok(match work {
        Work::Edits { mut edits, generation, .. } => {
            match generation == transaction.generation && transaction.are_judged(&mut edits)? {
                true => Done::Written(edits.into_iter().map(|edit| transaction.edit(edit)).collect::<Result<_, _>>()?),
                false => Done::Again(edits),
            }
        }
        Work::Local { id, parent, body } => Done::Local(transaction.put_local(&id, &parent, body.as_deref())?),
        Work::Chunks { blob, first, data } => {
            transaction.put_chunks(blob, first, &data)?;
            if first == 0 {
                transaction.note_upload(blob)?;
            }
            Done::Nothing
        }
        Work::Discard { blob } => {
            transaction.discard(blob)?;
            Done::Nothing
        }
        Work::Set(setting) => {
            transaction.set(setting)?;
            Done::Nothing
        }
        Work::Purge { documents } => {
            let purge = |(id, revs): (_, Vec<_>)| transaction.purge(&id, &revs);
            Done::Purged(documents.into_iter().map(purge).collect::<Result<_, _>>()?)
        }
        Work::PurgedInfosLimit(limit) => {
            transaction.set_purged_infos_limit(limit);
            Done::Nothing
        }
        // Steps of a compaction are no part of a transaction.
        Work::Sync | Work::CompactionBegins | Work::CompactionRound | Work::Compacted(_) | Work::CompactionEnds => {
            Done::Nothing
        }
    })
}
