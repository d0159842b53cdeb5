//! Documents of replicator databases on their way in and out: each describes a replication, and may hold its credentials. No I/O.
//!
//! A replicator database is `_replicator`, or one whose name ends in `/_replicator`. The rules are those of CouchDB's
//! `couch_replicator_docs:before_doc_update/3` ([`writing`]) and `after_doc_read/2` ([`reading`]): a document is its
//! `owner`'s, who is whoever wrote it first; others can't change it unless they are admins of the database, and see it without credentials,
//! and under a revision that it doesn't have. What makes no sense as a replication isn't written. Design documents and
//! `_local` ones have no such rules.
//!
//! On purpose it is stricter than CouchDB: the document that is replaced must be the writer's too, which CouchDB doesn't
//! look at; only server admins have others' replications do something else, since a replication has its owner's rights on all of
//! this server, of which CouchDB knows nothing; what the replicator writes into documents is nobody else's to write; nobody but admins brings a conflict
//! into a document, which may be another's; and more is kept from others than CouchDB keeps from them.

pub mod writing;
pub mod reading;

use crate::json::MAX_VALUE_BYTES;

pub use reading::Reader;

/// Bytes that such a document has at most as it is read: with its id, its revisions, stubs of attachments, and what the replicator wrote.
pub const MAX_READ_BYTES: usize = MAX_VALUE_BYTES + (1 << 20);

/// The member that names whose a document is: `null` is nobody in particular.
const OWNER: &str = "owner";
