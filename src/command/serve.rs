//! `couchrep serve`: runs the server until a signal comes, and puts everything away.

use std::io::{self, Write, stderr};
use std::path::Path;

use anyhow::Context;
use couchrep::config::{Config, Options};
use couchrep::server::{Server, open_files};

use super::signals::Signals;
use super::{Exit, block_on, log};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Every option can stand in three places; the first that has it wins:
  the command line       --data-dir /srv/couchrep
  the environment        COUCHREP_DATA_DIR=/srv/couchrep
  the file of --config   data_dir = \"/srv/couchrep\"

Examples:
  couchrep
  couchrep --listen 127.0.0.1:0 --data-dir /tmp/try
  COUCHREP_ADMIN=root:secret couchrep serve --listen 0.0.0.0:5984";

/// Serves.
pub fn run(options: Options) -> anyhow::Result<Exit> {
    let config = options.config()?;
    log(&config.log, stderr)?;
    open_files::allow(&config);
    block_on(serve_until_signal(config))?;
    Ok(Exit::Done)
}

async fn serve_until_signal(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let data_dir = config.data_dir.clone();
    let server = Server::start(config).await?;

    // Nobody may be reading what a server prints; it serves all the same.
    let _ = greet(&server.url(), &data_dir);

    let signal = signals.next().await;
    tracing::info!(signal, "stopping; a second signal ends it at once");
    tokio::select! {
        biased;
        () = server.stop() => Ok(()),
        signal = signals.next() => anyhow::bail!("ended by a second {signal} before everything was put away"),
    }
}

fn greet(url: &str, data_dir: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "couchrep listens on {url}, its databases are in {}", data_dir.display())?;
    writeln!(out, "Try:")?;
    writeln!(out, "  curl -X PUT {url}/recipes")?;
    writeln!(
        out,
        "  curl {url}/_replicate -H 'Content-Type: application/json' \
         -d '{{\"source\":\"recipes\",\"target\":\"copy\",\"create_target\":true}}'"
    )?;
    out.flush()
}
