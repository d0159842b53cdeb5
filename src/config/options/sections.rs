//! The options that stand in sections of the file: limits, which few people ever set.
//!
//! They are left out of the short help. One that is forgotten where its section is laid over the settings doesn't
//! compile.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, Args};
use serde::Deserialize;
use url::Url;

use super::values::{RuleList, Size, Span};
use super::{ConfigError, in_environment, lay_over};
use crate::config::connection::{SocketOptions, Tls};
use crate::config::cors::{Cors, list};
use crate::config::{Http, Replicator, StoreSettings};

/// What all options of sections have in common. Others pass by here too, and are left as they are.
pub(super) fn of_section(arg: Arg) -> Arg {
    if arg.get_help_heading().is_some() { in_environment(arg).hide_short_help(true) } else { arg }
}

/// Options in the file's `[replicator]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Replications, [replicator] in the file", mut_args(of_section))]
pub struct ReplicatorOptions {
    /// Rows of the feed that make a batch [default: 500]
    #[arg(long, value_name = "ROWS")]
    pub worker_batch_size: Option<usize>,
    /// Batches in flight, each replication [default: 8]
    #[arg(long, value_name = "N")]
    pub worker_processes: Option<usize>,
    /// From progress to the checkpoint that records it [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub checkpoint_interval: Option<Span>,
    /// Tries of a request, the first included [default: 10]
    #[arg(long, value_name = "N")]
    pub retries_per_request: Option<u32>,
    /// For all tries of a request together [default: 1m]
    #[arg(long, value_name = "TIME")]
    pub retry_time_limit: Option<Span>,
    /// To connect, and between two pieces of an answer [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub connection_timeout: Option<Span>,
    /// Requests under way at once to one peer of one replication [default: 20]
    #[arg(long, value_name = "N")]
    pub http_connections: Option<usize>,
    /// Requests under way at once to one server, all replications together [default: 200]
    #[arg(long, value_name = "N")]
    pub connections_per_server: Option<usize>,
    /// Of connections to peers, an Erlang term [default: [{keepalive, true}, {nodelay, true}]]
    #[arg(long, value_name = "TERM")]
    pub socket_options: Option<SocketOptions>,
    /// Whether peers must show certificates that are trusted [default: true]
    #[arg(long, value_name = "BOOL")]
    pub verify_ssl_certificates: Option<bool>,
    /// A PEM file of the authorities that are trusted, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ssl_trusted_certificates_file: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to peers
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with that certificate's key, unencrypted [default: the certificate's file]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Where auth.iam gets its tokens [default: that of IBM Cloud]
    #[arg(long, value_name = "URL")]
    pub iam_token_url: Option<String>,
    /// Between two signs of life of a waiting feed [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<Span>,
    /// Bytes of documents that one batch gathers before it writes them [default: 2MiB]
    #[arg(long, value_name = "SIZE")]
    pub batch_bytes: Option<Size>,
    /// Bytes of documents in memory, all replications together; none larger than a quarter is copied [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory_budget: Option<Size>,
    /// For replications to checkpoint and stop, at a cancel or a shutdown [default: 7s]
    #[arg(long, value_name = "TIME")]
    pub stop_deadline: Option<Span>,
    /// Without progress and without a heartbeat, until a replication counts as hung [default: 15m]
    #[arg(long, value_name = "TIME")]
    pub stall_limit: Option<Span>,
    /// First pause before a crashed continuous replication restarts; doubled each time [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub restart_pause: Option<Span>,
    /// Longest such pause [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub max_restart_pause: Option<Span>,
    /// Shortest such pause after a peer has refused the password [default: 2m]
    #[arg(long, value_name = "TIME")]
    pub refused_pause: Option<Span>,
    /// Longest pause of all replications together at a login that is refused [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub max_refused_pause: Option<Span>,
    /// Longest pause between two tries of a server that is down, all replications together [default: 1m]
    #[arg(long, value_name = "TIME")]
    pub max_probe_pause: Option<Span>,
    /// Replications that copy at once from or to one server; others wait for their turn [default: 100]
    #[arg(long, value_name = "N")]
    pub copying_jobs_per_server: Option<usize>,
    /// Replications that copy at once [default: 400]
    #[arg(long, value_name = "N")]
    pub copying_jobs: Option<usize>,
    /// How often a server is asked whether its feed of all databases has missed a change [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub sweep_interval: Option<Span>,
    /// Whether documents of _replicator are run [default: true]
    #[arg(long, value_name = "BOOL")]
    pub run_documents: Option<bool>,
    /// Whether passing states are written into such documents, too [default: false]
    #[arg(long, value_name = "BOOL")]
    pub update_docs: Option<bool>,
    /// Whether continuous replications asked for at _replicate become documents, and so survive a restart [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub keep_jobs: Option<bool>,
    /// The only places that replications may connect to, separated by commas [default: all that aren't denied]
    ///
    /// Each is [SCHEME://]PLACE[:PORT[-PORT]]: a name (*.example), an address, a network (10.0.0.0/8, fd00::/8) or *.
    #[arg(long, value_name = "RULES")]
    pub allow: Option<RuleList>,
    /// Places that they may not connect to, likewise; link-local addresses and clouds' metadata are denied besides
    #[arg(long, value_name = "RULES")]
    pub deny: Option<RuleList>,
    /// As --allow, for replications of those who aren't server admins, who are held to both
    #[arg(long, value_name = "RULES")]
    pub allow_users: Option<RuleList>,
    /// As --deny, for replications of those who aren't server admins, who are held to both
    #[arg(long, value_name = "RULES")]
    pub deny_users: Option<RuleList>,
}

impl ReplicatorOptions {
    pub(super) fn lay_over(self, to: &mut Replicator) -> Result<(), ConfigError> {
        lay_over! { self over to:
            worker_batch_size, worker_processes, checkpoint_interval, retries_per_request, retry_time_limit,
            connection_timeout, http_connections, connections_per_server, socket_options, heartbeat, batch_bytes,
            memory_budget, stop_deadline, stall_limit, restart_pause, max_restart_pause, refused_pause, max_refused_pause,
            max_probe_pause, copying_jobs_per_server, copying_jobs, sweep_interval, run_documents, update_docs, keep_jobs;
            verify_ssl_certificates, ssl_trusted_certificates_file, cert_file, key_file, iam_token_url, allow, deny,
            allow_users, deny_users
        }
        let tls = Tls { verify_ssl_certificates, ssl_trusted_certificates_file, cert_file, key_file };
        if let Some(problem) = tls.problem() {
            return Err(ConfigError::Value { option: "--key-file", problem });
        }
        to.tls = tls.over(&to.tls);
        if let Some(url) = iam_token_url {
            let url = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let problem = "must be an http or https URL";
            to.iam_token_url = url.ok_or(ConfigError::Value { option: "--iam-token-url", problem })?;
        }
        let rules = Arc::make_mut(&mut to.endpoints);
        for (list, to) in [
            (allow, &mut rules.allow),
            (deny, &mut rules.deny),
            (allow_users, &mut rules.allow_users),
            (deny_users, &mut rules.deny_users),
        ] {
            // An empty variable says nothing, and opens nothing.
            if let Some(RuleList(list)) = list.filter(|list| !list.0.is_empty()) {
                *to = list;
            }
        }
        Ok(())
    }
}

/// Options in the file's `[http]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "HTTP server, [http] in the file", mut_args(of_section))]
pub struct HttpOptions {
    /// Largest JSON request body; attachments stream and have no limit [default: 128MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_body_bytes: Option<Size>,
    /// All JSON request bodies in memory at once, and what is made of them; what finds no room is answered 503, what can never
    /// fit 413 [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_bodies_bytes: Option<Size>,
    /// Large documents in answers that wait for their readers; further ones are read piece by piece [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_answers_bytes: Option<Size>,
    /// Between two pieces of a request body [default: 1m]
    #[arg(long, value_name = "TIME")]
    pub body_pause: Option<Span>,
    /// `_uuids?count=` at most [default: 1000]
    #[arg(long, value_name = "N")]
    pub max_uuids: Option<usize>,
    /// Requests worked on at once; waiting feeds and slow readers don't count [default: 2048]
    #[arg(long, value_name = "N")]
    pub max_requests: Option<usize>,
    /// Answers at once whose clients have stopped reading; further ones are broken off [default: 1024]
    #[arg(long, value_name = "N")]
    pub max_slow_readers: Option<usize>,
    /// A client that takes less than 16 KiB of its answer in so long is cut off [default: 5m]
    #[arg(long, value_name = "TIME")]
    pub reader_pause: Option<Span>,
    /// Connections open at once; further ones wait [default: 16384]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// Largest request line and headers together, at least 8KiB [default: 128KiB]
    #[arg(long, value_name = "SIZE")]
    pub max_header_bytes: Option<Size>,
    /// To send a request's headers, and for a kept connection to stay idle [default: 2m]
    #[arg(long, value_name = "TIME")]
    pub header_timeout: Option<Span>,
    /// For open requests to end at a shutdown, once the replications have stopped [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub drain_deadline: Option<Span>,
    /// Jobs that the metrics tell of one by one; all of them are told by state [default: 1000]
    #[arg(long, value_name = "N")]
    pub metrics_jobs: Option<usize>,
}

impl HttpOptions {
    pub(super) fn lay_over(self, to: &mut Http) {
        lay_over! { self over to:
            max_body_bytes, max_bodies_bytes, max_answers_bytes, body_pause, max_uuids, max_requests, max_slow_readers, reader_pause,
            max_connections, max_header_bytes, header_timeout, drain_deadline, metrics_jobs;
        }
    }
}

/// Options in the file's `[cors]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Other sites' pages, [cors] in the file", mut_args(of_section))]
pub struct CorsOptions {
    /// Origins whose pages may talk to the server, separated by commas; * is all [default: none]
    #[arg(long, value_name = "ORIGINS")]
    pub cors_origins: Option<String>,
    /// Whether they may do so in the name of whoever is logged in [default: false]
    #[arg(long, value_name = "BOOL")]
    pub cors_credentials: Option<bool>,
}

impl CorsOptions {
    pub(super) fn lay_over(self, to: &mut Cors) {
        let Self { cors_origins, cors_credentials } = self;
        if let Some(origins) = cors_origins {
            to.origins = list(&origins);
            to.enabled = !to.origins.is_empty();
        }
        if let Some(credentials) = cors_credentials {
            to.credentials = credentials;
        }
    }
}

/// Options in the file's `[store]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Embedded store, [store] in the file", mut_args(of_section))]
pub struct StoreOptions {
    /// Databases kept open while nobody uses them [default: 500]
    #[arg(long, value_name = "N")]
    pub open_databases: Option<usize>,
    /// Page caches of all open databases together [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub cache_bytes: Option<Size>,
    /// How long an unsynced write may stay so [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub sync_interval: Option<Span>,
}

impl StoreOptions {
    pub(super) fn lay_over(self, to: &mut StoreSettings) {
        lay_over! { self over to: open_databases, cache_bytes, sync_interval; }
    }
}
