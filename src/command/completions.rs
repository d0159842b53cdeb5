//! `couchrep completions`: what a shell needs to complete commands and options, from their own definition.

use std::io::{self, Write as _};

use clap::Args;
use clap_complete::{Shell, generate};

use super::Exit;

/// Shown below the options.
pub const EXAMPLES: &str = "\
The .deb brings them. Else, for bash, zsh or fish:
  couchrep completions bash > ~/.local/share/bash-completion/completions/couchrep
  couchrep completions zsh > \"${fpath[1]}/_couchrep\"
  couchrep completions fish > ~/.config/fish/completions/couchrep.fish";

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// For which shell
    shell: Shell,
}

/// Prints them.
pub fn run(arguments: &Arguments, command: &mut clap::Command) -> Exit {
    let mut script = Vec::new();
    generate(arguments.shell, command, "couchrep", &mut script);
    // Nobody may be reading.
    _ = io::stdout().write_all(&script);
    Exit::Done
}
