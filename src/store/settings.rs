//! What a database is told about itself: who its admins and members are, how long its histories may be.
//!
//! Stored in its file, each under its name, and kept in memory, since every request and every write looks at it. The writer
//! changes both in one order ([`super::writer`]), so what is read here was committed last.

use std::sync::{Arc, PoisonError, RwLock};

use redb::{ReadableDatabase, TableError};

use super::StoreError;
use super::keys::SETTINGS;
use crate::access::Security;

/// Revisions of a path that are kept: CouchDB's default for `_revs_limit`.
const REVS_LIMIT: usize = 1000;

/// One setting, to be changed.
#[derive(Debug, Clone)]
pub(super) enum Setting {
    Security(Arc<Security>),
    RevsLimit(usize),
}

impl Setting {
    /// The name and the text that it is stored as.
    pub(super) fn stored(&self) -> (&'static str, String) {
        match self {
            Self::Security(security) => ("security", security.json().to_owned()),
            Self::RevsLimit(limit) => ("revs_limit", limit.to_string()),
        }
    }
}

/// All settings of one database. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct DatabaseSettings(Arc<RwLock<Values>>);

#[derive(Debug)]
struct Values {
    security: Arc<Security>,
    revs_limit: usize,
}

impl DatabaseSettings {
    /// Reads what is stored.
    pub(super) fn read(engine: &redb::Database) -> Result<Self, StoreError> {
        let mut values = Values { security: Arc::default(), revs_limit: REVS_LIMIT };
        let settings = match engine.begin_read()?.open_table(SETTINGS) {
            Ok(settings) => settings,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Self(Arc::new(RwLock::new(values)))),
            Err(error) => return Err(error.into()),
        };
        if let Some(stored) = settings.get("security")? {
            let security = Security::parse(stored.value().as_bytes());
            values.security = Arc::new(security.map_err(|_| StoreError::Damaged("a security object"))?);
        }
        if let Some(stored) = settings.get("revs_limit")? {
            values.revs_limit = stored.value().parse().map_err(|_| StoreError::Damaged("a limit of revisions"))?;
        }
        Ok(Self(Arc::new(RwLock::new(values))))
    }

    pub(super) fn security(&self) -> Arc<Security> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).security.clone()
    }

    pub(super) fn revs_limit(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).revs_limit
    }

    /// Takes over what was committed.
    pub(super) fn change(&self, setting: Setting) {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match setting {
            Setting::Security(security) => values.security = security,
            Setting::RevsLimit(limit) => values.revs_limit = limit,
        }
    }
}
