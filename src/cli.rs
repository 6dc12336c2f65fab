//! The command line; one file a subcommand.

pub mod check;
#[cfg(feature = "simulator")]
pub mod demo;
pub mod run;
pub mod service;
#[cfg(feature = "simulator")]
pub mod simulate;
pub mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::{self, Runtime};

use crate::config::{self, Environment, Loaded, Secrets};
use crate::server;

/// damoov-proxy stands in front of the Damoov telematics APIs: callers name a user, it attaches
/// the token, renews it, and replays the request.
#[derive(Debug, Parser)]
#[command(name = "damoov-proxy", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` when it is not said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The arguments of `run`, which needs not be named.
    #[command(flatten)]
    pub run: ConfigFile,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve callers (the default)
    Run(ConfigFile),
    /// Validate everything that `run` would refuse; exit code 64 for the configuration, 78 for the store
    Check {
        /// Where the settings are.
        #[command(flatten)]
        config: ConfigFile,
        /// Resolve no secret and open no store
        #[arg(long)]
        offline: bool,
    },
    /// The proxy and a simulated Damoov in one process, with lines to paste
    #[cfg(feature = "simulator")]
    Demo,
    /// Only the simulated Damoov, for your own tests
    #[cfg(feature = "simulator")]
    Simulate(Box<simulate::Args>),
    /// Look at the stored tokens and change them, also beside a running proxy
    #[command(subcommand)]
    Tokens(tokens::Command),
}

impl Cli {
    /// Does what the arguments ask for; errors go to standard error.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            None => run::run(self.run),
            Some(Command::Run(config)) => run::run(config),
            Some(Command::Check { config, offline }) => check::run(config, offline),
            #[cfg(feature = "simulator")]
            Some(Command::Demo) => demo::run(),
            #[cfg(feature = "simulator")]
            Some(Command::Simulate(args)) => background_runtime().and_then(|runtime| {
                runtime
                    .block_on(simulate::run(*args))
                    .map_err(Failure::other)?;
                Ok(ExitCode::SUCCESS)
            }),
            Some(Command::Tokens(command)) => tokens::run(command),
        };
        done.unwrap_or_else(|failure| failure.report())
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong; laid out already.
    Config(String),
    /// The service cannot start.
    Service(service::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// Anything that is neither the configuration's fault nor the store's.
    pub fn other(error: impl Into<anyhow::Error>) -> Failure {
        Failure::Other(error.into())
    }

    fn report(self) -> ExitCode {
        match self {
            Failure::Config(report) => {
                eprintln!("{report}");
                ExitCode::from(exit::CONFIG)
            }
            Failure::Service(error @ service::Error::Store(_)) => {
                eprintln!("error: {:#}", anyhow::Error::new(error));
                ExitCode::from(exit::STORE)
            }
            Failure::Service(
                error @ (service::Error::Upstream(_)
                | service::Error::Listen(server::Error::GroupUnknown(_))),
            ) => {
                eprintln!("error: {:#}", anyhow::Error::new(error));
                ExitCode::from(exit::CONFIG)
            }
            Failure::Service(error) => Failure::other(error).report(),
            Failure::Other(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

impl From<service::Error> for Failure {
    fn from(error: service::Error) -> Failure {
        Failure::Service(error)
    }
}

impl From<service::StoreError> for Failure {
    fn from(error: service::StoreError) -> Failure {
        Failure::Service(error.into())
    }
}

/// The runtime for all that is not a caller's: renewals, the status listener, signals.
fn background_runtime() -> Result<Runtime, Failure> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)
}

#[expect(
    clippy::print_stdout,
    reason = "a command's answer goes to standard output"
)]
fn print(text: &str) {
    println!("{text}");
}

/// Where the settings are.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// The configuration [default: $DAMOOV_PROXY_CONFIG, ./damoov-proxy.toml, /etc/damoov-proxy/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Finds and loads the configuration, and checks that the machine offers the file descriptors
    /// that it asks for. Answers the file's path, too. The error is ready to be shown.
    pub fn load(self, secrets: Secrets) -> Result<(PathBuf, Loaded), String> {
        let environment: Environment = std::env::vars_os().collect();
        let path = config::find(self.config, &environment).map_err(explain)?;
        let loaded = config::load(&path, &environment, secrets).map_err(explain)?;
        let needed = server::descriptors(loaded.settings.server.max_connections);
        match getrlimit(Resource::Nofile).maximum {
            Some(limit) if limit < needed => Err(format!(
                "error: `max_connections` needs {needed} file descriptors, but the hard limit is \
                 {limit}: raise the limit (LimitNOFILE=, --ulimit nofile) or lower \
                 `max_connections`"
            )),
            _ => Ok((path, loaded)),
        }
    }
}

/// The error with its cause. What is wrong inside a file is laid out already.
fn explain(error: config::Error) -> String {
    match error {
        config::Error::Invalid(report) => report,
        config::Error::Unreadable { ref source, .. } => format!("error: {error}: {source}"),
        config::Error::NoFile | config::Error::WritableByOthers { .. } => format!("error: {error}"),
    }
}

/// The exit codes of sysexits.h that every command uses.
pub mod exit {
    /// `EX_USAGE`: the command line or the configuration is wrong.
    pub const CONFIG: u8 = 64;
    /// `EX_CONFIG`: the store cannot be used as it is.
    pub const STORE: u8 = 78;
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_need_not_be_named() {
        let bare = Cli::try_parse_from(["damoov-proxy", "--config", "a.toml"]).unwrap();
        assert!(bare.command.is_none());
        assert_eq!(bare.run.config, Some("a.toml".into()));
        let named = Cli::try_parse_from(["damoov-proxy", "run", "--config", "b.toml"]).unwrap();
        assert!(matches!(
            named.command,
            Some(Command::Run(ConfigFile { config: Some(path) })) if path.ends_with("b.toml")
        ));
    }
}
