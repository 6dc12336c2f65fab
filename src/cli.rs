//! The command line: one file for each subcommand.

pub mod budget;
pub mod check;
pub mod completions;
#[cfg(feature = "simulator")]
pub mod demo;
mod disk;
pub mod doctor;
pub mod explain;
mod failure;
pub mod healthcheck;
mod key_watch;
mod lines;
pub mod man;
pub mod opening;
pub mod output;
pub mod progress;
mod reloading;
pub mod run;
mod running;
pub mod service;
#[cfg(feature = "simulator")]
pub mod simulate;
mod supervision;
pub mod tokens;
pub mod warm;
mod who;
pub mod wiring;

use std::env::consts::{ARCH, OS};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::{self, Runtime};

pub use self::failure::{Failure, exit};
use self::output::{print, say};
use crate::config::{self, Environment, Loaded, Secrets, Seen, Settings};
use crate::server;
use crate::signals::{Signals, interrupted};

/// damoov-proxy stands in front of the Damoov telematics APIs: callers name a user, it attaches
/// the token, renews it, and replays the request.
#[derive(Debug, Parser)]
#[command(name = "damoov-proxy", version = VERSION.as_str())]
pub struct Cli {
    /// What to do; `run` if no command is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the settings are.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Which build this is: a report of a fault that says so needs no question.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = match cfg!(feature = "simulator") {
        true => "simulator",
        false => "none",
    };
    let libc = match cfg!(target_env = "musl") {
        true => "musl",
        false => "gnu",
    };
    format!(
        "{}\ntarget    {ARCH}-unknown-{OS}-{libc}\nfeatures  {features}",
        env!("CARGO_PKG_VERSION"),
    )
});

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve callers (the default)
    Run,
    /// Validate everything that `run` would refuse; exit code 64 for the configuration, 78 for the store, 1 if
    /// its server is not reached
    Check(check::Arguments),
    /// The proxy and a simulated Damoov in one process, with lines to paste
    #[cfg(feature = "simulator")]
    Demo,
    /// Only the simulated Damoov, for your own tests
    #[cfg(feature = "simulator")]
    Simulate(Box<simulate::Args>),
    /// Look at the stored tokens and change them, also beside a running proxy
    #[command(subcommand)]
    Tokens(tokens::Command),
    /// Is everything that a request needs in order? Each step, its time, and what to do
    Doctor(doctor::Arguments),
    /// Log many users in, within the login budget; it can be interrupted and run again
    Warm(warm::Arguments),
    /// What the login budget allows now, and when the next login may be
    Budget(budget::Arguments),
    /// All about one principal: its last renewal, what its next request does and costs, what a 401 then does
    Explain(explain::Arguments),
    /// Ask the running proxy whether it is ready: exit code 0 if it is, 1 with the reasons if not, 64 if neither
    /// `[status]` nor `[admin]` is configured
    Healthcheck(healthcheck::Arguments),
    /// Print the manual page, to be read by `man -l -`
    Man,
    /// Print what a shell has to know to complete this program's command line
    Completions {
        /// Which shell
        shell: completions::Shell,
    },
}

/// Does what the arguments of this process ask for.
///
/// `signals`: caught since this process began.
pub fn main(signals: io::Result<Signals>) -> ExitCode {
    let signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            say(&format!("error: signals cannot be caught: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let arguments = Cli::command().color(output::colours());
    let parsed = arguments
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed.and_then(Cli::without_useless_config) {
        Ok(cli) => cli.run(signals),
        Err(error) => {
            // Its reader may have stopped reading.
            signals.release();
            shown(&error)
        }
    }
}

/// Prints help, the version or what is wrong with the arguments.
fn shown(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(failed) if !error.use_stderr() => report(Failure::Output(failed)),
        Err(_) | Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE)),
    }
}

impl Cli {
    /// Refuses `--config` for commands that have their settings elsewhere, or none.
    fn without_useless_config(self) -> Result<Cli, clap::Error> {
        let useless = match &self.command {
            #[cfg(feature = "simulator")]
            Some(Command::Demo | Command::Simulate(_)) => true,
            Some(Command::Man | Command::Completions { .. }) => true,
            Some(Command::Healthcheck(arguments)) => !arguments.reads_the_configuration(),
            _ => false,
        };
        if useless && self.config.config.is_some() {
            return Err(<Cli as clap::CommandFactory>::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "this command reads no configuration: leave out --config",
            ));
        }
        Ok(self)
    }

    /// Does what the arguments ask for; errors go to standard error.
    pub fn run(self, signals: Signals) -> ExitCode {
        let config = self.config;
        let done = match self.command {
            None | Some(Command::Run) => run::run(config, signals),
            Some(Command::Check(arguments)) => {
                signals.release();
                check::run(config, arguments)
            }
            #[cfg(feature = "simulator")]
            Some(Command::Demo) => demo::run(signals),
            #[cfg(feature = "simulator")]
            Some(Command::Simulate(args)) => background_runtime().and_then(|runtime| {
                runtime.block_on(simulate::run(*args, signals))?;
                Ok(ExitCode::SUCCESS)
            }),
            Some(Command::Tokens(command)) => {
                signals.release();
                tokens::run(config, command)
            }
            Some(Command::Doctor(arguments)) => {
                signals.release();
                doctor::run(config, &arguments)
            }
            Some(Command::Warm(arguments)) => {
                signals.release();
                warm::run(config, &arguments)
            }
            Some(Command::Budget(arguments)) => {
                signals.release();
                budget::run(config, &arguments)
            }
            Some(Command::Explain(arguments)) => {
                signals.release();
                explain::run(config, &arguments)
            }
            Some(Command::Healthcheck(arguments)) => {
                signals.release();
                healthcheck::run(config, &arguments)
            }
            Some(Command::Man) => {
                signals.release();
                man::run()
            }
            Some(Command::Completions { shell }) => {
                signals.release();
                completions::run(shell)
            }
        };
        done.unwrap_or_else(report)
    }
}

/// Writes to standard error why a command ended early. Returns its exit code.
fn report(failure: Failure) -> ExitCode {
    match &failure {
        // The reader has read enough.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Failure::Config(_) => say(&failure.to_string()),
        Failure::Unusable(_)
        | Failure::Service(_)
        | Failure::Store(_)
        | Failure::Output(_)
        | Failure::Other(_) => say(&format!("error: {failure}")),
    }
    failure.exit_code()
}

/// The runtime for everything except callers: renewals, the status listener, signals.
fn background_runtime() -> Result<Runtime, Failure> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)
}

/// Where the settings are.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// The configuration [default: $DAMOOV_PROXY_CONFIG, ./damoov-proxy.toml, /etc/damoov-proxy/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Finds and loads the configuration. Returns the file's path as well.
    pub fn load(self, secrets: Secrets) -> Result<(PathBuf, Loaded), config::Error> {
        let Source { path, environment } = self.source()?;
        let loaded = config::load(&path, &environment, secrets)?;
        Ok((path, loaded))
    }

    /// Finds the configuration.
    fn source(self) -> Result<Source, config::Error> {
        let environment: Environment = std::env::vars_os().collect();
        let path = config::find(self.config, &environment)?;
        Ok(Source { path, environment })
    }
}

/// Where a configuration is read from, again and again.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    environment: Environment,
}

impl Source {
    /// Reads it, with all secrets. Blocks its thread on I/O.
    fn read(&self) -> (Result<Loaded, config::Error>, Vec<Seen>) {
        config::read(&self.path, &self.environment, Secrets::Resolve)
    }
}

/// Refuses more connections than the machine offers file descriptors for.
fn check_descriptors(settings: &Settings) -> Result<(), Failure> {
    let needed = server::descriptors(settings.server.max_connections);
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => Err(Failure::Unusable(format!(
            "`max_connections` needs {needed} file descriptors, but the hard limit is \
             {limit}: raise the limit (LimitNOFILE=, --ulimit nofile) or lower `max_connections`"
        ))),
        _ => Ok(()),
    }
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
    fn run_need_not_be_named_and_the_config_stands_before_or_after_it() {
        for arguments in [
            "--config a.toml",
            "run --config a.toml",
            "--config a.toml run",
        ] {
            let cli = parsed(arguments).unwrap();
            assert!(matches!(cli.command, None | Some(Command::Run)));
            assert_eq!(cli.config.config, Some("a.toml".into()));
        }
        for arguments in [
            "--config a.toml tokens list",
            "tokens --config a.toml list",
            "tokens list --config a.toml",
        ] {
            let cli = parsed(arguments).unwrap();
            assert!(matches!(cli.command, Some(Command::Tokens(_))));
            assert_eq!(cli.config.config, Some("a.toml".into()));
        }
    }

    #[test]
    fn commands_that_read_no_configuration_take_none() {
        let mut commands = vec!["man", "completions bash", "healthcheck --at 127.0.0.1:1"];
        if cfg!(feature = "simulator") {
            commands.extend(["demo", "simulate"]);
        }
        for command in commands {
            assert!(parsed(command).is_ok());
            for arguments in [
                format!("{command} --config a.toml"),
                format!("--config a.toml {command}"),
            ] {
                assert_eq!(parsed(&arguments).unwrap_err().exit_code(), 2);
            }
        }
    }

    fn parsed(arguments: &str) -> Result<Cli, clap::Error> {
        let words = ["damoov-proxy"].into_iter().chain(arguments.split(' '));
        Cli::try_parse_from(words).and_then(Cli::without_useless_config)
    }
}
