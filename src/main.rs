//! The command line: reads the settings, runs the server until a signal comes, ends it, tells by its exit code how it went.

use std::io::{self, IsTerminal, Write, stderr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use couchrep::config::{Config, Options};
use couchrep::server::Server;

/// CouchDB's replicator as a server of its own.
///
/// Answers POST /_replicate as CouchDB does: copies documents with their whole revision trees and attachments between any
/// two CouchDB-compatible databases, once or for ever. Local names are databases of the embedded store.
///
/// Without a subcommand, couchrep serves.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve databases and replications over HTTP; the default
    #[command(after_help = EXAMPLES)]
    Serve(Box<Options>),
}

const EXAMPLES: &str = "\
Every option can stand in three places; the first that has it wins:
  the command line       --data-dir /srv/couchrep
  the environment        COUCHREP_DATA_DIR=/srv/couchrep
  the file of --config   data_dir = \"/srv/couchrep\"

Examples:
  couchrep
  couchrep --listen 127.0.0.1:0 --data-dir /tmp/try
  COUCHREP_ADMIN=root:secret couchrep serve --listen 0.0.0.0:5984";

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let options = match command_line.command {
        Some(Command::Serve(options)) => *options,
        None => command_line.serve,
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("couchrep: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> anyhow::Result<()> {
    let config = options.config()?;
    log(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    let served = runtime.block_on(serve_until_told(config));
    // What still runs has had its deadline; the process doesn't wait for it.
    runtime.shutdown_background();
    served
}

async fn serve_until_told(config: Config) -> anyhow::Result<()> {
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

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&config.log).context("--log must be a level or directives")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
