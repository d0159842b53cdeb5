//! Options of the command line, the environment and the TOML file, read through one description.
//!
//! [`Options`] derives both clap's parser and serde's: an option `--max-body-bytes` is `COUCHREP_MAX_BODY_BYTES` in the
//! environment and `max_body_bytes` in the file. clap settles command line over environment; [`Options::config`] lays
//! that over the file and the file over the defaults. A key that the file shouldn't have, and a value that makes no
//! sense, is an error that names the option and never shows a password.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::connection::{SocketOptions, Tls};
use super::{Admin, Config, couchdb_ini};

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("could not read the configuration file {}", path.display())]
    Unreadable {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file isn't TOML, or has a key or a value that it shouldn't.
    #[error("{}, line {line}: {problem}", path.display())]
    File {
        /// As it was given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, without the line's own text, which may hold a password.
        problem: String,
    },
    /// A value that makes no sense.
    #[error("{option} {problem}")]
    Value {
        /// As on the command line: `--uuid`.
        option: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A span of time as people write it: `500ms`, `5s`, `10m`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|_| "expected a span of time such as 500ms, 5s or 10m")
    }
}

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Every option of `serve`; absent ones leave the default alone.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:5984]
    #[arg(long, env = "COUCHREP_LISTEN", hide_env = true, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Where the databases live; made where absent [default: data]
    #[arg(long, env = "COUCHREP_DATA_DIR", hide_env = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// An administrator; may be repeated
    ///
    /// Without any, everyone is admin and only loopback addresses may be listened on. Other users of this machine can
    /// read command lines: the environment (several separated by line breaks) and the file are better places.
    #[arg(
        long,
        env = "COUCHREP_ADMIN",
        hide_env = true,
        value_name = "NAME:PASSWORD",
        value_delimiter = '\n',
        value_parser = secret
    )]
    #[serde(deserialize_with = "secrets")]
    pub admin: Vec<SecretString>,

    /// The server's uuid, 32 hex digits [default: made once and kept]
    ///
    /// It enters replication ids: a server that takes another one's place keeps its checkpoints by taking its uuid.
    #[arg(long, env = "COUCHREP_UUID", hide_env = true, value_name = "HEX")]
    pub uuid: Option<String>,

    /// The machine's name in replication ids of versions 1 and 2 [default: the machine's own]
    ///
    /// Checkpoints of old CouchDBs stand under such ids; a log found there is taken over.
    #[arg(long, env = "COUCHREP_HOSTNAME", hide_env = true, value_name = "NAME", hide_short_help = true)]
    pub hostname: Option<String>,

    /// CouchDB's old `[httpd] port`, which enters replication ids of version 2 [default: 5984]
    #[arg(long, env = "COUCHREP_HTTPD_PORT", hide_env = true, value_name = "PORT", hide_short_help = true)]
    pub httpd_port: Option<u16>,

    /// What databases named without a URL stand for in ids and answers [default: the address listened on]
    ///
    /// A server that takes a CouchDB's place keeps its checkpoints by taking its `[chttpd] bind_address` and `port`.
    #[arg(long, env = "COUCHREP_LOCAL_ADDRESS", hide_env = true, value_name = "HOST:PORT", hide_short_help = true)]
    pub local_address: Option<String>,

    /// A TOML file with any of these options
    #[arg(long, env = "COUCHREP_CONFIG", hide_env = true, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// A CouchDB's local.ini, of which the sections replicator and admins and the uuid are taken
    ///
    /// Everything else wins over it. Admins' passwords must stand there as they are, not hashed.
    #[arg(long, env = "COUCHREP_COUCHDB_INI", hide_env = true, value_name = "FILE")]
    pub couchdb_ini: Option<PathBuf>,

    /// What to log: error, warn, info, debug or trace [default: info]
    ///
    /// Or directives: info,couchrep::replicate=debug
    #[arg(long, env = "COUCHREP_LOG", hide_env = true, value_name = "LEVEL")]
    pub log: Option<String>,

    /// `[replicator]` in the file.
    #[command(flatten)]
    pub replicator: ReplicatorOptions,

    /// `[http]` in the file.
    #[command(flatten)]
    pub http: HttpOptions,

    /// `[store]` in the file.
    #[command(flatten)]
    pub store: StoreOptions,
}

/// Options in the file's `[replicator]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Replications, [replicator] in the file")]
pub struct ReplicatorOptions {
    /// Rows of the feed that make a batch [default: 500]
    #[arg(long, env = "COUCHREP_WORKER_BATCH_SIZE", hide_env = true, value_name = "ROWS", hide_short_help = true)]
    pub worker_batch_size: Option<usize>,
    /// Batches in flight, each replication [default: 4]
    #[arg(long, env = "COUCHREP_WORKER_PROCESSES", hide_env = true, value_name = "N", hide_short_help = true)]
    pub worker_processes: Option<usize>,
    /// From progress to the checkpoint that records it [default: 5s]
    #[arg(long, env = "COUCHREP_CHECKPOINT_INTERVAL", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub checkpoint_interval: Option<Span>,
    /// Tries of a request, the first included [default: 10]
    #[arg(long, env = "COUCHREP_RETRIES_PER_REQUEST", hide_env = true, value_name = "N", hide_short_help = true)]
    pub retries_per_request: Option<u32>,
    /// For all tries of a request together [default: 1m]
    #[arg(long, env = "COUCHREP_RETRY_TIME_LIMIT", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub retry_time_limit: Option<Span>,
    /// To connect, and between two pieces of an answer [default: 30s]
    #[arg(long, env = "COUCHREP_CONNECTION_TIMEOUT", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub connection_timeout: Option<Span>,
    /// Requests under way at once to one peer of one replication [default: 20]
    #[arg(long, env = "COUCHREP_HTTP_CONNECTIONS", hide_env = true, value_name = "N", hide_short_help = true)]
    pub http_connections: Option<usize>,
    /// Requests under way at once to one server, all replications together [default: 200]
    #[arg(long, env = "COUCHREP_CONNECTIONS_PER_SERVER", hide_env = true, value_name = "N", hide_short_help = true)]
    pub connections_per_server: Option<usize>,
    /// Of connections to peers, an Erlang term [default: [{keepalive, true}, {nodelay, true}]]
    #[arg(long, env = "COUCHREP_SOCKET_OPTIONS", hide_env = true, value_name = "TERM", hide_short_help = true)]
    pub socket_options: Option<String>,
    /// Whether peers must show certificates that are trusted [default: true]
    #[arg(
        long,
        env = "COUCHREP_VERIFY_SSL_CERTIFICATES",
        hide_env = true,
        value_name = "BOOL",
        hide_short_help = true
    )]
    pub verify_ssl_certificates: Option<bool>,
    /// A PEM file of the authorities that are trusted, in place of the system's
    #[arg(
        long,
        env = "COUCHREP_SSL_TRUSTED_CERTIFICATES_FILE",
        hide_env = true,
        value_name = "FILE",
        hide_short_help = true
    )]
    pub ssl_trusted_certificates_file: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to peers
    #[arg(long, env = "COUCHREP_CERT_FILE", hide_env = true, value_name = "FILE", hide_short_help = true)]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with that certificate's key, unencrypted [default: the certificate's file]
    #[arg(long, env = "COUCHREP_KEY_FILE", hide_env = true, value_name = "FILE", hide_short_help = true)]
    pub key_file: Option<PathBuf>,
    /// Where auth.iam gets its tokens [default: that of IBM Cloud]
    #[arg(long, env = "COUCHREP_IAM_TOKEN_URL", hide_env = true, value_name = "URL", hide_short_help = true)]
    pub iam_token_url: Option<String>,
    /// Between two signs of life of a waiting feed [default: 10s]
    #[arg(long, env = "COUCHREP_HEARTBEAT", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub heartbeat: Option<Span>,
    /// Bytes of documents that one batch gathers before it writes them [default: 2MiB]
    #[arg(long, env = "COUCHREP_BATCH_BYTES", hide_env = true, value_name = "SIZE", hide_short_help = true)]
    pub batch_bytes: Option<ByteSize>,
    /// Bytes of documents in memory, all replications together [default: 64MiB]
    #[arg(long, env = "COUCHREP_MEMORY_BUDGET", hide_env = true, value_name = "SIZE", hide_short_help = true)]
    pub memory_budget: Option<ByteSize>,
    /// For replications to checkpoint and stop, at a cancel or a shutdown [default: 8s]
    #[arg(long, env = "COUCHREP_STOP_DEADLINE", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub stop_deadline: Option<Span>,
    /// Without progress and without a heartbeat, until a replication counts as hung [default: 15m]
    #[arg(long, env = "COUCHREP_STALL_LIMIT", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub stall_limit: Option<Span>,
    /// First pause before a crashed continuous replication restarts; doubled each time [default: 5s]
    #[arg(long, env = "COUCHREP_RESTART_PAUSE", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub restart_pause: Option<Span>,
    /// Longest such pause [default: 10m]
    #[arg(long, env = "COUCHREP_MAX_RESTART_PAUSE", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub max_restart_pause: Option<Span>,
}

/// Options in the file's `[http]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "HTTP server, [http] in the file")]
pub struct HttpOptions {
    /// Largest JSON request body; attachments stream and have no limit [default: 128MiB]
    #[arg(long, env = "COUCHREP_MAX_BODY_BYTES", hide_env = true, value_name = "SIZE", hide_short_help = true)]
    pub max_body_bytes: Option<ByteSize>,
    /// `_uuids?count=` at most [default: 1000]
    #[arg(long, env = "COUCHREP_MAX_UUIDS", hide_env = true, value_name = "N", hide_short_help = true)]
    pub max_uuids: Option<usize>,
    /// Requests worked on at once [default: 2048]
    #[arg(long, env = "COUCHREP_MAX_REQUESTS", hide_env = true, value_name = "N", hide_short_help = true)]
    pub max_requests: Option<usize>,
    /// Connections open at once; further ones wait [default: 4096]
    #[arg(long, env = "COUCHREP_MAX_CONNECTIONS", hide_env = true, value_name = "N", hide_short_help = true)]
    pub max_connections: Option<usize>,
    /// Largest request line and headers together, at least 8KiB [default: 128KiB]
    #[arg(long, env = "COUCHREP_MAX_HEADER_BYTES", hide_env = true, value_name = "SIZE", hide_short_help = true)]
    pub max_header_bytes: Option<ByteSize>,
    /// To send a request's headers, and for a kept connection to stay idle [default: 2m]
    #[arg(long, env = "COUCHREP_HEADER_TIMEOUT", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub header_timeout: Option<Span>,
    /// For open requests to end at a shutdown, once the replications have stopped [default: 1s]
    #[arg(long, env = "COUCHREP_DRAIN_DEADLINE", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub drain_deadline: Option<Span>,
}

/// Options in the file's `[store]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Embedded store, [store] in the file")]
pub struct StoreOptions {
    /// Databases kept open while nobody uses them [default: 500]
    #[arg(long, env = "COUCHREP_OPEN_DATABASES", hide_env = true, value_name = "N", hide_short_help = true)]
    pub open_databases: Option<usize>,
    /// Page cache of each database [default: 16MiB]
    #[arg(long, env = "COUCHREP_CACHE_BYTES", hide_env = true, value_name = "SIZE", hide_short_help = true)]
    pub cache_bytes: Option<ByteSize>,
    /// How long an unsynced write may stay so [default: 1s]
    #[arg(long, env = "COUCHREP_SYNC_INTERVAL", hide_env = true, value_name = "TIME", hide_short_help = true)]
    pub sync_interval: Option<Span>,
}

impl Options {
    /// Reads the file, if one is named, and lays defaults, file and these options over each other.
    pub fn config(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(Self::read).transpose()?.unwrap_or_default();
        let mut config = Config::default();
        if let Some(path) = self.couchdb_ini.as_deref().or(file.couchdb_ini.as_deref()) {
            couchdb_ini::lay_over(&text(path)?, &mut config).map_err(|wrong| {
                let (line, problem) = (wrong.line, wrong.problem);
                ConfigError::File { path: path.to_owned(), line, problem }
            })?;
        }
        file.lay_over(&mut config)?;
        self.lay_over(&mut config)?;
        check(&config)?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = text(path)?;
        toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
            ConfigError::File { path: path.to_owned(), line, problem: error.message().to_owned() }
        })
    }

    fn lay_over(self, config: &mut Config) -> Result<(), ConfigError> {
        set(&mut config.listen, self.listen);
        set(&mut config.data_dir, self.data_dir);
        set(&mut config.log, self.log);
        set(&mut config.httpd_port, self.httpd_port);
        config.uuid = self.uuid.or(config.uuid.take());
        config.hostname = self.hostname.or(config.hostname.take());
        config.local_address = self.local_address.or(config.local_address.take());
        // An empty variable is how a compose file says "none".
        let admins: Vec<_> = self.admin.iter().filter(|admin| !admin.expose_secret().is_empty()).collect();
        if !admins.is_empty() {
            config.admins = admins.into_iter().map(admin).collect::<Result<_, _>>()?;
        }

        let (from, to) = (self.replicator, &mut config.replicator);
        set(&mut to.worker_batch_size, from.worker_batch_size);
        set(&mut to.worker_processes, from.worker_processes);
        set(&mut to.checkpoint_interval, span(from.checkpoint_interval));
        set(&mut to.retries_per_request, from.retries_per_request);
        set(&mut to.retry_time_limit, span(from.retry_time_limit));
        set(&mut to.connection_timeout, span(from.connection_timeout));
        set(&mut to.http_connections, from.http_connections);
        set(&mut to.connections_per_server, from.connections_per_server);
        let options = from.socket_options.map(|term| term.parse::<SocketOptions>()).transpose();
        set(&mut to.socket_options, options.map_err(|problem| value("--socket-options", problem))?);
        let tls = Tls {
            verify_ssl_certificates: from.verify_ssl_certificates,
            ssl_trusted_certificates_file: from.ssl_trusted_certificates_file,
            cert_file: from.cert_file,
            key_file: from.key_file,
        };
        if let Some(problem) = tls.problem() {
            return Err(value("--key-file", problem));
        }
        to.tls = tls.over(&to.tls);
        if let Some(url) = from.iam_token_url {
            let url = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            to.iam_token_url = url.ok_or_else(|| value("--iam-token-url", "must be an http or https URL"))?;
        }
        set(&mut to.heartbeat, span(from.heartbeat));
        set(&mut to.batch_bytes, size(from.batch_bytes));
        set(&mut to.memory_budget, size(from.memory_budget));
        set(&mut to.stop_deadline, span(from.stop_deadline));
        set(&mut to.stall_limit, span(from.stall_limit));
        set(&mut to.restart_pause, span(from.restart_pause));
        set(&mut to.max_restart_pause, span(from.max_restart_pause));

        let (from, to) = (self.http, &mut config.http);
        set(&mut to.max_body_bytes, size(from.max_body_bytes));
        set(&mut to.max_uuids, from.max_uuids);
        set(&mut to.max_requests, from.max_requests);
        set(&mut to.max_connections, from.max_connections);
        set(&mut to.max_header_bytes, size(from.max_header_bytes));
        set(&mut to.header_timeout, span(from.header_timeout));
        set(&mut to.drain_deadline, span(from.drain_deadline));

        let (from, to) = (self.store, &mut config.store);
        set(&mut to.open_databases, from.open_databases);
        set(&mut to.cache_bytes, size(from.cache_bytes));
        set(&mut to.sync_interval, span(from.sync_interval));
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

fn check(config: &Config) -> Result<(), ConfigError> {
    let is_hex = |uuid: &String| uuid.len() == 32 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (replicator, http) = (&config.replicator, &config.http);
    let is_address = |address: &String| {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@']));
        port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    };
    let rules = [
        (config.uuid.as_ref().is_none_or(is_hex), "--uuid", "must be 32 hex digits"),
        (config.hostname.as_ref().is_none_or(|name| !name.is_empty()), "--hostname", "must not be empty"),
        (config.local_address.as_ref().is_none_or(is_address), "--local-address", "must be HOST:PORT"),
        (replicator.worker_batch_size > 0, "--worker-batch-size", "must be at least 1"),
        (replicator.worker_processes > 0, "--worker-processes", "must be at least 1"),
        (replicator.retries_per_request > 0, "--retries-per-request", "must be at least 1"),
        (replicator.http_connections > 0, "--http-connections", "must be at least 1"),
        (replicator.connections_per_server > 0, "--connections-per-server", "must be at least 1"),
        (replicator.batch_bytes > 0, "--batch-bytes", "must be at least 1"),
        (replicator.memory_budget >= replicator.batch_bytes, "--memory-budget", "must be at least --batch-bytes"),
        (!replicator.heartbeat.is_zero(), "--heartbeat", "must be more than nothing"),
        (http.max_requests > 0, "--max-requests", "must be at least 1"),
        (http.max_connections > 0, "--max-connections", "must be at least 1"),
        (http.max_header_bytes >= 8192, "--max-header-bytes", "must be at least 8KiB"),
        (config.store.open_databases > 0, "--open-databases", "must be at least 1"),
    ];
    match rules.into_iter().find(|(holds, ..)| !holds) {
        Some((_, option, problem)) => Err(ConfigError::Value { option, problem }),
        None => Ok(()),
    }
}

fn value(option: &'static str, problem: &'static str) -> ConfigError {
    ConfigError::Value { option, problem }
}

fn admin(text: &SecretString) -> Result<Admin, ConfigError> {
    match text.expose_secret().split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => {
            Ok(Admin { name: name.to_owned(), password: password.into() })
        }
        _ => Err(ConfigError::Value { option: "--admin", problem: "must be NAME:PASSWORD, neither of them empty" }),
    }
}

/// Takes any text: clap would print a value that its parser refuses.
fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

/// Takes a text or a list of them; serde's own message would print a value of the wrong type.
fn secrets<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<SecretString>, D::Error> {
    let texts = match toml::Value::deserialize(value)? {
        toml::Value::Array(texts) => texts,
        one => vec![one],
    };
    let secret = |text| match text {
        toml::Value::String(text) => Ok(SecretString::from(text)),
        _ => Err(D::Error::custom("admin must be a list of texts NAME:PASSWORD")),
    };
    texts.into_iter().map(secret).collect()
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn span(value: Option<Span>) -> Option<Duration> {
    value.map(|span| span.0)
}

fn size(value: Option<ByteSize>) -> Option<usize> {
    value.map(|size| usize::try_from(size.as_u64()).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("couchrep.toml");
        fs::write(&path, toml).unwrap();
        Options { config: Some(path), ..Options::default() }.config()
    }

    fn problem(result: Result<Config, ConfigError>) -> String {
        let text = result.unwrap_err().to_string();
        text.rsplit_once("couchrep.toml, ").map_or(text.clone(), |(_, problem)| problem.to_owned())
    }

    #[test]
    fn the_file_sets_what_it_names_and_leaves_the_rest() {
        let config = read(
            "listen = '[::1]:0'\nadmin = ['root:se:cret']\n\
             [replicator]\ncheckpoint_interval = '500ms'\nmemory_budget = '1GiB'\n[store]\ncache_bytes = 4096\n",
        )
        .unwrap();
        assert_eq!(config.listen, "[::1]:0");
        assert_eq!(config.admins[0].name, "root");
        assert_eq!(config.admins[0].password.expose_secret(), "se:cret");
        assert_eq!(config.replicator.checkpoint_interval, Duration::from_millis(500));
        assert_eq!(config.replicator.memory_budget, 1 << 30);
        assert_eq!(config.store.cache_bytes, 4096);
        assert_eq!(config.replicator.worker_batch_size, 500);
    }

    #[test]
    fn options_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("couchrep.toml");
        fs::write(&path, "listen = 'a:1'\nadmin = ['file:x']\n").unwrap();
        let options = Options {
            config: Some(path),
            listen: Some("b:2".into()),
            admin: vec!["line:y".into()],
            ..Options::default()
        };
        let config = options.config().unwrap();
        assert_eq!(config.listen, "b:2");
        assert_eq!(config.admins.len(), 1);
        assert_eq!(config.admins[0].name, "line");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        assert!(problem(read("log = 'info'\nlissten = 'x'\n")).starts_with("line 2: unknown field `lissten`"));
        assert!(problem(read("[http]\nmax_bodies = 1\n")).starts_with("line 2: unknown field `max_bodies`"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_with_its_line() {
        assert_eq!(
            problem(read("[replicator]\n\nheartbeat = '10 parsecs'\n")),
            "line 3: expected a span of time such as 500ms, 5s or 10m"
        );
    }

    #[test]
    fn values_that_make_no_sense_name_their_option() {
        assert_eq!(problem(read("uuid = 'xyz'\n")), "--uuid must be 32 hex digits");
        assert_eq!(problem(read("local_address = 'h'\n")), "--local-address must be HOST:PORT");
        assert_eq!(problem(read("hostname = ''\n")), "--hostname must not be empty");
        assert_eq!(problem(read("[replicator]\nworker_processes = 0\n")), "--worker-processes must be at least 1");
    }

    #[test]
    fn a_broken_admin_is_refused_without_showing_it() {
        for toml in
            ["admin = ['hunter2']", "admin = [':hunter2']", "admin = ['root:hunter2'", "admin = {root = 'hunter2'}"]
        {
            let error = read(toml).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn settings_can_be_printed_without_their_passwords() {
        let config = read("admin = ['root:hunter2']").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn an_empty_admin_is_none() {
        let options = Options { admin: vec!["".into()], ..Options::default() };
        assert!(options.config().unwrap().admins.is_empty());
    }
}
