//! Which roles users have, asked of CouchDB as its admin, for those who aren't there to prove anything: owners of documents.
//!
//! Server admins stand in `[admins]`, everybody else in a document of `_users`. What was learnt is remembered for a minute, so that
//! thousands of jobs of one owner ask once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use serde::Deserialize;
use tokio::time::Instant;

use super::{AdminError, CouchDbAsAdmin};
use crate::access::Caller;
use crate::percent;

/// How long roles are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Users that are remembered.
const MOST: usize = 10_000;

/// Knows users. Cheap to clone.
#[derive(Clone)]
pub struct CouchDbUsers {
    admin: CouchDbAsAdmin,
    /// Held for a look at it only.
    known: Arc<Mutex<LruCache<String, Remembered>>>,
}

struct Remembered {
    at: Instant,
    roles: Vec<String>,
}

impl CouchDbUsers {
    /// Nobody is known yet.
    pub fn new(admin: CouchDbAsAdmin) -> Self {
        let known = LruCache::new(NonZeroUsize::new(MOST).unwrap_or(NonZeroUsize::MIN));
        Self { admin, known: Arc::new(Mutex::new(known)) }
    }

    /// The roles of who has this name; of whom CouchDB knows nothing: none.
    pub async fn roles(&self, name: &str) -> Result<Vec<String>, AdminError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Remembered { at, roles }) = known().get(name)
            && at.elapsed() < REMEMBERED
        {
            return Ok(roles.clone());
        }
        let at = Instant::now();
        let roles = self.ask(name).await?;
        known().put(name.to_owned(), Remembered { at, roles: roles.clone() });
        Ok(roles)
    }

    async fn ask(&self, name: &str) -> Result<Vec<String>, AdminError> {
        #[derive(Deserialize)]
        struct User {
            #[serde(default)]
            roles: Vec<String>,
        }
        let admins: HashMap<String, String> = self.admin.get("/_node/_local/_config/admins").await?;
        if admins.contains_key(name) {
            return Ok(Caller::server_admin().roles);
        }
        let path = format!("/_users/org.couchdb.user%3A{}", percent::encode(name));
        let user: Option<User> = self.admin.find(&path).await?;
        let mut roles = user.map(|user| user.roles).unwrap_or_default();
        // These are nobody's to give in a document.
        roles.retain(|role| !role.starts_with('_'));
        Ok(roles)
    }
}
