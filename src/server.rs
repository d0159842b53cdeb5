//! The running server: binds, opens the store, serves, and puts everything away again.
//!
//! [`Server::stop`] is the one list of what ends in which order. Replications stop while requests are still answered:
//! a replication may talk to this very server by its URL, and its last checkpoint must get through. Then the listener
//! closes, feeds are told to end, open requests drain, and the store closes last, when nobody can write any more. What
//! doesn't end by its deadline is dropped; the store survives that as it survives a crash.

mod connections;
mod client_stream;
mod raw_targets;
mod slow_reader;
mod start_error;
mod tls;
pub mod identity;
pub mod open_files;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use self::start_error::StartError;
use crate::accounts::Accounts;
use crate::config::{Config, StoreSettings};
use crate::databases::Databases;
use crate::http;
use crate::jobs::Jobs;
use crate::peer::remote::Clients;
use crate::replicate::Context;
use crate::replicate::failures::FailureFiles;
use crate::replicate::request::check_document;
use crate::settings::Settings;
use crate::store::{DbName, Store, StoreError};
use crate::tasks::Tasks;

/// A server that listens.
pub struct Server {
    addr: SocketAddr,
    settings: Settings,
    store: Store,
    jobs: Jobs,
    availability: http::Availability,
    /// Accepts, and serves every connection.
    connections: Tasks,
}

impl Server {
    /// Binds, opens the store, and serves from then on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let settings = Settings::read(config).await?;
        let config = settings.current();
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let listener = listen(&config).await?;
        let addr = listener.local_addr().map_err(|source| not_listening(&config, source))?;
        let store = open_store(&config).await?;
        let uuid = identity::uuid(&config).await?;
        settings.complete().await?;
        let accounts = Accounts::open(settings.watch(), store.clone()).await?;
        store.ensure(&DbName::replicator()).await.map_err(|source| unusable(&config, source))?;
        let connections = Tasks::default();
        let clients = Clients::new(&config.replicator)?;
        let context = context(&config, &store, &clients, addr, &uuid);
        let budget = context.budget.clone();
        let jobs = Jobs::new(context, Some((store.clone(), accounts.clone())));
        let (availability, traffic) = (http::Availability::default(), http::Traffic::default());
        let shared = http::Shared {
            store: store.clone(),
            jobs: jobs.clone(),
            bodies: Arc::new(Semaphore::new(config.http.max_bodies_bytes.min(Semaphore::MAX_PERMITS))),
            answers: http::Answers::new(config.http.max_answers_bytes),
            accounts,
            settings: settings.clone(),
            uuid: uuid.clone(),
            availability: availability.clone(),
            started: Instant::now(),
            traffic: traffic.clone(),
            permits: http::RequestPermits::new(config.http.max_requests, config.http.max_slow_readers),
            clients,
            budget,
            tasks: connections.clone(),
        };
        let router = http::router(shared.into());
        let (limits, open) = (config.http.clone(), traffic.connections);
        let accepting = connections::accept((listener, tls), router, limits, open, connections.clone());
        connections.spawn("accept", accepting);
        availability.up();
        tracing::info!(%addr, data_dir = %config.data_dir.display(), server.uuid = uuid, "started");
        Ok(Self { addr, settings, store, jobs, availability, connections })
    }

    /// Its settings, which may change.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it listens: the real port, where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The root's URL without a slash at its end, as one on this machine may use it.
    pub fn url(&self) -> String {
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() });
        }
        let scheme = if self.settings.current().tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{addr}")
    }

    /// Ends everything in order; with the default deadlines, within ten seconds.
    pub async fn stop(self) {
        let config = self.settings.current();
        self.availability.stops();
        self.jobs.stop();
        if !self.jobs.drained(config.replicator.stop_deadline).await {
            tracing::warn!("replications were still running at the deadline; they go on from their last checkpoints");
        }
        self.connections.stop();
        if !self.connections.ended_within(config.http.drain_deadline).await {
            tracing::warn!("requests were still open at the deadline");
        }
        if timeout(CLOSE_DEADLINE, self.store.close()).await.is_err() {
            tracing::error!("the store didn't close in time; it will recover when it is opened");
        }
        tracing::info!("stopped");
    }
}

/// For the store's last syncs; with the two deadlines of the settings it keeps a shutdown within ten seconds.
const CLOSE_DEADLINE: Duration = Duration::from_millis(800);

async fn listen(config: &Config) -> Result<TcpListener, StartError> {
    let addrs: Vec<_> = match lookup_host(&config.listen).await {
        Ok(addrs) => addrs.collect(),
        Err(source) => return Err(not_listening(config, source)),
    };
    if config.admins.is_empty() {
        if let Some(open) = addrs.iter().find(|addr| !addr.ip().is_loopback()) {
            return Err(StartError::Open(*open));
        }
        tracing::warn!("there are no admins: everyone on this machine is admin");
    }
    TcpListener::bind(&addrs[..]).await.map_err(|source| not_listening(config, source))
}

fn not_listening(config: &Config, source: io::Error) -> StartError {
    let listen = config.listen.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::Taken { listen },
        _ => StartError::Listen { listen, source },
    }
}

async fn open_store(config: &Config) -> Result<Store, StartError> {
    let dir = &config.data_dir;
    let settings = StoreSettings { password_iterations: config.auth.iterations, ..config.store.clone() };
    Store::open_with(dir, settings, check_document).await.map_err(|source| unusable(config, source))
}

fn unusable(config: &Config, source: StoreError) -> StartError {
    StartError::Store { dir: config.data_dir.clone(), source }
}

/// What the server's replications share.
fn context(config: &Config, store: &Store, clients: &Clients, address: SocketAddr, uuid: &str) -> Context {
    let settings = Arc::new(config.replicator.clone());
    let identity = identity::of(config, &address.to_string(), uuid);
    let failures = FailureFiles::under(&config.data_dir);
    let databases = Databases::new(Some(store.clone()), clients.clone(), settings.clone());
    Context::new(databases, failures, settings, identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_that_is_couchdbs_is_told_as_such() {
        let told = |listen: &str| {
            let config = Config { listen: listen.into(), ..Config::default() };
            not_listening(&config, io::ErrorKind::AddrInUse.into()).to_string()
        };
        assert!(told("127.0.0.1:5984").contains("taken, probably by a CouchDB or another couchrep; take another"));
        assert!(!told("127.0.0.1:80").contains("CouchDB"));
    }
}
