//! `check`: validates everything that `run` would refuse, and summarises a valid configuration. Never
//! shows a secret.

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;

use super::opening::{self, shown_place};
use super::{ConfigFile, Failure, background_runtime, print, say, service};
use crate::config::{self, Secrets, Settings};
use crate::damoov::routes::Table;
use crate::server::Listener;

/// Checks what `run` would start with. `offline`: no secret is resolved, no store
/// opened, and neither certificates nor groups of this machine are looked for.
/// Findings go to standard error, a summary to standard output.
pub fn run(config: ConfigFile, offline: bool) -> Result<ExitCode, Failure> {
    let secrets = if offline {
        Secrets::Leave
    } else {
        Secrets::Resolve
    };
    let (path, loaded) = config.load(secrets).map_err(Failure::Config)?;
    super::check_descriptors(&loaded.settings)?;
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"));
    }
    let mut text = format!(
        "config ok: {}\n{}",
        path.display(),
        Summary(&loaded.settings)
    );
    if !offline {
        service::check(&loaded.settings)?;
        let checked = background_runtime()?.block_on(opening::check(&loaded.settings.store))?;
        for warning in opening::warnings(&loaded.settings.store) {
            say(&format!("warning: {warning}"));
        }
        match checked {
            None => say("no store yet: the first `run` will make one"),
            Some(old_keys) => {
                for (key, pairs) in old_keys {
                    text.push_str(&match pairs {
                        0 => format!("\n  old key    {key}: nothing is sealed with it"),
                        pairs => format!(
                            "\n  old key    {key}: {pairs} pairs are sealed with it; \
                             `damoov-proxy tokens reseal` ends that"
                        ),
                    });
                }
            }
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
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
        writeln!(f, "  upstream   {}{added}", reached(self.0))?;
        let served = |at: &Option<Listener>| match at {
            Some(listener) => listener.to_string(),
            None => "not served".to_owned(),
        };
        writeln!(f, "  status     {}", served(status))?;
        write!(f, "  admin      {}", served(admin))
    }
}

/// Which hosts are the real ones: a test that forgets one calls it.
fn reached(settings: &Settings) -> String {
    let table = Table::new(settings.routes.clone(), settings.default_host.clone());
    let hosts: BTreeSet<_> = table.hosts().collect();
    let redirects = &settings.upstream.redirects;
    let is_real = |host: &&&str| redirects.of(host).is_none();
    let real: Vec<_> = hosts.iter().filter(is_real).copied().collect();
    match (real.len(), hosts.len()) {
        (0, all) => format!("all {all} hosts are redirected"),
        (some, all) if some == all => format!("all {all} hosts are the real Damoov"),
        (some, all) => format!(
            "{some} of {all} hosts are the real Damoov: {}",
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
