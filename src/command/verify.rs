//! `couchrep verify`: proves that a database has all that another has, or names what it lacks.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use couchrep::access::Caller;
use couchrep::effort::pulse::Pulse;
use couchrep::peer::{Filter, Peer, PeerError};
use couchrep::replicate::Context;
use couchrep::replicate::failures::FailureFiles;
use couchrep::replicate::request::Request;
use couchrep::verify::{self, Difference, Problem, Report};
use indicatif::HumanCount;
use serde_json::{Map, json};
use tokio::time::Instant;

use super::databases::{self, Databases};
use super::screen::{Elapsed, ProgressLine, Screen, count};
use super::selection::Selection;
use super::signals::Signals;
use super::{Exit, block_on, log};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Exit codes: 0 nothing is lacking, 1 something is, 2 it could not be found out.

Examples:
  couchrep verify http://localhost:5984/recipes http://root:secret@backup:5984/recipes
  couchrep verify recipes copy --data-dir /srv/couchrep --both --attachments
  couchrep verify recipes soups --selector '{\"kind\": \"soup\"}'";

/// Differences that are printed; --json prints all that are named.
const MAX_PRINTED: usize = 20;

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The other way too: equal, not only contained
    #[arg(long)]
    both: bool,

    /// Compare attachments too: the bytes, where their digests differ
    #[arg(long)]
    attachments: bool,

    #[command(flatten)]
    selection: Selection,

    /// Print JSON lines: progress, difference, result
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    databases: Databases,
}

/// Verifies. What can't be found out ends with the code that `diff` has for it, not with that for a difference.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let mut fields = Map::new();
    arguments.selection.add_to(&mut fields);
    let request = arguments.databases.request(fields)?;
    let screen = Screen::new(arguments.json);
    log(arguments.databases.log(), screen.log_writer())?;
    Ok(block_on(verify(arguments, request, screen)).unwrap_or_else(|error| {
        eprintln!("couchrep: {error:#}");
        Exit::Usage
    }))
}

async fn verify(arguments: Arguments, request: Request, screen: Screen) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let context = arguments.databases.open(&request, FailureFiles::default()).await?;
    let (pulse, limit) = (Pulse::default(), context.settings.stall_limit);
    let compared = tokio::select! {
        biased;
        signal = signals.next() => Err(anyhow::anyhow!("ended by {signal}")),
        compared = compare(&arguments, &request, &context, &pulse, screen.clone()) => compared,
        () = pulse.failed(limit) => Err(anyhow::anyhow!("the databases gave next to nothing for {limit:?}")),
    };
    screen.clear();
    databases::close(&context).await;
    compared
}

async fn compare(
    arguments: &Arguments,
    request: &Request,
    context: &Context,
    pulse: &Pulse,
    mut screen: Screen,
) -> anyhow::Result<Exit> {
    let caller = Arc::new(Caller::server_admin());
    let source = (context.databases.open(&request.source, &caller, pulse).await?, databases::name(&request.source));
    let target = (context.databases.open(&request.target, &caller, pulse).await?, databases::name(&request.target));
    let mut ways = vec![(&source, &target)];
    if arguments.both {
        ways.push((&target, &source));
    }
    let mut complete = true;
    for ((this, this_name), (other, other_name)) in ways {
        let start = Instant::now();
        let report = one_way(arguments, (this, request.feed_filter()), other, &mut screen).await?;
        print_report(&screen, &report, this_name, other_name, Elapsed::since(start));
        complete &= report.is_complete();
    }
    let exit = if complete { Exit::Done } else { Exit::Failed };
    screen.event("result", json!({ "ok": complete, "exit_code": exit as u8 }));
    Ok(exit)
}

async fn one_way(
    arguments: &Arguments,
    this: (&Peer, Filter),
    other: &Peer,
    screen: &mut Screen,
) -> Result<Report, PeerError> {
    verify::compare(this, other, arguments.attachments, |report| {
        screen.show(|| ProgressLine {
            words: compared(report),
            json: json!({ "docs": report.docs, "leaves": report.leaves, "differences": report.differences }),
            share: None,
        });
    })
    .await
}

fn compared(report: &Report) -> String {
    let mut words = format!("{}, {} compared", count(report.docs, "document"), count(report.leaves, "leaf"));
    if report.attachments > 0 {
        words += &format!(", {}", count(report.attachments, "attachment"));
    }
    words
}

fn print_report(screen: &Screen, report: &Report, this: &str, other: &str, took: Elapsed) {
    for difference in &report.named {
        let fields = serde_json::to_value(difference).unwrap_or_default();
        let mut fields = fields.as_object().cloned().unwrap_or_default();
        fields.insert("on".into(), other.into());
        screen.event("difference", fields.into());
    }
    screen.event(
        "compared",
        json!({
            "from": this,
            "on": other,
            "docs": report.docs,
            "leaves": report.leaves,
            "attachments": report.attachments,
            "differences": report.differences,
            "seconds": took.seconds(),
            "docs_per_second": took.rate(report.docs),
        }),
    );
    for Difference { id, rev, attachment, problem } in report.named.iter().take(MAX_PRINTED) {
        let attachment = attachment.as_ref().map_or(String::new(), |name| format!(" attachment {name}"));
        let problem = match problem {
            Problem::Missing => "missing",
            Problem::Different => "different",
        };
        screen.say(format!("{problem} on {other}: {id} {rev}{attachment}"));
    }
    let unprinted = report.differences.saturating_sub(MAX_PRINTED as u64);
    if unprinted > 0 {
        screen.say(format!("and {} more", HumanCount(unprinted)));
    }
    let verdict = match report.differences {
        0 => "has all of it".to_owned(),
        lacking => format!("lacks {}", HumanCount(lacking)),
    };
    let rate = HumanCount(took.rate(report.docs));
    screen.say(format!("{this}: {} in {took} ({rate}/s); {other} {verdict}", compared(report)));
}
