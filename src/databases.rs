//! Where local names live, and how any database is opened: the one place that makes a [`Peer`] of an [`Endpoint`].
//!
//! A local name is a database of the embedded store, or of the CouchDB beside which this server stands. The store asks its security
//! object at each question. A remote database decides for itself, by the endpoint's credentials, and so does CouchDB, by the caller's
//! own. A secret that an endpoint names is asked for here, each time. The first question finds out whether the database is there.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use url::Url;

use crate::access::{Caller, Denied};
use crate::beside::{LastingSession, NotLasting, Sessions};
use crate::config::Replicator;
use crate::counters::ReplicatorCounters;
use crate::effort::pulse::Pulse;
use crate::endpoint::{CouchDbProof, Credentials, Endpoint, RemoteEndpoint, SecretRefused};
use crate::peer::local::LocalPeer;
use crate::peer::remote::server::RemoteServer;
use crate::peer::remote::{Clients, RemotePeer};
use crate::peer::{Peer, PeerError};
use crate::policy::{Destination, Forbidden, Policy};
use crate::store::{DbName, DbUpdates, Store, StoreError};

/// Opens databases. Cheap to clone.
#[derive(Clone)]
pub struct Databases {
    local: LocalDatabases,
    clients: Clients,
    settings: Arc<Replicator>,
}

/// Where local names live.
#[derive(Clone)]
enum LocalDatabases {
    /// There are none.
    None,
    /// In the embedded store.
    Store(Store),
    /// In the CouchDB with this root; there is an admin's help if sessions of callers can be renewed.
    CouchDb(Url, Option<Sessions>),
}

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A name, where there are only URLs.
    #[error("there is no store to look `{0}` up in")]
    NoStore(DbName),
    /// What proves who the caller is will be over before the job is.
    #[error("a continuous replication of the local database `{0}` outlives a session, a token and a proxy's word: {1}")]
    TemporaryProof(DbName, WhyTemporary),
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

/// Why a temporary proof can't be made to last, in words of what would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WhyTemporary {
    /// Nobody here may read CouchDB's secret.
    #[error(
        "ask with name and password (a session's cookie does if couchrep has an admin of this CouchDB, --couchdb-admin-file)"
    )]
    NoAdmin,
    /// It is a token or a proxy's word.
    #[error("ask with name and password, or with a session's cookie")]
    NoCookie,
    /// The job is to be a document.
    #[error("ask with name and password, since a document knows no sessions")]
    Kept,
    /// The cookie is of another secret than CouchDB's, or of an old password.
    #[error("log in again, since the cookie isn't made of CouchDB's secret and the user's password as they are now")]
    Foreign,
}

impl Databases {
    /// Those of the store, and all others over HTTP. Without a store, as a command has it that is given URLs alone, there
    /// are no local names.
    pub fn new(store: Option<Store>, clients: Clients, settings: Arc<Replicator>) -> Self {
        Self { local: store.map_or(LocalDatabases::None, LocalDatabases::Store), clients, settings }
    }

    /// Those of the CouchDB with this root, and all others over HTTP. `sessions` renews those of callers, if there is an admin.
    pub fn beside(root: Url, sessions: Option<Sessions>, clients: Clients, settings: Arc<Replicator>) -> Self {
        Self { local: LocalDatabases::CouchDb(root, sessions), clients, settings }
    }

    /// The same, where a request that fails isn't sent again.
    pub fn without_repetition(&self) -> Self {
        let settings = Replicator { retries_per_request: 1, ..Replicator::clone(&self.settings) };
        Self { settings: Arc::new(settings), ..self.clone() }
    }

    /// Whether local names are databases of the embedded store.
    pub fn has_store(&self) -> bool {
        self.store().is_some()
    }

    /// Renews sessions of callers.
    pub fn sessions(&self) -> Option<&Sessions> {
        match &self.local {
            LocalDatabases::CouchDb(_, sessions) => sessions.as_ref(),
            LocalDatabases::None | LocalDatabases::Store(_) => None,
        }
    }

    /// Begins a session that lasts for a caller whose own proof is temporary, for a job between these endpoints; `None` if it needs none.
    ///
    /// # Errors
    /// [`OpenError::TemporaryProof`] if the job is for `ever`, and there is none to be had. Another job has to make do with his own proof.
    pub async fn session(
        &self,
        endpoints: [&Endpoint; 2],
        caller: &Caller,
        for_ever: bool,
    ) -> Result<Option<Arc<LastingSession>>, OpenError> {
        let local = endpoints.into_iter().find_map(|endpoint| match endpoint {
            Endpoint::Local(name) => Some(name),
            Endpoint::Remote(_) => None,
        });
        let (LocalDatabases::CouchDb(_, sessions), Some(name)) = (&self.local, local) else { return Ok(None) };
        if caller.temporary_proofs.is_empty() {
            return Ok(None);
        }
        let why = match sessions {
            None => WhyTemporary::NoAdmin,
            Some(sessions) => match sessions.begin(caller).boxed().await {
                Ok(session) => return Ok(Some(Arc::new(session))),
                Err(NotLasting::NoCookie) => WhyTemporary::NoCookie,
                Err(NotLasting::Foreign) => WhyTemporary::Foreign,
                Err(NotLasting::Unanswered(error)) if for_ever => {
                    let request = format!("the session of {}", caller.name.as_deref().unwrap_or_default());
                    return Err(PeerError::Unreachable { request, tries: 1, reason: error.to_string() }.into());
                }
                Err(NotLasting::Unanswered(_)) => return Ok(None),
            },
        };
        if for_ever { Err(OpenError::TemporaryProof(name.clone(), why)) } else { Ok(None) }
    }

    /// A database as a job of this caller uses it: a local name beside a CouchDB becomes a database over HTTP, with what he
    /// proves there who he is, or with the session that was begun for that.
    pub fn placed(&self, endpoint: Endpoint, caller: &Caller, session: Option<&Arc<LastingSession>>) -> Endpoint {
        let (LocalDatabases::CouchDb(root, _), Endpoint::Local(name)) = (&self.local, &endpoint) else {
            return endpoint;
        };
        let proof = session.map_or_else(|| proof(caller), |session| CouchDbProof::Session(session.clone()));
        Endpoint::Remote(Box::new(RemoteEndpoint::beside(root, name.clone(), proof)))
    }

    /// What stands in a document for a local name beside a CouchDB: the database's URL, with who asks by name and password. `None`: it may
    /// stand as it is.
    ///
    /// # Errors
    /// [`OpenError::TemporaryProof`] if he has proved otherwise who he is: a document knows no sessions.
    pub fn written(&self, endpoint: &Endpoint, caller: &Caller) -> Result<Option<Value>, OpenError> {
        let (LocalDatabases::CouchDb(root, _), Endpoint::Local(name)) = (&self.local, endpoint) else {
            return Ok(None);
        };
        if !caller.temporary_proofs.is_empty() {
            return Err(OpenError::TemporaryProof(name.clone(), WhyTemporary::Kept));
        }
        let at = RemoteEndpoint::beside(root, name.clone(), proof(caller));
        let mut written = json!({ "url": at.url.as_str() });
        if let Some(credentials) = &at.credentials {
            let (name, password) = (&credentials.name, credentials.password.expose_secret());
            written["auth"] = json!({ "basic": { "username": name, "password": password } });
        }
        Ok(Some(written))
    }

    /// Opens a database for a caller; what is done with it counts as life of the job that has this pulse.
    pub async fn open(&self, endpoint: &Endpoint, caller: &Arc<Caller>, pulse: &Pulse) -> Result<Peer, OpenError> {
        let remote = match (endpoint, &self.local) {
            (Endpoint::Remote(remote), _) => RemoteEndpoint::clone(remote),
            (Endpoint::Local(name), LocalDatabases::CouchDb(root, _)) => {
                RemoteEndpoint::beside(root, name.clone(), proof(caller))
            }
            (Endpoint::Local(name), LocalDatabases::None) => return Err(OpenError::NoStore(name.clone())),
            (Endpoint::Local(name), LocalDatabases::Store(store)) => {
                return Ok(Peer::Local(LocalPeer::new(store.clone(), name.clone(), caller.clone(), pulse.clone())));
            }
        };
        remote.check_files(caller).map_err(PeerError::from)?;
        let policy = self.policy(&remote, caller);
        let remote = remote.with_secret(&self.settings.secrets, caller)?;
        let (settings, pulse) = (self.settings.clone(), pulse.clone());
        Ok(Peer::Remote(RemotePeer::new(&self.clients, remote, &policy, settings, pulse).await?))
    }

    /// Whether the caller may open a database of the store. One that isn't there is nobody's to open.
    pub async fn may_open(&self, name: &DbName, caller: &Caller) -> Result<(), OpenError> {
        let store = self.store().ok_or_else(|| OpenError::NoStore(name.clone()))?;
        match store.database(name).await {
            Ok(database) => Ok(database.security().may_open(caller)?),
            Err(StoreError::NoDatabase) => Ok(()),
            Err(error) => Err(PeerError::from(error).into()),
        }
    }

    /// Where a caller may connect to for this endpoint. The CouchDB beside which this server stands is the operator's choice: whoever
    /// names a database of it without a URL gets there, whatever the rules say; and so does the document that such a replication is
    /// kept in, which names it by its URL and a password.
    pub fn policy(&self, endpoint: &RemoteEndpoint, caller: &Caller) -> Policy {
        let policy = Policy::new(&self.settings.endpoints, caller.is_server_admin());
        let LocalDatabases::CouchDb(root, _) = &self.local else { return policy };
        let by_password = endpoint.credentials.is_some() && endpoint.headers.is_empty() && endpoint.auth.is_none();
        let is_kept = by_password && endpoint.url.as_str().starts_with(root.as_str());
        match endpoint.local_name.is_some() || is_kept {
            true => policy.with_exempt(Destination::of(root)),
            false => policy,
        }
    }

    /// Whether a caller may connect to an endpoint, as far as it tells. Nothing is asked for it.
    pub fn may_connect(&self, endpoint: &Endpoint, caller: &Caller) -> Result<(), Forbidden> {
        match endpoint {
            Endpoint::Local(_) => Ok(()),
            Endpoint::Remote(remote) => {
                remote.check_files(caller)?;
                remote.check(&self.policy(remote, caller), &self.settings.iam_token_url)
            }
        }
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
        self.store().map(Store::db_updates)
    }

    /// What is counted of the replications between these databases.
    pub fn counters(&self) -> &ReplicatorCounters {
        self.clients.counters()
    }

    /// Puts the store away.
    pub async fn close(&self) {
        if let Some(store) = self.store() {
            store.close().await;
        }
    }

    fn store(&self) -> Option<&Store> {
        match &self.local {
            LocalDatabases::Store(store) => Some(store),
            LocalDatabases::None | LocalDatabases::CouchDb(..) => None,
        }
    }
}

/// With his password, or as he proved it now.
fn proof(caller: &Caller) -> CouchDbProof {
    if !caller.temporary_proofs.is_empty() {
        return CouchDbProof::Headers(caller.temporary_proofs.clone());
    }
    let header = caller.authorization.as_ref();
    CouchDbProof::Password(header.and_then(|header| Credentials::from_header(header.expose_secret())))
}
