//! How a proxy is started: its configuration, its environment, its folder.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use damoov_proxy::damoov::routes::Table;
use damoov_proxy::simulator::{
    ACCOUNT_EMAIL, ACCOUNT_PASSWORD, INSTANCE_ID, INSTANCE_KEY, Simulator,
};
use tempfile::TempDir;

use super::caller::Client;
use super::ports::{address_apart, loopback};
use super::process::Proxy;

/// How a proxy is to be started.
pub struct Builder {
    folder: TempDir,
    listen: Ipv4Addr,
    hosts: String,
    environment: Vec<(String, String)>,
    extra: String,
}

/// A proxy in front of `damoov`, with one instance, one account, and a store of its own.
pub fn proxy(damoov: &Simulator) -> Builder {
    proxy_at(&damoov.base_url())
}

/// The same, which calls Damoov through the door of this name alone, so that the journal knows it.
pub fn proxy_through(damoov: &Simulator, door: &str) -> Builder {
    let door = damoov.door_url(door);
    proxy_at(&door.expect("one of Settings::doors"))
}

fn proxy_at(url: &str) -> Builder {
    let table = Table::new(Vec::new(), None);
    let mut hosts: Vec<_> = table.hosts().map(str::to_owned).collect();
    hosts.sort();
    hosts.dedup();
    let hosts = hosts.iter().map(|host| format!("\"{host}\" = \"{url}\"\n"));
    Builder {
        folder: tempfile::tempdir().unwrap(),
        listen: address_apart(),
        hosts: hosts.collect(),
        environment: Vec::new(),
        extra: String::new(),
    }
}

impl Builder {
    /// Overrides one key, `section.key`, by its environment variable.
    pub fn set(mut self, key: &str, value: &str) -> Builder {
        self.environment.push(override_of(key, value));
        self
    }

    /// Sets any environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Reaches one host somewhere else than at the simulator.
    pub fn redirect(mut self, host: &str, url: &str) -> Builder {
        let old = self.hosts.lines().find(|line| line.contains(host)).unwrap();
        self.hosts = self.hosts.replace(old, &format!("\"{host}\" = \"{url}\""));
        self
    }

    /// Adds tables to the end of the file.
    pub fn toml(mut self, tables: &str) -> Builder {
        self.extra.push_str(tables);
        self
    }

    /// Gives it a listener for operators: [`Proxy::admin`].
    pub fn administered(self) -> Builder {
        self.set("admin.listen", "127.0.0.1:0")
    }

    /// Where this proxy keeps its files; may be prepared before the start.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Proxy {
        let store = self.store();
        self.start_on(&store).await
    }

    /// Starts it on a store that may be another proxy's too.
    pub async fn start_on(self, store: &Path) -> Proxy {
        let mut proxy = self.stopped(store);
        proxy.start().await;
        proxy
    }

    /// All but the process.
    pub fn stopped(self, store: &Path) -> Proxy {
        let config = self.folder.path().join("damoov-proxy.toml");
        let text = format!(
            r#"
listen = "{}:0"
drain_delay = "0s"
[[instance]]
name = "main"
id = "{INSTANCE_ID}"
key = "{INSTANCE_KEY}"
[[account]]
name = "reporting"
email = "{ACCOUNT_EMAIL}"
password = "{ACCOUNT_PASSWORD}"
[store]
path = "{}"
[status]
listen = "127.0.0.1:0"
[upstream.hosts]
{}
{}"#,
            self.listen,
            store.display(),
            self.hosts,
            self.extra,
        );
        write_private(&config, &text);
        Proxy {
            store: store.to_owned(),
            folder: self.folder,
            environment: self.environment,
            config,
            child: None,
            address: loopback(0),
            status: loopback(0),
            admin: None,
            client: Client::new(),
        }
    }

    /// Lets `scale` seconds of the proxy's engine pass in every real one; give the simulator the
    /// same clock.
    pub fn scaled(self, scale: u32) -> Builder {
        self.env("DAMOOV_PROXY_TIME_SCALE", &scale.to_string())
    }

    /// All but the process, on a store of its own.
    pub fn stopped_here(self) -> Proxy {
        let store = self.store();
        self.stopped(&store)
    }
}

/// The environment variable that overrides a key, `section.key`.
pub fn override_of(key: &str, value: &str) -> (String, String) {
    let name = key.to_uppercase().replace('.', "__");
    (format!("DAMOOV_PROXY__{name}"), value.to_owned())
}

/// A file that may hold secrets.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// Makes a pipe that its owner alone can use. Whoever reads it waits until somebody writes.
pub fn make_pipe(path: &Path) {
    let mut make = Command::new("mkfifo");
    let made = make.args(["-m", "600"]).arg(path).status();
    assert!(made.unwrap().success());
}
