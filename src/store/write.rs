//! Writing documents.

/// When a write is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is answered.
    Synced,
    /// At the next `ensure_full_commit`, or within a second (`X-Couch-Full-Commit: false`).
    Unsynced,
}

/// A document that wasn't written. Others of the same call were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 409: the parent isn't a leaf.
    #[error("Document update conflict.")]
    Conflict,
    /// 412: a stub whose attachment isn't there.
    #[error("Invalid attachment stub in {id} for {name}")]
    MissingStub {
        /// The document.
        id: String,
        /// The attachment.
        name: String,
    },
}
