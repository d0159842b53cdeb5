//! Options of the command line, the environment and the TOML file, read through one description.
//!
//! [`Options`] derives both clap's parser and serde's: an option `--max-body-bytes` is `COUCHREP_MAX_BODY_BYTES` in the
//! environment and `max_body_bytes` in the file. clap settles command line over environment; [`Options::config`] lays
//! that over the file and the file over the defaults. A key that the file shouldn't have, and a value that makes no
//! sense, is an error that names the option and never shows a password.

mod sections;
mod auth;
mod secrets;
mod values;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Args};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::couchdb::CouchDb;
use super::{Config, TlsFiles, couchdb_ini};
pub use auth::AuthOptions;
pub use secrets::SecretOptions;
pub use sections::{CorsOptions, HttpOptions, ReplicatorOptions, StoreOptions};

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is named can't be read.
    #[error("could not read {}", path.display())]
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
    /// A secret that is declared in a way that makes no sense.
    #[error("[secrets.{name}] {problem}")]
    Secret {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Lays options over the settings of their names, and binds the other options, so that none can be forgotten.
macro_rules! lay_over {
    ($options:ident over $settings:ident: $($same:ident),+; $($other:ident),*) => {
        let Self { $($same,)+ $($other),* } = $options;
        $(if let Some(value) = $same { $settings.$same = value.into(); })+
    };
}
use lay_over;

/// Lets an option stand in the environment too: `--data-dir` as `COUCHREP_DATA_DIR`. Its value is never shown.
fn in_environment(arg: Arg) -> Arg {
    let name = format!("COUCHREP_{}", arg.get_id().as_str().to_uppercase());
    arg.env(name).hide_env(true)
}

/// Every option of `serve`; absent ones leave the default alone.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(mut_args(in_environment))]
pub struct Options {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:5984]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Where the databases live; made if absent [default: data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// A CouchDB to stand beside, by its root: names without a URL are its databases, and all but replication passes through
    ///
    /// http://127.0.0.1:5984. Nothing is kept in an embedded store then, and who somebody is and what he may do, that CouchDB
    /// says.
    #[arg(long, value_name = "URL")]
    pub couchdb: Option<String>,

    /// A server admin of that CouchDB: documents in its `_replicator` are run, and sessions' jobs may last
    ///
    /// Other users of this machine can read command lines: the environment and the file are better places.
    #[arg(long, value_name = "NAME:PASSWORD")]
    #[serde(deserialize_with = "values::maybe_secret")]
    pub couchdb_admin: Option<SecretString>,

    /// A file with that admin: NAME:PASSWORD, as container secrets come
    #[arg(long, value_name = "FILE")]
    pub couchdb_admin_file: Option<PathBuf>,

    /// Run that CouchDB's replications here, while its own scheduler stands still; at the end they are given back
    ///
    /// Those that were asked for at its own `_replicate` can't be taken over: if there are any, the start fails and names them.
    /// --take-over=force suspends them. After a crash the next start repairs, or `couchrep give-back`.
    #[arg(long, value_name = "force", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub take_over: Option<values::TakeOverChoice>,

    /// How long a continuous replication of a session's user may last there before he has to ask again [default: 30d]
    #[arg(long, value_name = "TIME")]
    pub couchdb_session_max: Option<values::Span>,

    /// An administrator; may be repeated
    ///
    /// Without any, everyone is admin and only loopback addresses may be listened on. Other users of this machine can
    /// read command lines: the environment (several separated by line breaks) and the file are better places. PASSWORD
    /// may be hashed as in a CouchDB's local.ini: -pbkdf2:sha256-KEY,SALT,ITERATIONS.
    #[arg(long, value_name = "NAME:PASSWORD", value_delimiter = '\n')]
    #[serde(deserialize_with = "values::secrets")]
    pub admin: Vec<SecretString>,

    /// A file with administrators, one NAME:PASSWORD a line
    ///
    /// As container secrets come: /run/secrets/admin. They are admins beside those of --admin.
    #[arg(long, value_name = "FILE")]
    pub admin_file: Option<PathBuf>,

    /// The server's uuid, 32 hex digits [default: made once and kept]
    ///
    /// It enters replication ids: a server that takes another one's place keeps its checkpoints by taking its uuid.
    #[arg(long, value_name = "HEX")]
    pub uuid: Option<String>,

    /// The machine's name in replication ids of versions 1 and 2 [default: the machine's own]
    ///
    /// Checkpoints of old CouchDBs stand under such ids; a log found there is taken over.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub hostname: Option<String>,

    /// CouchDB's old `[httpd] port`, which enters replication ids of version 2 [default: 5984]
    #[arg(long, value_name = "PORT", hide_short_help = true)]
    pub httpd_port: Option<u16>,

    /// What databases named without a URL stand for in ids and answers [default: the address listened on]
    ///
    /// A server that takes a CouchDB's place keeps its checkpoints by taking its `[chttpd] bind_address` and `port`.
    #[arg(long, value_name = "HOST:PORT", hide_short_help = true)]
    pub local_address: Option<String>,

    /// A PEM file with a certificate and its chain: TLS is spoken, and nothing else
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// A PEM file with that certificate's key, unencrypted [default: the certificate's file]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// A directory with an admin UI, Fauxton or Futon, that is served under /_utils/ [default: none]
    #[arg(long, value_name = "DIR")]
    pub utils_dir: Option<PathBuf>,

    /// Whether `PUT /_users/_security` is taken [default: false]
    ///
    /// CouchDB's `[couchdb] users_db_security_editable`: people can sign up and change their passwords by themselves only
    /// if that object lets them in.
    #[arg(long, value_name = "BOOL", hide_short_help = true)]
    pub users_db_security_editable: Option<bool>,

    /// A TOML file with any of these options
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// A CouchDB's local.ini, of which replications, admins, logins and the uuid are taken
    ///
    /// Everything else wins over it. Admins' passwords may be hashed, as CouchDB leaves them.
    #[arg(long, value_name = "FILE")]
    pub couchdb_ini: Option<PathBuf>,

    /// What to log: error, warn, info, debug or trace [default: info]
    ///
    /// Or directives: info,couchrep::replicate=debug
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,

    /// `[auth]` in the file.
    #[command(flatten)]
    pub auth: AuthOptions,

    /// `[replicator]` in the file.
    #[command(flatten)]
    pub replicator: ReplicatorOptions,

    /// `[http]` in the file.
    #[command(flatten)]
    pub http: HttpOptions,

    /// `[cors]` in the file.
    #[command(flatten)]
    pub cors: CorsOptions,

    /// `[store]` in the file.
    #[command(flatten)]
    pub store: StoreOptions,

    /// `[secrets.NAME]` in the file, and nowhere else.
    #[arg(skip)]
    pub secrets: BTreeMap<String, SecretOptions>,
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
        config.check()?;
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

    fn lay_over(self, to: &mut Config) -> Result<(), ConfigError> {
        lay_over! { self over to:
            listen, data_dir, uuid, hostname, httpd_port, local_address, users_db_security_editable, log,
            couchdb_session_max, utils_dir;
            couchdb, couchdb_admin, couchdb_admin_file, take_over, admin, admin_file, tls_cert, tls_key, config, couchdb_ini, auth,
            replicator, http, cors, store, secrets
        }
        drop((config, couchdb_ini));
        // An empty variable is how a compose file says "none".
        let mut admins = admin
            .iter()
            .filter(|admin| !admin.expose_secret().is_empty())
            .map(values::admin)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = admin_file {
            admins.extend(values::admins(&path, &text(&path)?)?);
        }
        if !admins.is_empty() {
            to.admins = admins;
        }
        if let Some(url) = couchdb.filter(|url| !url.is_empty()) {
            let wrong = |problem| ConfigError::Value { option: "--couchdb", problem };
            to.couchdb = Some(CouchDb::parse(&url).map_err(wrong)?);
        }
        let couchdb_admin = couchdb_admin.filter(|admin| !admin.expose_secret().is_empty());
        if let Some(admin) = &couchdb_admin {
            to.couchdb_admin = Some(values::couchdb_admin("--couchdb-admin", admin.expose_secret())?);
        }
        if let Some(path) = couchdb_admin_file {
            to.couchdb_admin = Some(values::couchdb_admin("--couchdb-admin-file", &text(&path)?)?);
        }
        if let Some(values::TakeOverChoice(choice)) = take_over {
            to.take_over = choice;
        }
        auth.lay_over(&mut to.auth)?;
        if let Some(cert) = tls_cert {
            to.tls = Some(TlsFiles { key: cert.clone(), cert });
        }
        if let Some(key) = tls_key {
            let problem = "needs --tls-cert";
            to.tls.as_mut().ok_or(ConfigError::Value { option: "--tls-key", problem })?.key = key;
        }
        replicator.lay_over(&mut to.replicator)?;
        http.lay_over(&mut to.http);
        cors.lay_over(&mut to.cors);
        store.lay_over(&mut to.store);
        if !secrets.is_empty() {
            let declared = secrets.into_iter().map(|(name, secret)| Ok((name.clone(), secret.declared(&name)?)));
            to.replicator.secrets = declared.collect::<Result<_, ConfigError>>()?;
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}
