//! The HTTP clients that all replications share.
//!
//! Peers that are reached in the same way (proxy, certificates, socket options), for those who may connect to the same, share one
//! client, and so its pool of connections. Certificate files are read whenever a peer is opened: a file that has changed makes another client, so
//! certificates may be renewed while the server runs.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Identity};
use ring::digest;

use super::auth::Sessions;
use super::connections::CountConnections;
use super::guard::{Guard, GuardedClient};
use super::pace::{PeerLoad, Servers};
use super::transport::reason;
use crate::config;
use crate::config::connection::{SocketOptions, Tls};
use crate::counters::ReplicatorCounters;
use crate::endpoint::RemoteEndpoint;
use crate::endpoint::connection::{Connection, Proxy};
use crate::policy::Policy;
use crate::tasks;

/// Clients kept; one that is dropped for another lives on as long as peers use it.
const KEPT: usize = 64;
/// Bytes of a PEM file; more is none.
const MAX_PEM_BYTES: u64 = 4 << 20;
/// How long a connection is kept that nobody uses: many jobs that have nothing to do keep their waiting feeds' alone.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections kept to a server, as those of feeds that all heard of something at once.
const MAX_IDLE: usize = 100;
/// Of silence before the system probes a connection.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// HTTP clients for all jobs, and what is known of the servers that they talk to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The most recently used ones last. The lock guards the list and is held for a look at it only.
    kept: Arc<Mutex<VecDeque<(ClientKey, GuardedClient)>>>,
    pub(super) servers: Servers,
    pub(super) sessions: Sessions,
    counters: Arc<ReplicatorCounters>,
}

/// How a client reaches peers.
#[derive(Debug, Clone, PartialEq)]
struct ClientKey {
    policy: Policy,
    proxy: Option<Proxy>,
    socket: SocketOptions,
    connect_timeout: Duration,
    verify: bool,
    /// A digest of the certificate files' contents.
    certificates: Vec<u8>,
}

/// An HTTP client can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// As where the system has no certificates to trust.
    #[error("the HTTP client: {0}")]
    Setup(String),
    /// A certificate file can't be read.
    #[error("could not read `{field}` {}", path.display())]
    Unreadable {
        /// The setting that names it.
        field: &'static str,
        /// As it was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A certificate file holds something else.
    #[error("`{field}` {} doesn't hold {expected} as PEM", path.display())]
    Unusable {
        /// The setting that names it.
        field: &'static str,
        /// As it was given.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Clients {
    /// Sets up the client that most peers will share; what is wrong with the settings' certificates is told now.
    pub fn new(settings: &config::Replicator) -> Result<Self, ClientError> {
        // An error means that a provider was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = Self {
            kept: Arc::default(),
            servers: Servers::new(settings.connections_per_server),
            sessions: Sessions::default(),
            counters: Arc::default(),
        };
        let (connection, tls) = (Connection::default(), &settings.tls);
        let policy = Policy::new(&settings.endpoints, true);
        clients.set_up(ClientKey::new(&connection, policy, settings, tls), tls)?;
        Ok(clients)
    }

    /// What is counted of all replications that use these clients.
    pub fn counters(&self) -> &Arc<ReplicatorCounters> {
        &self.counters
    }

    /// How busy the servers are.
    pub fn load(&self) -> PeerLoad {
        self.servers.load()
    }

    /// How long a server wants to be left alone (`Retry-After`).
    pub fn left_alone(&self, endpoint: &RemoteEndpoint) -> Duration {
        self.servers.through(endpoint.connection.proxy.as_ref()).of(&endpoint.url).left_alone()
    }

    /// The client for a peer. It follows no redirects and keeps no cookies: peers do, with an eye on credentials.
    ///
    /// Files are read, and clients are built, on a thread that may block.
    pub(super) async fn client(
        &self,
        connection: &Connection,
        policy: &Policy,
        settings: &config::Replicator,
    ) -> Result<GuardedClient, ClientError> {
        let tls = connection.tls.over(&settings.tls);
        let key = ClientKey::new(connection, policy.clone(), settings, &tls);
        let without_files = Tls { verify_ssl_certificates: tls.verify_ssl_certificates, ..Tls::default() };
        if tls == without_files
            && let Some(client) = self.known(&key)
        {
            return Ok(client);
        }
        let clients = self.clone();
        let setting_up = tasks::blocking("set up an HTTP client", move || clients.set_up(key, &tls)).await;
        setting_up.map_err(|panicked| ClientError::Setup(panicked.to_string()))?
    }

    /// Finds or builds the client, with the certificates as they are now. Nobody waits for it meanwhile: who needs the same
    /// client builds it too, and one of them is kept.
    fn set_up(&self, key: ClientKey, tls: &Tls) -> Result<GuardedClient, ClientError> {
        let files = Files::read(tls)?;
        let key = ClientKey { certificates: files.digest(), ..key };
        if let Some(client) = self.known(&key) {
            return Ok(client);
        }
        let client = build(&key, &files, tls, &self.counters)?;
        let mut kept = self.kept();
        if let Some((_, client)) = kept.iter().find(|(known, _)| *known == key) {
            return Ok(client.clone());
        }
        kept.push_back((key, client.clone()));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(client)
    }

    /// A client that was built before; it is now the most recently used.
    fn known(&self, key: &ClientKey) -> Option<GuardedClient> {
        let mut kept = self.kept();
        let place = kept.iter().position(|(known, _)| known == key)?;
        let (key, client) = kept.remove(place)?;
        kept.push_back((key, client.clone()));
        Some(client)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(ClientKey, GuardedClient)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientKey {
    /// How a peer is reached, without certificates.
    fn new(connection: &Connection, policy: Policy, settings: &config::Replicator, tls: &Tls) -> Self {
        Self {
            policy,
            proxy: connection.proxy.clone(),
            socket: connection.socket_options.unwrap_or(settings.socket_options),
            connect_timeout: connection.connection_timeout.unwrap_or(settings.connection_timeout),
            verify: tls.verify_ssl_certificates.unwrap_or(true),
            certificates: Files::default().digest(),
        }
    }
}

fn build(
    key: &ClientKey,
    files: &Files,
    tls: &Tls,
    counters: &Arc<ReplicatorCounters>,
) -> Result<GuardedClient, ClientError> {
    let guard = Guard::new(key.policy.clone(), key.proxy.as_ref());
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("CouchDB-Replicator/couchrep-", env!("CARGO_PKG_VERSION")))
        // One connection an answer: one that isn't read on holds up no other, and no memory but its own buffer.
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(key.connect_timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .tcp_nodelay(key.socket.nodelay)
        .tcp_keepalive(key.socket.keepalive.then_some(KEEPALIVE))
        .tls_danger_accept_invalid_certs(!key.verify)
        .no_proxy()
        .dns_resolver(Arc::new(guard.clone()))
        .connector_layer(CountConnections(counters.clone()));
    if let Some(proxy) = &key.proxy {
        builder = builder.proxy(proxy.for_client().map_err(setup)?);
    }
    if let (Some(pem), Some(path)) = (&files.trusted, &tls.ssl_trusted_certificates_file) {
        let certificates = Certificate::from_pem_bundle(pem).ok().filter(|certificates| !certificates.is_empty());
        let unusable = || unusable("ssl_trusted_certificates_file", path, "certificates");
        builder = builder.tls_certs_only(certificates.ok_or_else(unusable)?);
    }
    if let (Some(pem), Some(path)) = (&files.identity, &tls.cert_file) {
        let identity = Identity::from_pem(pem).map_err(|_| unusable("cert_file", path, "a certificate and its key"));
        builder = builder.identity(identity?);
    }
    Ok(GuardedClient::new(builder.build().map_err(setup)?, guard))
}

/// The contents of certificate files.
#[derive(Default)]
struct Files {
    trusted: Option<Vec<u8>>,
    /// The certificate, and the key after it.
    identity: Option<Vec<u8>>,
}

impl Files {
    fn read(tls: &Tls) -> Result<Self, ClientError> {
        let read = |field, path: &Option<PathBuf>| path.as_deref().map(|path| read(field, path)).transpose();
        let mut identity = read("cert_file", &tls.cert_file)?;
        if let (Some(certificate), Some(key)) = (&mut identity, read("key_file", &tls.key_file)?) {
            certificate.push(b'\n');
            certificate.extend(key);
        }
        let trusted = read("ssl_trusted_certificates_file", &tls.ssl_trusted_certificates_file)?;
        Ok(Self { trusted, identity })
    }

    fn digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        for file in [&self.trusted, &self.identity] {
            let bytes = file.as_deref().unwrap_or_default();
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        }
        context.finish().as_ref().to_vec()
    }
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    let unreadable = |source| ClientError::Unreadable { field, path: path.to_owned(), source };
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it isn't a file")));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_PEM_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn unusable(field: &'static str, path: &Path, expected: &'static str) -> ClientError {
    ClientError::Unusable { field, path: path.to_owned(), expected }
}

/// The error's own words may hold a proxy's URL; its causes don't.
fn setup(error: reqwest::Error) -> ClientError {
    ClientError::Setup(reason(&error))
}
