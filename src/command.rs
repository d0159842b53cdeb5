//! What the binary can be asked for, a file each; the library does the work.
//!
//! Exit codes mean the same everywhere: [`Exit`]. Results go to stdout, everything else to stderr.

pub mod serve;
pub mod replicate;
pub mod verify;
pub mod jobs;
pub mod health;
pub mod give_back;
pub mod completions;
pub mod man;
mod lives;
mod databases;
mod job_entry;
mod server;
mod selection;
mod screen;
mod signals;

use std::io::{self, IsTerminal, Write, stderr};
use std::process::ExitCode;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As hoped for.
    Done = 0,
    /// Not.
    Failed = 1,
    /// What was asked for makes no sense; clap ends with this code by itself.
    Usage = 2,
    /// Done, but documents were refused.
    Refused = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What was asked for makes no sense. Never shows an argument that may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

const LEVELS: &str = "error, warn, info, debug or trace; or directives such as info,couchrep::replicate=debug";

/// Sets what is logged from then on.
type SetLogFilter = Box<dyn Fn(&str) -> anyhow::Result<()>>;

/// Writes the log to `writer`, coloured where stderr is a terminal.
fn log(filter: &str, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> anyhow::Result<()> {
    log_reloadable(filter, writer).map(drop)
}

/// The same, where the filter may change.
fn log_reloadable(
    filter: &str,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> anyhow::Result<SetLogFilter> {
    let log = tracing_subscriber::fmt().with_writer(writer).with_ansi(stderr().is_terminal());
    let log = log.with_env_filter(log_filter(filter)?).with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    Ok(Box::new(move |filter| Ok(handle.reload(log_filter(filter)?)?)))
}

fn log_filter(filter: &str) -> anyhow::Result<EnvFilter> {
    let directives = filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    for directive in directives {
        // To tracing any word is the name of somebody who may log, and so a misspelt level silences everything.
        let is_sure = directive.contains(['=', '[']) || directive.starts_with("couchrep");
        if !is_sure && directive.parse::<LevelFilter>().is_err() {
            return Err(UsageError(format!("--log: `{directive}` is no level: {LEVELS}")).into());
        }
    }
    let wrong = |_| UsageError(format!("--log must be a level or directives: {LEVELS}"));
    Ok(EnvFilter::builder().parse(filter).map_err(wrong)?)
}

/// Runs a command to its end. What still runs then has had its deadline; the process doesn't wait for it.
fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended
}

/// Prints a line of the result. Nobody may be reading (`couchrep … | head`): the work is done all the same.
fn print(line: impl std::fmt::Display) {
    _ = writeln!(io::stdout(), "{line}");
}
