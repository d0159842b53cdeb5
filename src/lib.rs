//! couchrep is CouchDB's replicator as a server of its own.
//!
//! It answers `POST /_replicate` as CouchDB does and copies documents with their whole revision trees and attachments
//! between any two CouchDB-compatible databases. The modules stand as the floors of a house, from the ground up: words
//! that everyone uses, the embedded store, what a replication needs of a database, one replication, what keeps track of
//! many, and the HTTP API of it all. Each imports only from floors below. ARCHITECTURE.md draws the same map with its
//! invariants; who reads for the first time begins at [`replicate`].

pub mod json;
pub mod tasks;
pub mod percent;
pub mod uuids;
pub mod data_file;
pub mod counters;
pub mod policy;
pub mod document;
pub mod config;
pub mod multipart;
pub mod term;
pub mod selector;
pub mod javascript;
pub mod access;
pub mod effort;
pub mod beside;
pub mod takeover;
pub mod users;
pub mod replicator_docs;
pub mod store;
pub mod accounts;
pub mod settings;
pub mod endpoint;
pub mod peer;
pub mod databases;
pub mod replicate;
pub mod verify;
pub mod jobs;
pub mod http;
pub mod server;
