//! Which rights owners of documents have, asked of CouchDB as its admin: they aren't there to prove anything.
//!
//! Server admins stand in `[admins]`, everybody else in a document of `_users`. But whose a document is, it says itself: CouchDB lets admins
//! of its database, and whoever brings it with its history (`new_edits=false`), write any `owner`. So the name counts for something only in
//! a database that nobody but server admins may write to; in all others an owner has no roles and no secrets.
//!
//! What was learnt is remembered for a minute, so that thousands of jobs of one owner ask once; and for longer while CouchDB is away.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::{AdminError, CouchDbAsAdmin};
use crate::access::Caller;
use crate::percent;

/// How long something is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Users, and databases, that are remembered.
const MOST: usize = 10_000;

/// Knows users. Cheap to clone.
#[derive(Clone)]
pub struct CouchDbUsers {
    admin: CouchDbAsAdmin,
    roles: Memory<String, Vec<String>>,
    closed: Memory<String, bool>,
}

impl CouchDbUsers {
    /// Nobody is known yet.
    pub fn new(admin: CouchDbAsAdmin) -> Self {
        Self { admin, roles: Memory::default(), closed: Memory::default() }
    }

    /// The roles of the owner of a document in this database: none unless only server admins may have written it.
    pub async fn roles(&self, database: &str, name: &str) -> Result<Vec<String>, AdminError> {
        if !self.is_closed(database).await? {
            return Ok(Vec::new());
        }
        self.roles.get(name, self.ask_roles(name)).await
    }

    /// Whether nobody but server admins may write to a database.
    pub async fn is_closed(&self, database: &str) -> Result<bool, AdminError> {
        self.closed.get(database, self.ask_closed(database)).await
    }

    async fn ask_roles(&self, name: &str) -> Result<Vec<String>, AdminError> {
        #[derive(Deserialize)]
        struct User {
            #[serde(default)]
            roles: Vec<String>,
        }
        // Its value is a hash of his password, and nobody's to keep.
        let admin = format!("/_node/_local/_config/admins/{}", percent::encode(name));
        if self.admin.find::<IgnoredAny>(&admin).await?.is_some() {
            return Ok(Caller::server_admin().roles);
        }
        let path = format!("/_users/org.couchdb.user%3A{}", percent::encode(name));
        let user: Option<User> = self.admin.find(&path).await?;
        let mut roles = user.map(|user| user.roles).unwrap_or_default();
        // These are nobody's to give in a document.
        roles.retain(|role| !role.starts_with('_'));
        Ok(roles)
    }

    async fn ask_closed(&self, database: &str) -> Result<bool, AdminError> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct People {
            names: Vec<String>,
            roles: Vec<String>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Security {
            members: People,
            admins: People,
        }
        let path = format!("/{}/_security", percent::encode(database));
        let Security { members, admins } = self.admin.get(&path).await?;
        let only_admins = |people: &People| people.names.is_empty() && people.roles.iter().all(|role| role == "_admin");
        // Without any member everybody is one.
        Ok(only_admins(&members) && only_admins(&admins) && !members.roles.is_empty())
    }
}

/// Answers that are remembered. Cheap to clone.
#[derive(Clone)]
struct Memory<K: Hash + Eq, V> {
    /// Held for a look at it only.
    known: Arc<Mutex<LruCache<K, (Instant, V)>>>,
}

impl<K: Hash + Eq, V> Default for Memory<K, V> {
    fn default() -> Self {
        let known = LruCache::new(NonZeroUsize::new(MOST).unwrap_or(NonZeroUsize::MIN));
        Self { known: Arc::new(Mutex::new(known)) }
    }
}

impl<V: Clone> Memory<String, V> {
    async fn get(&self, key: &str, ask: impl Future<Output = Result<V, AdminError>>) -> Result<V, AdminError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = known().get(key).cloned();
        let at = Instant::now();
        match remembered {
            Some((since, value)) if since.elapsed() < REMEMBERED => Ok(value),
            remembered => match (ask.await, remembered) {
                (Ok(value), _) => {
                    known().put(key.to_owned(), (at, value.clone()));
                    Ok(value)
                }
                // While CouchDB is away, everything is as it was.
                (Err(AdminError::Unanswered(_)), Some((_, value))) => Ok(value),
                (Err(error), _) => Err(error),
            },
        }
    }
}
