//! couchrep is CouchDB's replicator as a server of its own.
//!
//! It answers `POST /_replicate` as CouchDB does and copies documents with their whole revision trees and attachments
//! between any two CouchDB-compatible databases. The modules stand in the order in which a newcomer should read them:
//! what a document is, how one replication runs, what keeps track of many, what a database must offer, the embedded
//! store, and the HTTP face of it all. ARCHITECTURE.md draws the same map with its invariants.

pub mod document;
pub mod json;
pub mod multipart;
pub mod term;
pub mod selector;
pub mod effort;
pub mod access;
pub mod percent;
pub mod endpoint;
pub mod databases;
pub mod replicate;
pub mod verify;
pub mod jobs;
pub mod peer;
pub mod store;
pub mod javascript;
pub mod http;
pub mod config;
pub mod server;
pub mod tasks;
