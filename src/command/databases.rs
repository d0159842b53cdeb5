//! The two databases of a command: which they are, and what they are opened with.
//!
//! URLs need nothing but an HTTP client. A name is a database of the store under the data dir, which only one process
//! may have open; then the replication has the id that a server with this data dir on its default address gives it
//! where everyone is admin, and so they share checkpoints; with `--config`, that server's own address counts.
//!
//! With URLs alone, checkpoints are found again by a uuid that is the same everywhere, since a URL mostly means the same
//! database everywhere; where it doesn't, `--uuid` tells machines apart.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use couchrep::config::options::ReplicatorOptions;
use couchrep::config::{Config, Options};
use couchrep::endpoint::Endpoint;
use couchrep::peer::remote::Clients;
use couchrep::replicate::failures::FailureFiles;
use couchrep::replicate::request::{Command, Request, check_document};
use couchrep::replicate::{Context, ReplicateError};
use couchrep::server::identity;
use couchrep::store::Store;
use serde_json::{Map, Value};

use super::UsageError;

/// The uuid of commands that have no data dir: `couchrep`, and zeros.
const UUID: &str = "636f7563687265700000000000000000";
/// Documents that are refused are listed at the end, and needn't be logged too.
const LOG: &str = "warn,couchrep::replicate::failures::log=error";

/// Source, target, and where to find them.
#[derive(Debug, Args)]
pub struct Databases {
    /// The database to read: a URL, or a name in the store under --data-dir
    ///
    /// Other users of this machine can read command lines, and with them a URL's password.
    pub source: String,

    /// The database to compare or write to, likewise
    pub target: String,

    /// Where the databases live that are given by name [default: data]
    #[arg(long, env = "COUCHREP_DATA_DIR", hide_env = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Enters the name of the checkpoints, 32 hex digits [default: that of the data dir; with URLs alone, a fixed one]
    ///
    /// Give each machine its own where a URL such as http://localhost:5984/db means another database on each.
    #[arg(long, env = "COUCHREP_UUID", hide_env = true, value_name = "HEX")]
    uuid: Option<String>,

    /// What to log to stderr: error, warn, info, debug or trace [default: warn]
    #[arg(long, env = "COUCHREP_LOG", hide_env = true, value_name = "LEVEL")]
    log: Option<String>,

    /// A server's TOML file: its data dir, uuid and settings of replications are taken
    #[arg(long, env = "COUCHREP_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    replicator: ReplicatorOptions,
}

impl Databases {
    /// What to log.
    pub fn log(&self) -> &str {
        self.log.as_deref().unwrap_or(LOG)
    }

    /// The request that copies source to target, with further fields.
    pub fn request(&self, mut fields: Map<String, Value>) -> Result<Request, UsageError> {
        fields.insert("source".into(), self.source.as_str().into());
        fields.insert("target".into(), self.target.as_str().into());
        match Command::parse(&fields) {
            Ok(Command::Run(request)) => Ok(request),
            Ok(Command::Cancel(_) | Command::CancelId(_)) => Err(UsageError("there is nothing to cancel".into())),
            // The name is whatever was given, a URL without its scheme perhaps, with a password in it.
            Err(ReplicateError::DatabaseNotFound(_)) => Err(UsageError(
                "SOURCE and TARGET must be URLs (http://… or https://…) or names of databases in the store".into(),
            )),
            Err(error) => Err(UsageError(error.to_string())),
        }
    }

    /// Opens what the request needs: the store, if it names a database of it. `failures` keeps what a source doesn't if both
    /// databases are given by URLs.
    pub async fn open(&self, request: &Request, failures: FailureFiles) -> anyhow::Result<Context> {
        let options = Options {
            data_dir: self.data_dir.clone(),
            config: self.config.clone(),
            uuid: self.uuid.clone(),
            replicator: self.replicator.clone(),
            ..Options::default()
        };
        let config = options.config().map_err(|error| UsageError(error.to_string()))?;
        let local = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Local(_));
        let settings = Arc::new(config.replicator.clone());
        let clients = Clients::new(&settings)?;
        let databases = |store| couchrep::databases::Databases::new(store, clients, settings.clone());
        let identity = |uuid: &str| identity::of(&config, &config.listen, uuid);
        if !local(&request.source) && !local(&request.target) {
            let identity = identity(config.uuid.as_deref().unwrap_or(UUID));
            return Ok(Context::new(databases(None), failures, settings, identity));
        }
        let store = open_store(&config, request.create_target && local(&request.target)).await?;
        let uuid = identity::uuid(&config).await?;
        let failures = FailureFiles::under(&config.data_dir);
        Ok(Context::new(databases(Some(store)), failures, settings, identity(&uuid)))
    }
}

async fn open_store(config: &Config, may_make: bool) -> anyhow::Result<Store> {
    let dir = config.data_dir.display();
    if !may_make && !config.data_dir.exists() {
        bail!("there is no store in {dir}: say where with --data-dir, or give URLs");
    }
    Store::open_with(&config.data_dir, config.store.clone(), check_document).await.with_context(|| {
        format!("could not open the store in {dir}; while a server has it open, give the server's URLs")
    })
}

/// What a person calls a database: its name, or its URL without credentials.
pub fn name(endpoint: &Endpoint) -> &str {
    match endpoint {
        Endpoint::Local(name) => name.as_str(),
        Endpoint::Remote(remote) => &remote.written.url,
    }
}

/// Puts everything away.
pub async fn close(context: &Context) {
    context.tasks.stop();
    context.tasks.ended_within(context.settings.stop_deadline).await;
    context.databases.close().await;
}
