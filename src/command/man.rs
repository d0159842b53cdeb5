//! `couchrep man`: man pages of the program and each of its commands, from their own definition.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Exit, print};

/// Shown below the options.
pub const EXAMPLES: &str = "\
The .deb brings them. Else:
  couchrep man ~/.local/share/man/man1";

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to; made if absent
    directory: PathBuf,
}

/// Writes them.
pub fn run(arguments: &Arguments, command: clap::Command) -> anyhow::Result<Exit> {
    let directory = &arguments.directory;
    let failed = || format!("could not write to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(command, directory).with_context(failed)?;
    print(format_args!("man pages are in {}", directory.display()));
    Ok(Exit::Done)
}
