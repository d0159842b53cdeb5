//! The users of the database `_users`, remembered until it changes.
//!
//! Every request asks who its caller is, and few of them change anybody. What was read is remembered under the update seq
//! of the snapshot that it was read from, and counts only as long as the database says that this is its newest one: whoever
//! has changed a user is answered after that is said.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use serde_json::Value;
use tokio::sync::watch;

use crate::store::{Database, DbName, DocOptions, Snapshot, Store, StoreError};
use crate::users::Account;
use crate::users::account::ID_PREFIX;

/// Names that are remembered, those of nobody too.
const KNOWN: NonZeroUsize = NonZeroUsize::new(10_000).expect("more than nothing");
/// Bytes of a name that is worth it.
const LONGEST_NAME: usize = 256;

/// The users of `_users`.
pub(super) struct People {
    store: Store,
    users: DbName,
    /// Locked to look and to put something in.
    known: Mutex<Known>,
}

struct Known {
    /// Whose they are: a database that is made anew has other updates.
    updates: Option<watch::Receiver<u64>>,
    seq: u64,
    people: LruCache<Box<str>, Option<Arc<Account>>>,
}

impl People {
    /// Knows nobody yet.
    pub(super) fn new(store: Store, users: DbName) -> Self {
        let known = Known { updates: None, seq: 0, people: LruCache::new(KNOWN) };
        Self { store, users, known: Mutex::new(known) }
    }

    /// Makes the database if it isn't there.
    pub(super) async fn make(&self) -> Result<(), StoreError> {
        self.store.ensure(&self.users).await
    }

    /// Who has this name; `None` for nobody.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Arc<Account>>, StoreError> {
        let database = match self.store.database(&self.users).await {
            Ok(database) => database,
            Err(StoreError::NoDatabase) => return Ok(None),
            Err(error) => return Err(error),
        };
        let remembered = self.known(&database, database.update_seq()).people.get(name).cloned();
        if let Some(person) = remembered {
            return Ok(person);
        }
        let wanted = name.to_owned();
        let (seq, person) =
            database.read(move |snapshot| Ok((snapshot.update_seq(), read(snapshot, &wanted)?))).await?;
        let person = person.map(Arc::new);
        if name.len() <= LONGEST_NAME && seq == database.update_seq() {
            self.known(&database, seq).people.put(name.into(), person.clone());
        }
        Ok(person)
    }

    /// What is remembered of the database as it is at `seq`.
    fn known(&self, database: &Database, seq: u64) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let updates = database.updates();
        let same = known.updates.as_ref().is_some_and(|known| known.same_channel(&updates));
        if !same || known.seq != seq {
            known.people.clear();
            known.updates = Some(updates);
            known.seq = seq;
        }
        known
    }
}

fn read(snapshot: &Snapshot, name: &str) -> Result<Option<Account>, StoreError> {
    let id = format!("{ID_PREFIX}{name}");
    let Some(record) = snapshot.document(&id)? else { return Ok(None) };
    let Some(winner) = record.tree.winner().filter(|winner| !winner.deleted) else { return Ok(None) };
    let conflicts = record.tree.leaves().iter().filter(|leaf| !leaf.deleted).count() > 1;
    let mut text = Vec::new();
    snapshot.render(&id, &record, &winner, &DocOptions::default(), &mut text)?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(document)) => Ok(Some(Account::of_document(name, &document, conflicts))),
        // What serde can't read, though the store could, is nobody.
        _ => Ok(None),
    }
}
