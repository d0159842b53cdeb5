//! `couchrep give-back`: has a CouchDB's own scheduler go on after a couchrep that had taken its replications over has crashed.

use std::io::stderr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use couchrep::beside::{CouchDbAsAdmin, Upstream};
use couchrep::config::Options;
use couchrep::takeover::{self, GivenBack};
use couchrep::tasks::Tasks;
use secrecy::SecretString;

use super::{Exit, UsageError, block_on, log, print};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Whether the couchrep that took over is living shows after 40 seconds. A living one's takeover is left alone: it gives back when it stops.

Exit codes: 0 CouchDB's scheduler goes on, or nothing was to be given back; 1 it couldn't be done; 2 wrong usage.

Examples:
  couchrep give-back --couchdb http://127.0.0.1:5984 --couchdb-admin-file /run/secrets/couchdb-admin
  couchrep give-back --config /etc/couchrep/couchrep.toml";

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The CouchDB
    #[arg(long, env = "COUCHREP_COUCHDB", hide_env = true, value_name = "URL")]
    couchdb: Option<String>,

    #[arg(long, hide = true, env = "COUCHREP_COUCHDB_ADMIN", hide_env = true)]
    couchdb_admin: Option<SecretString>,

    /// A file with a server admin of it: NAME:PASSWORD [default: COUCHREP_COUCHDB_ADMIN]
    #[arg(long, env = "COUCHREP_COUCHDB_ADMIN_FILE", hide_env = true, value_name = "FILE")]
    couchdb_admin_file: Option<PathBuf>,

    /// A server's TOML file, in which both may stand
    #[arg(long, env = "COUCHREP_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Gives back.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let Arguments { couchdb, couchdb_admin, couchdb_admin_file, config } = arguments;
    let config = Options { couchdb, couchdb_admin, couchdb_admin_file, config, ..Options::default() }.config()?;
    log(&config.log, stderr)?;
    let (Some(couchdb), Some(admin)) = (config.couchdb, config.couchdb_admin) else {
        return Err(UsageError("give --couchdb and --couchdb-admin-file".into()).into());
    };
    let url = couchdb.url.to_string();
    let given_back = block_on(async {
        let upstream = Upstream::new(couchdb, &config.replicator.tls, Tasks::default())?;
        let asking = CouchDbAsAdmin::new(upstream, &admin);
        asking.prove(&admin).await?;
        Ok(takeover::give_back(asking).await?)
    });
    match given_back.with_context(|| format!("nothing was given back to the CouchDB at {url}"))? {
        GivenBack::All => print("given back: CouchDB's replications go on within a minute"),
        GivenBack::Nothing { standing_still } => {
            print("nothing is to be given back");
            if !standing_still.is_empty() {
                print(format_args!(
                    "but max_jobs is 0 on {}, and nobody noted what it was: until that is changed, CouchDB replicates nothing",
                    standing_still.join(", ")
                ));
            }
        }
    }
    Ok(Exit::Done)
}
