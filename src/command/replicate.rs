//! `couchrep replicate`: one replication, without a server around it.
//!
//! The same job that a server would run, with the same checkpoints. The first signal lets it finish what it writes and
//! record a checkpoint; the second ends it at once, which loses nothing but work.

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use couchrep::access::Caller;
use couchrep::endpoint::Endpoint;
use couchrep::peer::Failure;
use couchrep::replicate::failures::{FailureFiles, FailureList, RecordedFailure};
use couchrep::replicate::progress::Progress;
use couchrep::replicate::request::Request;
use couchrep::replicate::{Context, Job, Outcome, ReplicateError};
use indicatif::HumanCount;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use super::databases::{self, Databases};
use super::lives;
use super::screen::{Elapsed, ProgressLine, Screen, count};
use super::selection::Selection;
use super::signals::Signals;
use super::{Exit, UsageError, block_on, log};

/// Shown below the options.
pub const EXAMPLES: &str = r#"Exit codes:
  0 done, 1 failed or interrupted, 2 wrong usage,
  3 done, but documents were refused, now or earlier, and still aren't there
Ctrl-C records how far it is and ends; run again, it goes on from there.
A second Ctrl-C ends at once. A terminal that closes ends nothing.

Examples:
  couchrep replicate recipes http://root:secret@backup:5984/recipes --create-target
  couchrep replicate recipes http://backup:5984/recipes --continuous
  couchrep replicate http://localhost:5984/recipes copy --data-dir /srv/couchrep
  couchrep replicate recipes french --filter kitchen/vegan --query country=fr
  couchrep replicate recipes http://backup:5984/recipes --retry-failures
  couchrep replicate recipes soups --selector '{"serves": {"$gte": 4}}' --json"#;

/// How long an interrupt waits for the list of what was refused.
const LIST_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at how far it is.
const TICK: Duration = Duration::from_millis(200);
/// Refused documents that are printed; --json prints all.
const MAX_PRINTED: u64 = 20;

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Go on for ever, until Ctrl-C
    #[arg(long)]
    continuous: bool,

    /// Make the target if it isn't there
    #[arg(long)]
    create_target: bool,

    #[command(flatten)]
    selection: Selection,

    /// Try again what was refused before under the same options, and nothing else
    #[arg(long, conflicts_with = "continuous")]
    retry_failures: bool,

    /// Print JSON lines: started, progress, refused, result
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    databases: Databases,

    /// Where refused documents are listed if neither database is given by name and the source keeps no list
    /// [default: $XDG_STATE_HOME/couchrep or ~/.local/state/couchrep]
    #[arg(long, env = "COUCHREP_STATE_DIR", hide_env = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Arguments {
    /// What keeps the list of refused documents on this machine.
    fn failures(&self) -> FailureFiles {
        let state_dir = self.state_dir.clone().or_else(default_state_dir);
        state_dir.map_or_else(FailureFiles::default, |dir| FailureFiles::in_state_dir(&dir))
    }
}

/// Where the XDG Base Directory Specification puts what a program has to remember.
fn default_state_dir() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|directory| directory.is_absolute());
    let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    Some(state.join("couchrep"))
}

/// Replicates.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let request = arguments.request()?;
    let screen = Screen::new(arguments.json);
    log(arguments.databases.log(), screen.log_writer())?;
    block_on(replicate(arguments, request, screen))
}

impl Arguments {
    fn request(&self) -> Result<Request, UsageError> {
        let mut fields = Map::new();
        fields.insert("continuous".into(), self.continuous.into());
        fields.insert("create_target".into(), self.create_target.into());
        fields.insert("retry_failures".into(), self.retry_failures.into());
        self.selection.add_to(&mut fields);
        self.databases.request(fields)
    }
}

async fn replicate(arguments: Arguments, request: Request, mut screen: Screen) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let job = job(arguments.databases.open(&request, arguments.failures()).await?, request).await?;
    screen.event(
        "started",
        json!({
            "replication_id": job.id.to_string(),
            "source": databases::name(&job.request.source),
            "target": databases::name(&job.request.target),
        }),
    );
    let start = Instant::now();
    let ended = watch(&job, &mut screen, &mut signals).await;
    let took = Elapsed::since(start);
    screen.clear();
    let refused = tokio::select! {
        biased;
        refused = list_failures(&job, &screen, &ended) => refused,
        _ = signals.next() => job.progress.counts().doc_write_failures,
    };
    let exit = report(&job, &screen, ended, refused, took);
    databases::close(&job.context).await;
    exit
}

async fn job(context: Context, request: Request) -> Result<Job, ReplicateError> {
    let caller = Arc::new(Caller::server_admin());
    let (request, ids) = context.identify(request, &caller).await?;
    Ok(Job::new(context, caller, request, ids))
}

/// Runs the job to its end, or until signals end it.
async fn watch(job: &Job, screen: &mut Screen, signals: &mut Signals) -> Result<Outcome, ReplicateError> {
    let mut running = pin!(lives::run(job));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = &mut running => return ended,
            _ = signals.next() => {
                if job.stop.is_cancelled() {
                    return Err(ReplicateError::Cancelled);
                }
                screen.note("recording how far it is; a second signal ends it at once");
                job.stop.cancel();
            }
            _ = ticks.tick() => screen.show(|| how_far(&job.progress)),
        }
    }
}

fn how_far(progress: &Progress) -> ProgressLine {
    let (counts, position) = (progress.counts(), progress.position());
    let rate = progress.docs_per_second().map(|rate| rate.round() as u64);
    // Short, since millions must fit into a terminal's line beside the bar.
    let mut words = count(counts.docs_written, "doc");
    if let Some(rate) = rate {
        words += &format!(", {}/s", HumanCount(rate));
    }
    match position.changes_pending {
        Some(0) => words += ", up to date",
        Some(pending) => words += &format!(", {} pending", HumanCount(pending)),
        None => {}
    }
    if counts.doc_write_failures > 0 {
        words += &format!(", {} refused", HumanCount(counts.doc_write_failures));
    }
    let known = position.changes_done.zip(position.changes_pending).filter(|(_, pending)| *pending > 0);
    let json = json!({
        "docs_read": counts.docs_read,
        "docs_written": counts.docs_written,
        "doc_write_failures": counts.doc_write_failures,
        "changes_pending": position.changes_pending,
        "progress": position.percent(),
        "docs_per_second": rate,
        "through_seq": position.through_seq,
        "checkpointed_source_seq": position.checkpointed_source_seq,
    });
    ProgressLine { words, json, share: known.map(|(done, pending)| (done, done + pending)) }
}

/// Tells how it ended. `refused`: how many documents aren't there because they were refused, now or earlier.
fn report(
    job: &Job,
    screen: &Screen,
    ended: Result<Outcome, ReplicateError>,
    refused: u64,
    took: Elapsed,
) -> anyhow::Result<Exit> {
    let counts = job.progress.counts();
    let complete = if refused > 0 { Exit::Refused } else { Exit::Done };
    let mut written = format!("{} written", count(counts.docs_written, "document"));
    if counts.docs_written > 0 {
        written += &format!(" ({}/s)", HumanCount(took.rate(counts.docs_written)));
    }
    let result = |exit: Exit, more: (&str, Value)| {
        let mut fields = json!({
            "ok": matches!(exit, Exit::Done | Exit::Refused),
            "exit_code": exit as u8,
            "docs_read": counts.docs_read,
            "docs_written": counts.docs_written,
            "doc_write_failures": counts.doc_write_failures,
            "failures": refused,
            "seconds": took.seconds(),
            "docs_per_second": took.rate(counts.docs_written),
            "checkpointed_source_seq": job.progress.position().checkpointed_source_seq,
        });
        fields[more.0] = more.1;
        screen.event("result", fields);
        Ok(exit)
    };
    match ended {
        Ok(outcome) => {
            let refused = if refused > 0 { format!(", {} refused", HumanCount(refused)) } else { String::new() };
            screen.say(format!("done in {took}: {written}{refused}"));
            result(complete, ("answer", outcome.answer))
        }
        Err(ReplicateError::Cancelled) if job.request.continuous => {
            screen.say(format!("stopped after {took}: {written}"));
            result(complete, ("stopped", true.into()))
        }
        Err(error) => {
            let why = match error {
                ReplicateError::Cancelled => {
                    format!("interrupted after {took}: {written}; run again, it goes on from there")
                }
                error => why(job, &error),
            };
            result(Exit::Failed, ("error", why.as_str().into()))?;
            bail!(why)
        }
    }
}

/// Tells what was refused, now or earlier, and isn't there yet; answers how many.
async fn list_failures(job: &Job, screen: &Screen, ended: &Result<Outcome, ReplicateError>) -> u64 {
    let mut listing = Listing::default();
    // What is on no list, and no checkpoint passed.
    let unlisted = job.failures.forgotten() + job.failures.unkept().len() as u64;
    let listed = match ended {
        Ok(Outcome { failures_standing: Some(0), .. }) => Ok(()),
        Ok(outcome) => listing.list(&outcome.failures, screen).await,
        Err(ReplicateError::Cancelled) if job.request.continuous => listed(job, screen, &mut listing).await,
        Err(_) => Ok(()),
    };
    if let Err(error) = listed {
        screen.note(format_args!("the list of refused documents can't be read: {error}"));
        listing.total = listing.total.max(job.progress.counts().doc_write_failures);
    }
    if let Ok(Outcome { failures_standing: Some(standing), .. }) = ended {
        listing.total = *standing;
    }
    listing.total += unlisted;
    if listing.shown == 0 && (ended.is_err() || listing.total > 0) {
        job.failures.recent().iter().for_each(|failure| listing.one(failure, screen));
    }
    let unprinted = listing.total.saturating_sub(listing.printed);
    if unprinted > 0 {
        screen.say(format!("refused: {} more", HumanCount(unprinted)));
    }
    listing.total
}

/// Tells what is on the list of a replication that was interrupted.
async fn listed(job: &Job, screen: &Screen, listing: &mut Listing) -> anyhow::Result<()> {
    let source = job.context.databases.open(&job.request.source, &job.caller, job.progress.pulse()).await?;
    let list = job.failure_list(&source);
    tokio::time::timeout(LIST_PATIENCE, listing.list(&list, screen)).await?
}

/// What of the refused documents was shown.
#[derive(Default)]
struct Listing {
    shown: u64,
    printed: u64,
    total: u64,
}

impl Listing {
    /// Tells what is on a list. One that somebody else rewrites meanwhile is read anew for what was put together there.
    async fn list(&mut self, list: &FailureList, screen: &Screen) -> anyhow::Result<()> {
        let mut read = HashSet::new();
        loop {
            let names = list.names().await?;
            self.total = names.iter().fold(0, |total, (_, name)| name.failures().saturating_add(total));
            let mut gone = false;
            for (storage, name) in names {
                if (screen.is_json() || self.printed < MAX_PRINTED) && !read.contains(&name) {
                    let page = list.read(&storage, &name).await?;
                    gone |= page.is_none();
                    page.iter().flatten().for_each(|failure| self.one(failure, screen));
                    read.insert(name);
                }
            }
            if !gone {
                return Ok(());
            }
        }
    }

    fn one(&mut self, kept: &RecordedFailure, screen: &Screen) {
        self.shown += 1;
        screen.event("refused", serde_json::to_value(kept).unwrap_or_default());
        if self.printed < MAX_PRINTED {
            self.printed += 1;
            let RecordedFailure { failure: Failure { id, rev, why }, .. } = kept;
            let rev = rev.as_ref().map_or(String::new(), |rev| format!(" {rev}"));
            screen.say(format!("refused: {id}{rev}: {why}"));
        }
    }
}

/// The error as a person needs it: a local database by its name, not by a URL that nobody serves.
fn why(job: &Job, error: &ReplicateError) -> String {
    let is_missing = |endpoint: &&Endpoint| match error {
        ReplicateError::DatabaseNotFound(url) => *url == endpoint.display(&job.context.identity.address),
        _ => false,
    };
    match [&job.request.source, &job.request.target].into_iter().find(is_missing) {
        Some(endpoint) => format!("there is no database {}", databases::name(endpoint)),
        None => error.chain().to_string(),
    }
}
