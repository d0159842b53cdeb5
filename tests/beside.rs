//! couchrep beside a CouchDB: what passes through, and the replicator's part.
//!
//! Odd moments of the pass-through are played by a [`RawCouchDb`], which sees and sends bytes; all else by a couchrep with an embedded
//! store, and by a real CouchDB if the environment names one.

pub mod raw;
mod passing;
mod breaking;
mod odd_clients;
mod sizes;
mod replicating;
mod schedulers;
mod takeover;
mod couchdb;
mod documents;
mod odd_moments;
mod couchdb_takeover;
mod sessions;
mod couchdb_sessions;
mod differential;

use couchrep::config::couchdb::CouchDb;

use crate::support::Server;

/// A couchrep beside the CouchDB of this URL, whose uuid isn't asked for.
pub async fn beside(url: &str) -> Server {
    let couchdb = CouchDb::parse(url).unwrap();
    Server::with_config(|config| {
        config.couchdb = Some(couchdb);
        config.uuid = Some("0123456789abcdef0123456789abcdef".into());
    })
    .await
}
