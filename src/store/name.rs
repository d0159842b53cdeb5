//! What databases may be called.

use std::fmt;

use super::StoreError;

/// What replicator databases are called, alone or after a slash.
const REPLICATOR: &str = "_replicator";

/// A database's name, valid by CouchDB's rule: `^[a-z][a-z0-9_$()+/-]*$`, or one of the system databases' names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DbName(Box<str>);

impl DbName {
    /// Checks a name. At most 238 bytes, as in CouchDB.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        let system = matches!(name, "_users" | REPLICATOR | "_global_changes");
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

    /// The server's own replicator database.
    pub fn replicator() -> Self {
        Self(REPLICATOR.into())
    }

    /// Whether the database's documents are replications: `_replicator`, and all whose names end in `/_replicator`.
    pub fn is_replicator(&self) -> bool {
        self.0.strip_suffix(REPLICATOR).is_some_and(|before| before.is_empty() || before.ends_with('/'))
    }

    /// Whether it is one of the server's own databases, which aren't a person's.
    pub fn is_servers_own(&self) -> bool {
        self.0.starts_with('_')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicator_databases_are_known_by_their_names() {
        for (name, is) in [
            ("_replicator", true),
            ("a/_replicator", true),
            ("a/b/_replicator", true),
            ("a_replicator", false),
            ("a/_replicators", false),
            ("replicator", false),
            ("_users", false),
        ] {
            assert_eq!(DbName::parse(name).unwrap().is_replicator(), is, "{name}");
        }
        for illegal in ["/_replicator", "_x/_replicator", "A/_replicator"] {
            assert!(DbName::parse(illegal).is_err(), "{illegal}");
        }
        assert_eq!(DbName::replicator(), DbName::parse("_replicator").unwrap());
    }
}
