//! What is told of one job to whoever watches the server.

/// A job's numbers as they are now. Nothing in it holds a credential.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFigures {
    /// The replication's id.
    pub id: String,
    /// The database of the document that asked for it, if one did.
    pub database: Option<String>,
    /// That document.
    pub doc_id: Option<String>,
    /// The source, without credentials.
    pub source: String,
    /// The target, likewise.
    pub target: String,
    /// CouchDB's word: `running`, `pending`, `crashing`, …
    pub state: String,
    /// Over all its lives.
    pub docs_read: u64,
    /// Likewise.
    pub docs_written: u64,
    /// Likewise.
    pub doc_write_failures: u64,
    /// Revisions that the target was asked for, likewise.
    pub revisions_checked: u64,
    /// Those that it lacked, likewise.
    pub missing_revisions_found: u64,
    /// Bytes of answers from its peers and of requests to them, if they are counted.
    pub bytes: Option<u64>,
    /// Changes of the source that aren't on the target yet, if the source tells.
    pub changes_pending: Option<u64>,
    /// Seconds since the target last had all that the source had; 0 while it has. `None` if that isn't known.
    pub lag_seconds: Option<u64>,
    /// Unix seconds of its last progress or checkpoint.
    pub last_success: Option<u64>,
    /// Lives in a row that failed.
    pub failures: u64,
}
