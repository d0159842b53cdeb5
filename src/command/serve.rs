//! `couchrep serve`: runs the server until a signal comes, and puts everything away. systemd is told when it is ready and
//! when it begins to stop (`Type=notify`, see contrib/couchrep.service).

use std::convert::Infallible;
use std::io::{self, Write, stderr};
use std::sync::Arc;

use anyhow::Context;
use couchrep::config::{Config, Options};
use couchrep::server::{Server, open_files};
use sd_notify::NotifyState;
use tokio::sync::watch;

use super::signals::Signals;
use super::{Exit, SetLogFilter, block_on, log_reloadable};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Every option can stand in three places; the first that has it wins:
  the command line       --data-dir /srv/couchrep
  the environment        COUCHREP_DATA_DIR=/srv/couchrep
  the file of --config   data_dir = \"/srv/couchrep\"

Examples:
  couchrep
  couchrep --listen 127.0.0.1:0 --data-dir /tmp/try
  COUCHREP_ADMIN=root:secret couchrep serve --listen 0.0.0.0:5984
  couchrep --couchdb http://127.0.0.1:5984 --couchdb-admin-file admin.txt --take-over --listen 127.0.0.1:5985";

/// Serves.
pub fn run(options: Options) -> anyhow::Result<Exit> {
    let config = options.config()?;
    let set_log_filter = log_reloadable(&config.log, stderr)?;
    open_files::allow(&config);
    block_on(serve_until_signal(config, &set_log_filter))?;
    Ok(Exit::Done)
}

async fn serve_until_signal(config: Config, set_log_filter: &SetLogFilter) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let backend = match &config.couchdb {
        Some(couchdb) => format!("beside the CouchDB at {}", couchdb.url),
        None => format!("its databases are in {}", config.data_dir.display()),
    };
    let is_beside = config.couchdb.is_some();
    let server = Server::accept(config).await?;
    let mut stopped = None;
    let started = server.take_over(async { stopped = Some(signals.next().await) }).await;
    if let (Some(signal), Err(_)) = (stopped, &started) {
        tracing::info!(signal, "stopped before anything was taken over");
        return Ok(());
    }
    let server = started?;

    tell_systemd(NotifyState::Ready);
    // Nobody may be reading what a server prints; it serves all the same.
    let _ = greet(&server.url(), &backend, is_beside);

    let signal = tokio::select! {
        biased;
        signal = signals.next_ending(|| server.read_certificate_again()) => signal,
        never = follow_level(server.settings().watch(), set_log_filter) => match never {},
    };
    tell_systemd(NotifyState::Stopping);
    tracing::info!(signal, "stopping; a second signal ends it at once");
    tokio::select! {
        biased;
        () = server.stop() => Ok(()),
        signal = signals.next() => anyhow::bail!("ended by a second {signal} before everything was put away"),
    }
}

/// Tells the service manager that started us, if one did.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// Logs what the settings say, which may change.
async fn follow_level(mut settings: watch::Receiver<Arc<Config>>, set_log_filter: &SetLogFilter) -> Infallible {
    let mut level = String::new();
    loop {
        let now = settings.borrow_and_update().log.clone();
        if now != level
            && let Err(error) = set_log_filter(&now)
        {
            tracing::error!(%error, "the log's level stays what it was");
        }
        level = now;
        if settings.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn greet(url: &str, backend: &str, is_beside: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "couchrep listens on {url}, {backend}")?;
    if is_beside {
        // Whoever has a CouchDB has a login there, which nobody prints.
        return out.flush();
    }
    writeln!(out, "Try:")?;
    writeln!(out, "  curl -X PUT {url}/recipes")?;
    writeln!(
        out,
        "  curl {url}/_replicate -H 'Content-Type: application/json' \
         -d '{{\"source\":\"recipes\",\"target\":\"copy\",\"create_target\":true}}'"
    )?;
    out.flush()
}
