//! Where local names live, and how any database is opened: the one place that makes a [`Peer`] of an [`Endpoint`].
//!
//! A local name is a database of the embedded store, whose security object is asked at each question to it; a remote
//! database decides for itself, by the credentials of the endpoint; a secret that it names is asked for here, each time. That the database is there is found out by the first question.

use std::sync::Arc;
use std::time::Duration;

use crate::access::{Caller, Denied};
use crate::config::Replicator;
use crate::counters::ReplicatorCounters;
use crate::effort::pulse::Pulse;
use crate::endpoint::{Endpoint, RemoteEndpoint, SecretRefused};
use crate::peer::local::LocalPeer;
use crate::peer::remote::server::RemoteServer;
use crate::peer::remote::{Clients, RemotePeer};
use crate::peer::{Peer, PeerError};
use crate::policy::{Forbidden, Policy};
use crate::store::{DbName, DbUpdates, Store, StoreError};

/// Opens databases. Cheap to clone.
#[derive(Clone)]
pub struct Databases {
    store: Option<Store>,
    clients: Clients,
    settings: Arc<Replicator>,
}

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A name, where there are only URLs.
    #[error("there is no store to look `{0}` up in")]
    NoStore(DbName),
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The secret that is to be sent there isn't for him, or not for there.
    #[error(transparent)]
    Secret(#[from] SecretRefused),
    /// It can't be reached as the endpoint says.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Databases {
    /// Those of the store, and all others over HTTP. Without a store, as a command has it that is given URLs alone, there
    /// are no local names.
    pub fn new(store: Option<Store>, clients: Clients, settings: Arc<Replicator>) -> Self {
        Self { store, clients, settings }
    }

    /// Opens a database for a caller; what is done with it counts as life of the job that has this pulse.
    pub async fn open(&self, endpoint: &Endpoint, caller: &Arc<Caller>, pulse: &Pulse) -> Result<Peer, OpenError> {
        match endpoint {
            Endpoint::Local(name) => {
                let store = self.store.as_ref().ok_or_else(|| OpenError::NoStore(name.clone()))?;
                Ok(Peer::Local(LocalPeer::new(store.clone(), name.clone(), caller.clone(), pulse.clone())))
            }
            Endpoint::Remote(remote) => {
                let remote = remote.with_secret(&self.settings.secrets, caller)?;
                let (policy, settings, pulse) = (self.policy(caller), self.settings.clone(), pulse.clone());
                Ok(Peer::Remote(RemotePeer::new(&self.clients, remote, &policy, settings, pulse).await?))
            }
        }
    }

    /// Whether the caller may open a database of the store. One that isn't there is nobody's to open.
    pub async fn may_open(&self, name: &DbName, caller: &Caller) -> Result<(), OpenError> {
        let store = self.store.as_ref().ok_or_else(|| OpenError::NoStore(name.clone()))?;
        match store.database(name).await {
            Ok(database) => Ok(database.security().may_open(caller)?),
            Err(StoreError::NoDatabase) => Ok(()),
            Err(error) => Err(PeerError::from(error).into()),
        }
    }

    /// Where a caller may connect to.
    pub fn policy(&self, caller: &Caller) -> Policy {
        Policy::new(&self.settings.endpoints, caller.is_server_admin())
    }

    /// Whether a caller may connect to an endpoint, as far as its URLs tell. Nothing is asked for it.
    pub fn may_connect(&self, endpoint: &Endpoint, caller: &Caller) -> Result<(), Forbidden> {
        endpoint.check(&self.policy(caller), &self.settings.iam_token_url)
    }

    /// A server over HTTP, to be asked about all its databases by those who are held to this policy. Its endpoint has the secret
    /// that it names.
    pub async fn server(&self, server: RemoteEndpoint, policy: &Policy) -> Result<RemoteServer, PeerError> {
        RemoteServer::new(&self.clients, server, policy, self.settings.clone()).await
    }

    /// How long an endpoint's server wants to be left alone (`Retry-After`).
    pub fn left_alone(&self, endpoint: &Endpoint) -> Duration {
        match endpoint {
            Endpoint::Local(_) => Duration::ZERO,
            Endpoint::Remote(remote) => self.clients.left_alone(remote),
        }
    }

    /// What happens to local databases.
    pub fn updates(&self) -> Option<DbUpdates> {
        self.store.as_ref().map(Store::db_updates)
    }

    /// What is counted of the replications between these databases.
    pub fn counters(&self) -> &ReplicatorCounters {
        self.clients.counters()
    }

    /// Puts the store away.
    pub async fn close(&self) {
        if let Some(store) = &self.store {
            store.close().await;
        }
    }
}
