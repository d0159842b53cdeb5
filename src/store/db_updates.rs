//! What happened to databases: the log that `_db_updates` tells, and that wakes replications that wait for a database.
//!
//! In memory alone. At the start it has a `created` row for every database that is there, so whoever reads from 0 knows
//! all of them. Its seqs mean nothing after a restart: [`DbUpdates::life`] tells one start from another.
//!
//! As in CouchDB a database has at most one row of each event: an update takes the place of the update before, at the
//! log's end, and `created` stays beside it. A deletion takes the place of both, and a new creation that of the deletion.
//! So nobody who reads on from the newest seq that he was given misses a database's newest event, however late he comes;
//! only deletions are forgotten after many others.
//!
//! An update is noted after its commit and before its writer is answered: whoever is told of it finds it in the database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::DbName;

/// Rows of deleted databases that are kept: enough for readers that were away, and about a megabyte.
const DELETED: usize = 10_000;

/// What happened to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbEvent {
    /// It was made, or was there at the start.
    Created,
    /// Its update seq changed.
    Updated,
    /// It was deleted.
    Deleted,
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbUpdate {
    /// Its place; 1 is the first.
    pub seq: u64,
    /// Which database.
    pub name: DbName,
    /// What happened to it.
    pub event: DbEvent,
}

/// The log. Cheap to clone; doesn't keep the store open.
#[derive(Debug, Clone)]
pub struct DbUpdates {
    life: u64,
    /// Guards nothing else; never held across an await.
    log: Arc<Mutex<Log>>,
}

#[derive(Debug)]
struct Log {
    rows: BTreeMap<u64, (DbName, DbEvent)>,
    names: HashMap<DbName, Places>,
    /// The places of rows of deleted databases.
    deleted: BTreeSet<u64>,
    /// The newest place.
    seq: u64,
    /// Gone once the store is closed.
    told: Option<watch::Sender<u64>>,
}

/// Where a database's rows are.
#[derive(Debug)]
struct Places {
    /// Of its newest row.
    newest: u64,
    /// Of its `created` row, if an update came after it.
    created: Option<u64>,
}

impl DbUpdates {
    /// A log that begins with these databases.
    pub fn new<'a>(names: impl Iterator<Item = &'a DbName>) -> Self {
        let mut log = Log {
            rows: BTreeMap::new(),
            names: HashMap::new(),
            deleted: BTreeSet::new(),
            seq: 0,
            told: Some(watch::Sender::new(0)),
        };
        names.for_each(|name| log.note(name, DbEvent::Created));
        Self { life: rand::random(), log: Arc::new(Mutex::new(log)) }
    }

    /// Drawn at the start: seqs of another life say nothing in this one.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The newest row's seq; 0 if there is none.
    pub fn seq(&self) -> u64 {
        self.log().seq
    }

    /// At most `limit` rows after this seq, in order of their seqs.
    pub fn since(&self, since: u64, limit: usize) -> Vec<DbUpdate> {
        let log = self.log();
        let rows = since.checked_add(1).map(|first| log.rows.range(first..)).into_iter().flatten();
        rows.take(limit).map(row).collect()
    }

    /// At most `limit` rows before this seq, the newest first.
    pub fn before(&self, before: u64, limit: usize) -> Vec<DbUpdate> {
        self.log().rows.range(..before).rev().take(limit).map(row).collect()
    }

    /// The newest row's seq, as it changes. Closes when the store closes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        let log = self.log();
        match &log.told {
            Some(told) => told.subscribe(),
            None => watch::channel(log.seq).1,
        }
    }

    /// Notes what happened. What is told of a database that isn't there any more is left out.
    pub fn note(&self, name: &DbName, event: DbEvent) {
        self.log().note(name, event);
    }

    /// Tells whoever waits that nothing more will come.
    pub(super) fn close(&self) {
        self.log().told = None;
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row((seq, (name, event)): (&u64, &(DbName, DbEvent))) -> DbUpdate {
    DbUpdate { seq: *seq, name: name.clone(), event: *event }
}

impl Log {
    fn note(&mut self, name: &DbName, event: DbEvent) {
        let seq = self.seq + 1;
        match (self.names.get_mut(name), event) {
            // The last writes of a database that is being deleted may come after that.
            (None, DbEvent::Updated | DbEvent::Deleted) => return,
            (Some(places), DbEvent::Updated) if self.deleted.contains(&places.newest) => return,
            (Some(places), DbEvent::Updated) => {
                let before = std::mem::replace(&mut places.newest, seq);
                match self.rows.get(&before) {
                    Some((_, DbEvent::Created)) => places.created = Some(before),
                    _ => drop(self.rows.remove(&before)),
                }
            }
            (Some(places), DbEvent::Created | DbEvent::Deleted) => {
                self.rows.remove(&places.newest);
                self.deleted.remove(&places.newest);
                places.created.take().map(|created| self.rows.remove(&created));
                places.newest = seq;
            }
            (None, DbEvent::Created) => {
                self.names.insert(name.clone(), Places { newest: seq, created: None });
            }
        }
        self.seq = seq;
        self.rows.insert(seq, (name.clone(), event));
        if event == DbEvent::Deleted {
            self.deleted.insert(seq);
            self.forget();
        }
        self.told.as_ref().map(|told| told.send_replace(seq));
    }

    /// Leaves out the deletions that are too many.
    fn forget(&mut self) {
        while self.deleted.len() > DELETED
            && let Some(oldest) = self.deleted.pop_first()
        {
            let row = self.rows.remove(&oldest);
            row.map(|(name, _)| self.names.remove(&name));
        }
    }
}

/// Tells of one database's commits.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) name: DbName,
    /// The database's newest update seq.
    pub(super) latest: Arc<watch::Sender<u64>>,
    pub(super) log: DbUpdates,
}

impl Publisher {
    /// Tells the database's update seq, without a row in the log: nothing happened.
    pub(super) fn begin(&self, update_seq: u64) {
        self.latest.send_if_modified(|seq| std::mem::replace(seq, update_seq) != update_seq);
    }

    /// Tells the database's update seq, if it is a new one.
    pub(super) fn publish(&self, update_seq: u64) {
        if self.latest.send_if_modified(|seq| std::mem::replace(seq, update_seq) != update_seq) {
            self.log.note(&self.name, DbEvent::Updated);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::DbEvent::{Created, Deleted, Updated};
    use super::*;

    fn name(name: &str) -> DbName {
        DbName::parse(name).unwrap()
    }

    fn rows(log: &DbUpdates, since: u64) -> Vec<(u64, String, DbEvent)> {
        log.since(since, usize::MAX).into_iter().map(|row| (row.seq, row.name.to_string(), row.event)).collect()
    }

    #[test]
    fn a_database_has_one_row_of_each_event() {
        let log = DbUpdates::new([name("a"), name("b")].iter());
        assert_eq!(rows(&log, 0), [(1, "a".into(), Created), (2, "b".into(), Created)]);
        (0..10_000).for_each(|_| log.note(&name("a"), Updated));
        let expected = [(1, "a".into(), Created), (2, "b".into(), Created), (10_002, "a".into(), Updated)];
        assert_eq!(rows(&log, 0), expected);
        assert_eq!(log.since(1, 1), log.since(0, 2)[1..]);
        log.note(&name("a"), Deleted);
        assert_eq!(rows(&log, 2), [(10_003, "a".into(), Deleted)]);
        // A write that came late, and databases that nobody knows.
        log.note(&name("a"), Updated);
        log.note(&name("c"), Updated);
        log.note(&name("c"), Deleted);
        assert_eq!(log.seq(), 10_003);
        log.note(&name("a"), Created);
        assert_eq!(rows(&log, 0), [(2, "b".into(), Created), (10_004, "a".into(), Created)]);
        assert_eq!(rows(&log, u64::MAX), []);
    }

    #[test]
    fn deletions_are_forgotten_after_many_others() {
        let log = DbUpdates::new([name("kept")].iter());
        for n in 0..DELETED + 5 {
            log.note(&name(&format!("db{n}")), Created);
            log.note(&name(&format!("db{n}")), Deleted);
        }
        let rows = rows(&log, 0);
        assert_eq!(rows.len(), DELETED + 1);
        assert_eq!((rows[0].1.as_str(), rows[1].1.as_str()), ("kept", "db5"));
        assert_eq!(log.log().names.len(), DELETED + 1);
    }

    #[test]
    fn who_watches_hears_of_every_row_and_of_the_end() {
        let log = DbUpdates::new([].into_iter());
        let mut watch = log.watch();
        log.note(&name("a"), Created);
        assert!(watch.has_changed().unwrap());
        assert_eq!(*watch.borrow_and_update(), log.seq());
        log.close();
        log.note(&name("a"), Updated);
        assert!(watch.has_changed().is_err() && log.watch().has_changed().is_err());
    }

    proptest! {
        /// However a reader pages, and whatever happens between his pages, he ends with what is there.
        #[test]
        fn a_reader_who_reads_on_misses_nothing(
            steps in prop::collection::vec((0..5_usize, 0..4_usize, 1..4_usize), 0..60)
        ) {
            let log = DbUpdates::new([name("db0")].iter());
            let mut there: BTreeMap<DbName, u64> = [(name("db0"), 0)].into();
            let (mut known, mut since) = (BTreeMap::new(), 0);
            let read = |known: &mut BTreeMap<DbName, DbEvent>, since: &mut u64, limit| {
                let rows = log.since(*since, limit);
                for row in &rows {
                    assert!(row.seq > *since, "in order");
                    *since = row.seq;
                    known.insert(row.name.clone(), row.event);
                }
                rows.len()
            };
            for (database, step, limit) in steps {
                let name = name(&format!("db{database}"));
                match (step, there.contains_key(&name)) {
                    (0, false) => {
                        there.insert(name.clone(), 0);
                        log.note(&name, Created);
                    }
                    (0, true) => {
                        there.remove(&name);
                        log.note(&name, Deleted);
                    }
                    (1, true) => {
                        *there.get_mut(&name).unwrap() += 1;
                        log.note(&name, Updated);
                    }
                    (1, false) => log.note(&name, Updated),
                    _ => drop(read(&mut known, &mut since, limit)),
                }
            }
            while read(&mut known, &mut since, 2) > 0 {}
            prop_assert_eq!(since, log.seq());
            known.retain(|_, event| *event != Deleted);
            let expected = there.into_iter().map(|(name, updates)| (name, if updates > 0 { Updated } else { Created }));
            prop_assert_eq!(known, expected.collect());
        }
    }
}
