//! `check`: validates everything that `run` would refuse, and says what a good configuration sets
//! up. Never shows a secret.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit};

use super::exit;
use crate::config::{self, Environment, Loaded, Secrets, Settings};
use crate::server::Listener;

/// Checks the configuration found for `--config config`. `offline`: no secret is resolved and no
/// store opened. Writes findings to standard error and a summary to standard output.
pub fn run(config: Option<PathBuf>, offline: bool) -> ExitCode {
    let environment: Environment = std::env::vars_os().collect();
    let secrets = if offline {
        Secrets::Leave
    } else {
        Secrets::Resolve
    };
    match load(config, &environment, secrets) {
        Ok((path, Loaded { settings, warnings })) => {
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            print(&format!(
                "config ok: {}\n{}",
                path.display(),
                Summary(&settings)
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit::CONFIG)
        }
    }
}

/// Finds and loads the configuration, and checks what the machine must offer for it. The error is
/// ready to be shown.
fn load(
    config: Option<PathBuf>,
    environment: &Environment,
    secrets: Secrets,
) -> Result<(PathBuf, Loaded), String> {
    let path = config::find(config, environment).map_err(|error| explain(&error))?;
    let loaded = config::load(&path, environment, secrets).map_err(|error| explain(&error))?;
    let needed = loaded.settings.descriptors();
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => Err(format!(
            "error: `max_connections` needs {needed} file descriptors, but the hard limit is \
             {limit}: raise the limit (LimitNOFILE=, --ulimit nofile) or lower `max_connections`"
        )),
        _ => Ok((path, loaded)),
    }
}

/// The error with its causes. What is wrong inside a file is laid out already.
fn explain(error: &config::Error) -> String {
    match error {
        config::Error::Invalid(report) => report.clone(),
        config::Error::Unreadable { source, .. } => format!("error: {error}: {source}"),
        config::Error::NoFile | config::Error::WritableByOthers { .. } => format!("error: {error}"),
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a command's answer goes to standard output"
)]
fn print(text: &str) {
    println!("{text}");
}

/// One line a component.
struct Summary<'s>(&'s Settings);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            server,
            credentials,
            store,
            upstream,
            routes,
            status,
            ..
        } = self.0;
        let listeners: Vec<_> = server.listeners.iter().map(shown).collect();
        let instances: Vec<_> = credentials.instances.iter().map(|i| &*i.name).collect();
        let accounts: Vec<_> = credentials.accounts.iter().map(|a| &*a.name).collect();
        let windows: Vec<_> = credentials
            .budget
            .windows
            .iter()
            .map(|window| format!("{} in {}", window.logins, config::compact(window.per)))
            .collect();
        writeln!(
            f,
            "  listen     {}; {} workers, at most {} connections",
            listeners.join(", "),
            server.threads,
            server.max_connections,
        )?;
        writeln!(f, "  instances  {}", or_none(&instances))?;
        writeln!(f, "  accounts   {}", or_none(&accounts))?;
        let key = match store.key {
            Some(_) => "with the configured key",
            None => "with a key of its own",
        };
        writeln!(f, "  store      {}, sealed {key}", store.path.display())?;
        writeln!(
            f,
            "  logins     {}, {} of them for users seen before",
            windows.join(", "),
            credentials.budget.reserve,
        )?;
        writeln!(
            f,
            "  upstream   {} hosts redirected, {} routes added",
            upstream.redirects.len(),
            routes.len(),
        )?;
        let status = status.as_ref().map_or("not served".to_owned(), shown);
        write!(f, "  status     {status}")
    }
}

fn shown(listener: &Listener) -> String {
    match listener {
        Listener::Tcp(address) => address.to_string(),
        Listener::Unix { path, .. } => path.display().to_string(),
    }
}

fn or_none(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}
