//! Where a server's databases live: the embedded store is opened, or the CouchDB found beside which the server stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::identity;
use super::start_error::StartError;
use crate::accounts::Accounts;
use crate::beside::{Callers, CouchDbAsAdmin, Sessions, Upstream};
use crate::config::couchdb::CouchDb;
use crate::config::{Config, Http, StoreSettings};
use crate::databases::Databases;
use crate::http::Backend;
use crate::peer::remote::Clients;
use crate::replicate::request::check_document;
use crate::settings::Settings;
use crate::store::{DbName, Store, StoreError};
use crate::takeover::Takeover;
use crate::tasks::Tasks;

/// What a server needs of it.
pub struct Opened {
    /// For requests.
    pub backend: Backend,
    /// For replications.
    pub databases: Databases,
    /// The CouchDB beside which it stands, if it has an admin there.
    pub admin: Option<CouchDbAsAdmin>,
    /// Enters replication ids.
    pub uuid: String,
    /// `host:port` that local names stand for.
    pub address: String,
}

/// Opens it. `tasks` own connections to a CouchDB.
pub async fn open(
    settings: &Settings,
    clients: &Clients,
    listening: SocketAddr,
    tasks: &Tasks,
) -> Result<Opened, StartError> {
    let config = settings.current();
    match &config.couchdb {
        None => embedded(settings, &config, clients, listening).await,
        Some(couchdb) => beside(&config, couchdb, clients, tasks).await,
    }
}

async fn embedded(
    settings: &Settings,
    config: &Config,
    clients: &Clients,
    listening: SocketAddr,
) -> Result<Opened, StartError> {
    let unusable = |source: StoreError| StartError::Store { dir: config.data_dir.clone(), source };
    let limits = StoreSettings { password_iterations: config.auth.iterations, ..config.store.clone() };
    let store = Store::open_with(&config.data_dir, limits, check_document).await.map_err(unusable)?;
    let uuid = identity::uuid(config).await?;
    settings.complete().await?;
    let accounts = Accounts::open(settings.watch(), store.clone()).await?;
    store.ensure(&DbName::replicator()).await.map_err(unusable)?;
    let databases = Databases::new(Some(store.clone()), clients.clone(), Arc::new(config.replicator.clone()));
    Ok(Opened {
        backend: Backend::Embedded { store, accounts },
        databases,
        admin: None,
        uuid,
        address: listening.to_string(),
    })
}

/// Whose the documents are that describe replications beside a CouchDB. Without an admin there they are CouchDB's.
pub fn takeover(config: &Config, admin: Option<CouchDbAsAdmin>) -> Option<Takeover> {
    let Some(admin) = admin else {
        if config.couchdb.is_some() {
            tracing::info!(
                "documents in CouchDB's _replicator are left to its own scheduler: --couchdb-admin-file and --take-over have them run here"
            );
        }
        return None;
    };
    Some(Takeover::new(admin, config.take_over))
}

/// Checkpoints are CouchDB's own only under its own uuid; so it is waited for, unless the settings know it.
async fn beside(config: &Config, couchdb: &CouchDb, clients: &Clients, tasks: &Tasks) -> Result<Opened, StartError> {
    let upstream = Upstream::new(couchdb.clone(), &config.replicator.tls, tasks.clone())?;
    let uuid = match &config.uuid {
        Some(uuid) => uuid.clone(),
        None => {
            let unknown = |source| StartError::CouchDb { url: couchdb.url.to_string(), source };
            upstream.uuid().await.map_err(unknown)?
        }
    };
    let admin = match &config.couchdb_admin {
        None => None,
        Some(admin) => {
            let asking = CouchDbAsAdmin::new(upstream.clone(), admin);
            let refused = |source| StartError::CouchDbAdmin { url: couchdb.url.to_string(), source };
            asking.prove(admin).await.map_err(refused)?;
            Some(asking)
        }
    };
    let mut address = couchdb.address();
    if let Some(admin) = &admin {
        match admin.local_address().await {
            Ok(told) => address = told.unwrap_or(address),
            // Checkpoints of local names may be others then, and nothing is lost but time.
            Err(error) => tracing::warn!(%error, "CouchDB doesn't say which address local names stand for"),
        }
    }
    let sessions = admin.clone().map(|admin| Sessions::new(admin, config.couchdb_session_max));
    let settings = Arc::new(config.replicator.clone());
    let databases = Databases::beside(couchdb.url.clone(), sessions, clients.clone(), settings);
    Ok(Opened { backend: Backend::CouchDb(Callers::new(upstream)), databases, admin, uuid, address })
}

/// Limits of connections beside a CouchDB: no tighter than its own, which its clients reckon with. An unused connection is kept as
/// long as it keeps one; and however slowly somebody reads, he isn't cut off, since he holds next to nothing here.
pub fn limits_beside(limits: &Http) -> Http {
    Http { header_timeout: limits.header_timeout.max(IDLE), reader_pause: FOR_EVER, ..limits.clone() }
}

/// Of CouchDB's own HTTP server.
const IDLE: Duration = Duration::from_secs(300);
/// As far as a timer is concerned.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
