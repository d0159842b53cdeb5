//! The command line: what was asked for is run, and the exit code tells how it went.

mod command;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use command::{Exit, UsageError, completions, give_back, health, jobs, man, replicate, serve, verify};
use couchrep::config::{ConfigError, Options};

/// Many threads take and give back very many small pieces. glibc's allocator spends a fifth of all CPU on that and gives little memory back:
/// with this one, 3,000 jobs with 100 documents each are copied in 15 s instead of 20, and leave 258 MiB instead of 402.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// CouchDB's replicator as a server of its own.
///
/// Answers POST /_replicate as CouchDB does: copies documents with their whole revision trees and attachments between any
/// two CouchDB-compatible databases, once or for ever. Local names are databases of the embedded store.
///
/// Without a subcommand, couchrep serves.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = serve::EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve databases and replications over HTTP; the default
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<Options>),
    /// Copy what a database has and another lacks, without a server
    #[command(after_help = replicate::EXAMPLES)]
    Replicate(Box<replicate::Arguments>),
    /// Prove that a database has all that another has
    #[command(after_help = verify::EXAMPLES)]
    Verify(Box<verify::Arguments>),
    /// See and steer what a running server replicates
    #[command(after_help = jobs::EXAMPLES)]
    Jobs(Box<jobs::Arguments>),
    /// Ask a server whether it works, as a container's health check does
    #[command(after_help = health::EXAMPLES)]
    Health(health::Arguments),
    /// Have a CouchDB's own replications go on after a couchrep crashed that had taken them over
    #[command(after_help = give_back::EXAMPLES)]
    GiveBack(give_back::Arguments),
    /// Print completions for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Arguments),
    /// Write man pages
    #[command(after_help = man::EXAMPLES)]
    Man(man::Arguments),
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let ended = match command_line.command {
        Some(Command::Replicate(arguments)) => replicate::run(*arguments),
        Some(Command::Verify(arguments)) => verify::run(*arguments),
        Some(Command::Jobs(arguments)) => jobs::run(*arguments),
        Some(Command::Health(arguments)) => health::run(arguments),
        Some(Command::GiveBack(arguments)) => give_back::run(arguments),
        Some(Command::Completions(arguments)) => Ok(completions::run(&arguments, &mut CommandLine::command())),
        Some(Command::Man(arguments)) => man::run(&arguments, CommandLine::command()),
        Some(Command::Serve(options)) => serve::run(*options),
        None => serve::run(command_line.serve),
    };
    let exit = ended.unwrap_or_else(|error| {
        eprintln!("couchrep: {error:#}");
        if error.is::<UsageError>() || error.is::<ConfigError>() { Exit::Usage } else { Exit::Failed }
    });
    exit.into()
}
