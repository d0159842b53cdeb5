//! What databases may be called.

use std::fmt;

use super::StoreError;

/// A database's name, valid by CouchDB's rule: `^[a-z][a-z0-9_$()+/-]*$`, or one of the system databases' names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DbName(Box<str>);

impl DbName {
    /// Checks a name. At most 238 bytes, as in CouchDB.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        let system = matches!(name, "_users" | "_replicator" | "_global_changes");
        let mut bytes = name.bytes();
        let valid = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_$()+/-".contains(&b))
            && name.len() <= 238;
        (system || valid).then(|| Self(name.into())).ok_or_else(|| StoreError::IllegalName(name.into()))
    }

    /// Whether this is the database of the server's users.
    pub fn is_users(&self) -> bool {
        &*self.0 == "_users"
    }

    /// Whether its documents describe replications.
    pub fn is_replicator(&self) -> bool {
        &*self.0 == "_replicator" || self.0.ends_with("/_replicator")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
