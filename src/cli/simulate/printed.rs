//! What `simulate` prints: who may log in, and a configuration for a proxy.

use crate::simulator::{Account, Instance, Settings};

/// Who may log in, one line each.
pub(super) fn known(settings: &Settings) -> String {
    let instances = settings
        .instances
        .iter()
        .map(|Instance { id, key }| format!("instance   {id}\nkey        {key}\n"));
    let accounts = settings
        .accounts
        .iter()
        .map(|Account { email, password }| format!("account    {email}\npassword   {password}\n"));
    instances
        .chain(accounts)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// The same as a proxy's configuration has it; the first ones are the default.
pub(super) fn configured(settings: &Settings) -> String {
    let instances = settings.instances.iter().enumerate();
    let instances = instances.map(|(number, Instance { id, key })| {
        let name = numbered("main", number);
        let key = toml_string(key);
        format!("[[instance]]\nname = \"{name}\"\nid = \"{id}\"\nkey = {key}\n")
            + default(number, settings.instances.len())
            + "\n"
    });
    let accounts = settings.accounts.iter().enumerate();
    let accounts = accounts.map(|(number, Account { email, password })| {
        let name = numbered("reporting", number);
        let (email, password) = (toml_string(email), toml_string(password));
        format!("[[account]]\nname = \"{name}\"\nemail = {email}\npassword = {password}\n")
            + default(number, settings.accounts.len())
            + "\n"
    });
    instances.chain(accounts).collect()
}

fn numbered(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        more => format!("{name}-{}", more + 1),
    }
}

fn default(number: usize, count: usize) -> &'static str {
    match number == 0 && count > 1 {
        true => "default = true\n",
        false => "",
    }
}

/// Any text between quotes.
fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A file for a proxy that takes the simulator at `url` for Damoov.
pub(super) fn configuration(instances_and_accounts: &str, url: &str) -> String {
    format!(
        "listen = \"127.0.0.1:8080\"\n\n{instances_and_accounts}[store]\npath = \"simulated-store\"\n\n\
         [upstream]\nall_hosts = \"{url}\""
    )
}
