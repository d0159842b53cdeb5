//! The running server: binds, opens the store or finds the CouchDB beside which it stands, serves, and puts everything away again.
//!
//! [`Server::stop`] is the one list of what ends in which order. Replications stop while requests are still answered:
//! a replication may talk to this very server by its URL, and its last checkpoint must get through. Then the listener
//! closes, feeds are told to end, open requests drain, and the store closes last, when nobody can write any more. What
//! doesn't end by its deadline is dropped; the store survives that as it survives a crash.

mod connections;
mod backend;
mod client_stream;
mod raw_targets;
mod slow_reader;
mod hang_up;
mod start_error;
mod tls;
pub mod identity;
pub mod open_files;

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::join;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::backend::Opened;
use self::connections::Serving;
pub use self::start_error::StartError;
use self::tls::ServerCertificate;
use crate::beside::CouchDbUsers;
use crate::config::Config;
use crate::http::{self, Backend};
use crate::jobs::Jobs;
use crate::jobs::documents::DescribedJobs;
use crate::jobs::documents::home::DocumentHome;
use crate::jobs::owners::Owners;
use crate::peer::remote::Clients;
use crate::replicate::Context;
use crate::replicate::failures::FailureFiles;
use crate::settings::Settings;
use crate::store::Store;
use crate::takeover::Takeover;
use crate::tasks::Tasks;

/// A server that listens.
pub struct Server {
    addr: SocketAddr,
    settings: Settings,
    uuid: String,
    certificate: Option<ServerCertificate>,
    /// Absent beside a CouchDB.
    store: Option<Store>,
    jobs: Jobs,
    availability: http::Availability,
    /// Accepts, and serves every connection.
    connections: Tasks,
    /// Connections to the CouchDB, if it stands beside one.
    to_couchdb: Tasks,
    /// Whose replications the CouchDB's documents describe, if it stands beside one as its admin.
    takeover: Option<Takeover>,
}

impl Server {
    /// Accepts, and takes a CouchDB's replications over if that is asked for.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::accept(config).await?.take_over(std::future::pending()).await
    }

    /// Takes the replications over of the CouchDB beside which it stands, if that is asked for; then it is up. Requests are answered
    /// meanwhile: to find out whether another couchrep is living takes most of a minute. It stops if it fails, as when it is `stopped`
    /// before.
    pub async fn take_over(mut self, stopped: impl Future<Output = ()>) -> Result<Self, StartError> {
        let config = self.settings.current();
        let beside = config.couchdb.as_ref().map(|couchdb| couchdb.url.as_str());
        if let Some(takeover) = &mut self.takeover
            && let Err(source) = takeover.begin(stopped).await
        {
            self.stop().await;
            return Err(StartError::TakeOver { url: beside.unwrap_or_default().to_owned(), source });
        }
        self.availability.up();
        tracing::info!(addr = %self.addr, beside, data_dir = %config.data_dir.display(), server.uuid = self.uuid, "started");
        Ok(self)
    }

    /// Binds, opens the store or waits for the CouchDB, and answers requests from then on.
    pub async fn accept(config: Config) -> Result<Self, StartError> {
        let settings = Settings::read(config).await?;
        let config = settings.current();
        let certificate = config.tls.as_ref().map(ServerCertificate::read).transpose()?;
        let listener = listen(&config).await?;
        let addr = listener.local_addr().map_err(|source| not_listening(&config, source))?;
        let (connections, to_couchdb) = (Tasks::default(), Tasks::default());
        let clients = Clients::new(&config.replicator)?;
        let opened = backend::open(&settings, &clients, addr, &to_couchdb).await?;
        let Opened { backend, databases, admin, uuid, address } = opened;
        let takeover = backend::takeover(&config, admin.clone());
        let settings_of_jobs = Arc::new(config.replicator.clone());
        let identity = identity::of(&config, &address, &uuid);
        let context = Context::new(databases, FailureFiles::under(&config.data_dir), settings_of_jobs, identity);
        let budget = context.budget.clone();
        let (store, callers, documents) = match &backend {
            Backend::Embedded { store, accounts } => {
                let (home, owners) = (DocumentHome::of_store(store.clone()), Owners::Accounts(accounts.clone()));
                let documents = DescribedJobs { home, runner: None, owners };
                (Some(store.clone()), None, Some(documents))
            }
            Backend::CouchDb(callers) => {
                let documents = admin.filter(|_| config.replicator.run_documents).map(|admin| DescribedJobs {
                    home: DocumentHome::of_couchdb(admin.clone()),
                    runner: takeover.as_ref().map(Takeover::runner),
                    owners: Owners::CouchDb(CouchDbUsers::new(admin)),
                });
                (None, Some(callers.clone()), documents)
            }
        };
        let jobs = Jobs::new(context, documents);
        let (availability, traffic) = (http::Availability::default(), http::Traffic::default());
        let shared = http::Shared {
            backend,
            jobs: jobs.clone(),
            bodies: Arc::new(Semaphore::new(config.http.max_bodies_bytes.min(Semaphore::MAX_PERMITS))),
            answers: http::Answers::new(config.http.max_answers_bytes),
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
        let (listener, open, tasks) = ((listener, certificate.clone()), traffic.connections, connections.clone());
        match callers {
            None => {
                let serving = Serving { limits: config.http.clone(), keeps_case: false };
                let router = http::router(shared.into());
                connections.spawn("accept", connections::accept(listener, router, serving, open, tasks))
            }
            Some(callers) => {
                let serving = Serving { limits: backend::limits_beside(&config.http), keeps_case: true };
                let router = http::router_beside(shared.into(), callers);
                connections.spawn("accept", connections::accept(listener, router, serving, open, tasks))
            }
        };
        Ok(Self { addr, settings, uuid, certificate, store, jobs, availability, connections, to_couchdb, takeover })
    }

    /// Its settings, which may change.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reads the certificate again, if there is one: it counts for connections from now on. One that can't be used changes nothing.
    pub fn read_certificate_again(&self) {
        let Some(certificate) = &self.certificate else { return };
        match certificate.read_again() {
            Ok(()) => tracing::info!("read the certificate again"),
            Err(error) => {
                let reason = error.source().map(ToString::to_string);
                tracing::error!(%error, reason, "the certificate stays what it was");
            }
        }
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
        let began = Instant::now();
        self.availability.stops();
        self.jobs.stop();
        if !self.jobs.drained(config.replicator.stop_deadline).await {
            tracing::warn!("replications were still running at the deadline; they go on from their last checkpoints");
        }
        self.connections.stop();
        let give_back = async {
            if let Some(takeover) = self.takeover {
                takeover.give_back(STOP_LIMIT.saturating_sub(began.elapsed()).max(config.http.drain_deadline)).await;
            }
        };
        let ((), drained) = join!(give_back, self.connections.ended_within(config.http.drain_deadline));
        if !drained {
            tracing::warn!("requests were still open at the deadline");
        }
        // What passes through may go on for days. It breaks off here, on both sides.
        self.to_couchdb.stop();
        if !self.to_couchdb.ended_within(CLOSE_DEADLINE).await {
            tracing::warn!("connections to CouchDB were still open at the deadline");
        }
        if let Some(store) = self.store
            && timeout(CLOSE_DEADLINE, store.close()).await.is_err()
        {
            tracing::error!("the store didn't close in time; it will recover when it is opened");
        }
        tracing::info!("stopped");
    }
}

/// For the store's last syncs; with the two deadlines of the settings it keeps a shutdown within ten seconds.
const CLOSE_DEADLINE: Duration = Duration::from_millis(800);

/// When CouchDB's replications must have been given back. If all of them end in time, that has most of it; they wait for a repair else.
const STOP_LIMIT: Duration = Duration::from_secs(9);

async fn listen(config: &Config) -> Result<TcpListener, StartError> {
    let addrs: Vec<_> = match lookup_host(&config.listen).await {
        Ok(addrs) => addrs.collect(),
        Err(source) => return Err(not_listening(config, source)),
    };
    // Beside a CouchDB nobody is admin whom it doesn't call one.
    if config.admins.is_empty() && config.couchdb.is_none() {
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
