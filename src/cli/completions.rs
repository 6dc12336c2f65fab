//! `completions`: what a shell has to know to complete this program's command line.

use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};

use super::output::write;
use super::{Cli, Failure};

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// To be read by `.bashrc`, or put into /usr/share/bash-completion/completions/damoov-proxy
    Bash,
    /// To be put into a folder of `$fpath` as _damoov-proxy
    Zsh,
    /// To be put into ~/.config/fish/completions/damoov-proxy.fish
    Fish,
}

/// Prints the completions for `shell`.
pub fn run(shell: Shell) -> Result<ExitCode, Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "damoov-proxy", &mut script);
    let script = String::from_utf8_lossy(&script);
    // For bash it takes the hyphen of a program's name for the end of a command's in one place, and not in
    // the other: no subcommand of such a program would be completed.
    write(
        script
            .replace("damoov__subcmd__proxy", "damoov__proxy")
            .as_bytes(),
    )?;
    Ok(ExitCode::SUCCESS)
}
