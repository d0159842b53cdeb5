//! Every setting, default and limit.
//!
//! A setting comes from the command line, else from the environment (`COUCHREP_…`), else from the TOML file, else from
//! a CouchDB's own file, else from the defaults below. [`options`] reads the first three, all of them through one
//! description of each option, and lays them over the others; the rest of the crate only sees [`Config`].

mod admin;
pub mod auth;
pub mod connection;
pub mod couchdb;
pub mod cors;
pub mod secrets;
pub mod keys;
mod couchdb_ini;
pub mod options;
mod check;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use self::auth::Auth;
use self::connection::{SocketOptions, Tls};
use self::cors::Cors;
use self::couchdb::{CouchDb, CouchDbAdmin, TakeOver};
use self::secrets::DeclaredSecrets;
use crate::policy::EndpointRules;
pub use admin::{Admin, Password};
pub use options::{ConfigError, Options};

/// All of a server's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: String,
    /// Where the embedded store lives.
    pub data_dir: PathBuf,
    /// The CouchDB beside which the server stands, in place of the embedded store.
    pub couchdb: Option<CouchDb>,
    /// A server admin there, for what callers can't do: documents of replications, sessions that last, taking over.
    pub couchdb_admin: Option<CouchDbAdmin>,
    /// Whether the replications of that CouchDB are run here instead of there.
    pub take_over: Option<TakeOver>,
    /// How long the job of somebody may last who proved by a cookie who he is.
    pub couchdb_session_max: Duration,
    /// The server's uuid, which enters replication ids; made once and kept in the data dir if absent.
    pub uuid: Option<String>,
    /// The machine's name as ids of versions 1 and 2 have it; the machine's own if absent.
    pub hostname: Option<String>,
    /// The port of CouchDB's old HTTP server, which enters ids of version 2.
    pub httpd_port: u16,
    /// `host:port` that databases named without a URL stand for in ids and answers; `listen` if absent.
    pub local_address: Option<String>,
    /// With none, everyone is admin, and only loopback addresses may be listened on.
    pub admins: Vec<Admin>,
    /// How people prove who they are.
    pub auth: Auth,
    /// What is logged: a level, or directives as `tracing` knows them (`info,couchrep::replicate=debug`).
    pub log: String,
    /// Defaults and limits of replications.
    pub replicator: Replicator,
    /// Limits of the HTTP server.
    pub http: Http,
    /// With which certificate TLS is spoken; without one it isn't.
    pub tls: Option<TlsFiles>,
    /// Where the files of an admin UI are, answered under `/_utils/`.
    pub utils_dir: Option<PathBuf>,
    /// Which other sites' pages may talk to the server.
    pub cors: Cors,
    /// Whether `_users/_security` may be changed, so that others than admins may open that database.
    pub users_db_security_editable: bool,
    /// Limits of the embedded store.
    pub store: StoreSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5984".into(),
            data_dir: "data".into(),
            couchdb: None,
            couchdb_admin: None,
            take_over: None,
            couchdb_session_max: Duration::from_secs(30 * 24 * 60 * 60),
            uuid: None,
            hostname: None,
            httpd_port: 5984,
            local_address: None,
            admins: Vec::new(),
            auth: Auth::default(),
            log: "info".into(),
            replicator: Replicator::default(),
            http: Http::default(),
            tls: None,
            utils_dir: None,
            cors: Cors::default(),
            users_db_security_editable: false,
            store: StoreSettings::default(),
        }
    }
}

/// The server's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// A PEM file with the certificate and its chain.
    pub cert: PathBuf,
    /// A PEM file with its key, unencrypted.
    pub key: PathBuf,
}

/// Defaults and limits of replications, under the names of CouchDB's `[replicator]` section where it has them.
#[derive(Debug, Clone)]
pub struct Replicator {
    /// Rows of the feed that make a batch.
    pub worker_batch_size: usize,
    /// Batches in flight.
    pub worker_processes: usize,
    /// From progress to the checkpoint that records it.
    pub checkpoint_interval: Duration,
    /// Tries of a request, the first included.
    pub retries_per_request: u32,
    /// For all tries of a request together.
    pub retry_time_limit: Duration,
    /// To connect, and between two pieces of an answer.
    pub connection_timeout: Duration,
    /// Requests under way at once to one peer of one replication.
    pub http_connections: usize,
    /// Requests under way at once to one server, all replications together.
    pub connections_per_server: usize,
    /// Of connections to peers.
    pub socket_options: SocketOptions,
    /// Certificates, shown and trusted.
    pub tls: Tls,
    /// Where `auth.iam` gets its tokens.
    pub iam_token_url: Url,
    /// Between two signs of life of a waiting feed.
    pub heartbeat: Duration,
    /// Bytes of documents that one batch gathers before it writes them.
    pub batch_bytes: usize,
    /// Bytes of documents in memory, all replications together. One larger than a quarter of this is recorded as failed.
    pub memory_budget: usize,
    /// From a cancel or a shutdown until a task that doesn't come to its end is dropped.
    pub stop_deadline: Duration,
    /// After so long without progress and without a heartbeat a replication counts as hung; it never is less than its
    /// peers' limits of time together.
    pub stall_limit: Duration,
    /// The first pause before a crashed continuous replication starts again; doubled each time.
    pub restart_pause: Duration,
    /// The longest such pause.
    pub max_restart_pause: Duration,
    /// The shortest such pause after a peer has refused the credentials. CouchDB locks an account that fails five times in
    /// five minutes.
    pub refused_pause: Duration,
    /// The longest pause of all jobs together at a login that is refused.
    pub max_refused_pause: Duration,
    /// The longest pause between two tries of a server that is down, all jobs together.
    pub max_probe_pause: Duration,
    /// Jobs that copy at once from or to one server; or within the embedded store.
    pub copying_jobs_per_server: usize,
    /// Jobs that copy at once.
    pub copying_jobs: usize,
    /// How often `_dbs_info` is asked whether a server's feed of all databases has missed a change.
    pub sweep_interval: Duration,
    /// Whether continuous replications that are asked for at `_replicate` become documents.
    pub keep_jobs: bool,
    /// Whether documents that describe replications are followed.
    pub run_documents: bool,
    /// Whether documents that describe replications are told of passing states too.
    pub update_docs: bool,
    /// What replications may name instead of holding a password or a token.
    pub secrets: DeclaredSecrets,
    /// Where they may connect to.
    pub endpoints: Arc<EndpointRules>,
}

/// IBM Cloud's.
const IAM_TOKEN_URL: &str = "https://iam.cloud.ibm.com/identity/token";

impl Default for Replicator {
    fn default() -> Self {
        Self {
            worker_batch_size: 500,
            worker_processes: 8,
            checkpoint_interval: Duration::from_secs(5),
            retries_per_request: 10,
            retry_time_limit: Duration::from_secs(60),
            connection_timeout: Duration::from_secs(30),
            http_connections: 20,
            connections_per_server: 200,
            socket_options: SocketOptions::default(),
            tls: Tls::default(),
            iam_token_url: Url::parse(IAM_TOKEN_URL).expect("a URL"),
            heartbeat: Duration::from_secs(10),
            batch_bytes: 2 << 20,
            memory_budget: 64 << 20,
            stop_deadline: Duration::from_secs(7),
            stall_limit: Duration::from_secs(900),
            restart_pause: Duration::from_secs(5),
            max_restart_pause: Duration::from_secs(600),
            refused_pause: Duration::from_secs(120),
            max_refused_pause: Duration::from_secs(3600),
            max_probe_pause: Duration::from_secs(60),
            copying_jobs_per_server: 100,
            copying_jobs: 400,
            sweep_interval: Duration::from_secs(600),
            keep_jobs: false,
            run_documents: true,
            update_docs: false,
            secrets: DeclaredSecrets::default(),
            endpoints: Arc::default(),
        }
    }
}

/// Limits of the HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    /// Bytes of a JSON request body; attachments stream and have no limit.
    pub max_body_bytes: usize,
    /// Bytes of all JSON request bodies that are in memory at once; and of what is made of them; a
    /// request that finds no room is answered 503, one that can never fit 413.
    pub max_bodies_bytes: usize,
    /// Bytes of large documents in answers whose readers haven't taken them yet, all together; further ones are read from
    /// the store a piece at a time.
    pub max_answers_bytes: usize,
    /// Between two pieces of a request body.
    pub body_pause: Duration,
    /// `_uuids?count=` at most.
    pub max_uuids: usize,
    /// Requests worked on at once; feeds that wait and answers to slow readers don't count.
    pub max_requests: usize,
    /// Answers at once whose clients have stopped reading for now; further ones are broken off.
    pub max_slow_readers: usize,
    /// A client that takes less than 16 KiB of its answer in so long is cut off. Long, since a replicator whose target is busy may
    /// leave its source's feed unread for minutes.
    pub reader_pause: Duration,
    /// Connections open at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Bytes of a request's line and headers, and of a connection's read buffer.
    pub max_header_bytes: usize,
    /// To send a request's headers, and for a kept connection to stay idle. Longer than clients keep idle connections
    /// (90 s is common), so that it is they who close them and no request meets a connection that just closed.
    pub header_timeout: Duration,
    /// For open requests to end at a shutdown, once the replications have stopped.
    pub drain_deadline: Duration,
    /// Jobs whose numbers the metrics tell one by one; all of them are told by state.
    pub metrics_jobs: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            max_body_bytes: 128 << 20,
            max_bodies_bytes: 256 << 20,
            max_answers_bytes: 64 << 20,
            body_pause: Duration::from_secs(60),
            max_uuids: 1000,
            max_requests: 2048,
            max_slow_readers: 1024,
            reader_pause: Duration::from_secs(300),
            max_connections: 16_384,
            max_header_bytes: 128 << 10,
            header_timeout: Duration::from_secs(120),
            drain_deadline: Duration::from_secs(1),
            metrics_jobs: 1000,
        }
    }
}

/// Limits of the embedded store.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Databases kept open while nobody uses them.
    pub open_databases: usize,
    /// Bytes of all open databases' page caches together.
    pub cache_bytes: usize,
    /// How long an unsynced write may stay so.
    pub sync_interval: Duration,
    /// Rounds of a new user's password: those of `auth`.
    pub password_iterations: NonZeroU32,
    /// Limits of design documents' functions.
    pub javascript: Javascript,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            open_databases: 500,
            cache_bytes: 256 << 20,
            sync_interval: Duration::from_secs(1),
            password_iterations: Auth::default().iterations,
            javascript: Javascript::default(),
        }
    }
}

/// Limits of design documents' functions.
#[derive(Debug, Clone)]
pub struct Javascript {
    /// A function's time for one document, and for being compiled: CouchDB's `os_process_timeout`.
    pub call_time: Duration,
    /// Bytes of an interpreter's heap.
    pub memory_bytes: usize,
    /// Functions that run at once; each takes a thread, and may take its whole heap.
    pub interpreters: usize,
    /// Compiled functions that are kept while nobody uses them.
    pub idle_interpreters: usize,
    /// Bytes of the heap of one that is kept.
    pub idle_bytes: usize,
}

impl Default for Javascript {
    fn default() -> Self {
        Self {
            call_time: Duration::from_secs(5),
            memory_bytes: 64 << 20,
            interpreters: 8,
            idle_interpreters: 16,
            idle_bytes: 4 << 20,
        }
    }
}
