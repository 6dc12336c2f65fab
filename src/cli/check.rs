//! `check`: validates everything that `run` would refuse, and summarises a valid configuration. Never
//! shows a secret.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::opening::{self, shown_place};
use super::output::{Format, print_json};
use super::{ConfigFile, Failure, background_runtime, print, say, service};
use crate::config::{self, Finding, Secrets, Settings};
use crate::damoov::routes::Table;
use crate::server::Listener;
use crate::store::KeyId;

/// How to check.
#[derive(Clone, Copy, Debug, Args)]
pub struct Arguments {
    /// Resolve no secret and open no store
    #[arg(long)]
    offline: bool,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// Checks what `run` would start with. Offline, no secret is resolved, no store opened, and neither
/// certificates nor groups of this machine are looked for. Findings go to standard error, a summary to
/// standard output; as JSON all of it goes to standard output.
pub fn run(config: ConfigFile, arguments: Arguments) -> Result<ExitCode, Failure> {
    let checked = check(config, arguments);
    if arguments.format.is_json()
        && let Err(failure) = &checked
        && !matches!(failure, Failure::Output(_))
    {
        print_errors(failure)?;
    }
    checked
}

/// One line for each problem of the file; of another failure, one line.
fn print_errors(failure: &Failure) -> Result<(), Failure> {
    match failure {
        Failure::Config(config::Error::Invalid(report)) => {
            let mut findings = report.findings().iter();
            findings.try_for_each(|finding| {
                print_json(&Line {
                    kind: "error",
                    finding,
                })
            })
        }
        other => {
            let message = other.to_string();
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            print_json(&json!({ "kind": "error", "message": message }))
        }
    }
}

#[derive(Serialize)]
struct Line<'f> {
    kind: &'static str,
    #[serde(flatten)]
    finding: &'f Finding,
}

fn check(config: ConfigFile, arguments: Arguments) -> Result<ExitCode, Failure> {
    let secrets = match arguments.offline {
        true => Secrets::Leave,
        false => Secrets::Resolve,
    };
    let (path, loaded) = config.load(secrets)?;
    let settings = &loaded.settings;
    super::check_descriptors(settings)?;
    let is_json = arguments.format.is_json();
    let warn = |message: &str| match is_json {
        true => print_json(&json!({ "kind": "warning", "message": message })),
        false => {
            say(&format!("warning: {message}"));
            Ok(())
        }
    };
    loaded
        .warnings
        .iter()
        .try_for_each(|warning| warn(warning))?;
    let mut old_keys = None;
    if !arguments.offline {
        service::check(settings)?;
        old_keys = background_runtime()?.block_on(opening::check(&settings.store))?;
        opening::warnings(&settings.store)
            .iter()
            .try_for_each(|warning| warn(warning))?;
        if old_keys.is_none() && !is_json {
            say("no store yet: the first `run` will make one");
        }
    }
    let old_keys = old_keys.unwrap_or_default();
    match is_json {
        true => print_json(&as_json(&path, settings, &old_keys))?,
        false => print(&as_text(&path, settings, &old_keys))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `old_keys`: how many pairs each of them still seals.
fn as_text(path: &Path, settings: &Settings, old_keys: &[(KeyId, u64)]) -> String {
    let mut text = format!("config ok: {}\n{}", path.display(), Summary(settings));
    for (key, pairs) in old_keys {
        text.push_str(&match pairs {
            0 => format!("\n  old key    {key}: nothing is sealed with it"),
            pairs => format!(
                "\n  old key    {key}: {pairs} pairs are sealed with it; \
                 `damoov-proxy tokens reseal` ends that"
            ),
        });
    }
    text
}

/// The same, for a program.
fn as_json(path: &Path, settings: &Settings, old_keys: &[(KeyId, u64)]) -> serde_json::Value {
    let Settings {
        server,
        directory,
        credentials,
        store,
        routes,
        status,
        admin,
        ..
    } = settings;
    let old_keys = old_keys.iter();
    let (real, all) = reached(settings);
    json!({
        "kind": "summary",
        "config": path.display().to_string(),
        "listen": strings(&server.listeners),
        "workers": server.threads,
        "max_connections": server.max_connections,
        "instances": strings(directory.instances().iter().map(|instance| &instance.name)),
        "accounts": strings(directory.accounts().iter().map(|account| &account.name)),
        "store": {
            "place": shown_place(store).to_string(),
            "outbox": store.postgres.is_some().then(|| store.path.display().to_string()),
            "key_is_configured": store.key.is_some(),
            "old_keys": old_keys
                .map(|(key, pairs)| json!({ "key": key.to_string(), "pairs": pairs }))
                .collect::<Vec<_>>(),
        },
        "login_budget": {
            "windows": credentials.budget.windows.iter()
                .map(|window| json!({ "logins": window.logins, "seconds": window.per.as_secs_f64() }))
                .collect::<Vec<_>>(),
            "reserve": credentials.budget.reserve,
        },
        "upstream": { "hosts": all, "real": real, "routes_added": routes.len() },
        "status": status.as_ref().map(ToString::to_string),
        "admin": admin.as_ref().map(ToString::to_string),
    })
}

fn strings(all: impl IntoIterator<Item: ToString>) -> Vec<String> {
    all.into_iter().map(|one| one.to_string()).collect()
}

/// One line for each component.
struct Summary<'s>(&'s Settings);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            server,
            directory,
            credentials,
            store,
            routes,
            status,
            admin,
            ..
        } = self.0;
        let listeners: Vec<_> = server.listeners.iter().map(ToString::to_string).collect();
        let instances: Vec<_> = directory.instances().iter().map(|i| &*i.name).collect();
        let accounts: Vec<_> = directory.accounts().iter().map(|a| &*a.name).collect();
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
        writeln!(f, "  store      {}, sealed {key}", shown_place(store))?;
        if store.postgres.is_some() {
            writeln!(
                f,
                "  outbox     {}, for pairs that the store does not have yet",
                store.path.display()
            )?;
        }
        writeln!(
            f,
            "  logins     {}, {} of them for users seen before",
            windows.join(", "),
            credentials.budget.reserve,
        )?;
        let added = match routes.len() {
            0 => String::new(),
            1 => "; 1 route added".to_owned(),
            several => format!("; {several} routes added"),
        };
        writeln!(f, "  upstream   {}{added}", reached_in_words(self.0))?;
        let served = |at: &Option<Listener>| match at {
            Some(listener) => listener.to_string(),
            None => "not served".to_owned(),
        };
        writeln!(f, "  status     {}", served(status))?;
        write!(f, "  admin      {}", served(admin))
    }
}

/// The hosts that are the real Damoov, and how many there are in all: a test that forgets to redirect one
/// calls it.
fn reached(settings: &Settings) -> (Vec<String>, usize) {
    let table = Table::new(settings.routes.clone(), settings.default_host.clone());
    let hosts: BTreeSet<_> = table.hosts().collect();
    let redirects = &settings.upstream.redirects;
    let real = hosts.iter().filter(|host| redirects.of(host).is_none());
    (real.map(|host| (*host).to_owned()).collect(), hosts.len())
}

/// In words.
fn reached_in_words(settings: &Settings) -> String {
    match reached(settings) {
        (real, all) if real.is_empty() => format!("all {all} hosts are redirected"),
        (real, all) if real.len() == all => format!("all {all} hosts are the real Damoov"),
        (real, all) => format!(
            "{} of {all} hosts are the real Damoov: {}",
            real.len(),
            real.join(", ")
        ),
    }
}

fn or_none(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}
