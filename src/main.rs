//! damoov-proxy, the binary.

use std::process::ExitCode;

use clap::Parser;
use damoov_proxy::cli::{Cli, Command, check};

fn main() -> ExitCode {
    match Cli::parse().command {
        Some(Command::Check { config, offline }) => check::run(config, offline),
        _ => ExitCode::SUCCESS,
    }
}
