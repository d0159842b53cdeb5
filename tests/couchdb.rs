//! couchrep among real CouchDBs.
//!
//! Runs when `COUCHDB_URL` names a CouchDB, with an admin's credentials in the URL; `COUCHDB_URL_2` names a second one,
//! else the first plays both. `make test` says so when these tests were skipped. Each test makes databases of its own,
//! under names that nobody else has, and deletes them at its end, however it ends.
//!
//! Replicas are compared three times: leaf by leaf as the two servers show them, by what is stored of their attachments
//! (digest, lengths, `revpos`), and by `couchrep verify --both --attachments`.

mod rig;
mod content;
mod ways;
mod filters;
mod continuous;
mod checkpoints;
mod failures;
mod credentials;
mod cluster;
