//! The server of Prometheus that all tests of this binary share. It runs the rules of `config/` in a hurry:
//! without waiting, and with short windows.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;

use http::Request;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::config;
use crate::harness::{Client, Proxy, eventually, loopback, programs};

/// What stands in the place of each window.
pub const WINDOW: &str = "[6s]";

/// A server of Prometheus, which ends with the test binary.
pub struct Prometheus {
    folder: PathBuf,
    address: SocketAddr,
    targets: Mutex<Vec<Target>>,
    _process: Child,
}

/// A proxy that is scraped.
struct Target {
    name: &'static str,
    address: SocketAddr,
}

/// A proxy as Prometheus sees it, under a name of the test's own. No longer once it is dropped.
pub struct Watched {
    prometheus: &'static Prometheus,
    name: &'static str,
}

/// The server of this binary.
pub async fn prometheus() -> &'static Prometheus {
    static SERVER: OnceCell<Prometheus> = OnceCell::const_new();
    SERVER.get_or_init(Prometheus::start).await
}

/// Starts to scrape a proxy under this name, and returns once it is.
pub async fn watch(name: &'static str, proxy: &Proxy) -> Watched {
    watch_at(name, proxy.status_address()).await
}

/// The same, by the address of the status listener.
pub async fn watch_at(name: &'static str, address: SocketAddr) -> Watched {
    let prometheus = prometheus().await;
    prometheus.change(|targets| targets.push(Target { name, address }));
    let watched = Watched { prometheus, name };
    let expression = format!("up{{instance=\"{name}\"}} == 1");
    eventually("it is scraped", async || {
        !watched.finds(&expression).await.is_empty()
    })
    .await;
    watched
}

/// The rules with short windows, and without waiting.
fn hurried(rules: &str) -> String {
    let mut hurried = String::new();
    for line in rules.lines() {
        if line.trim_start().starts_with("for: ") {
            continue;
        }
        hurried += &with_short_windows(line);
        hurried.push('\n');
    }
    hurried
}

/// An expression with short windows.
pub fn with_short_windows(expression: &str) -> String {
    let mut parts = expression.split('[');
    let mut short = parts.next().unwrap().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((window, rest)) if window.starts_with(|first: char| first.is_ascii_digit()) => {
                short += WINDOW;
                short += rest;
            }
            _ => {
                short.push('[');
                short += part;
            }
        }
    }
    short
}

impl Prometheus {
    async fn start() -> Prometheus {
        // What works in this folder ends with the binary.
        let folder = servers::new_folder("prometheus");
        let rules = fs::read_to_string(config("prometheus/alerts.yml")).unwrap();
        fs::write(folder.join("alerts.yml"), hurried(&rules)).unwrap();
        fs::write(folder.join("targets.json"), "[]").unwrap();
        let settings = "\
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms }
rule_files: [alerts.yml]
scrape_configs:
  - job_name: damoov-proxy
    file_sd_configs: [{ files: [targets.json], refresh_interval: 1s }]
";
        fs::write(folder.join("prometheus.yml"), settings).unwrap();
        let address = loopback(free_port());
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = programs::prometheus();
        command
            .current_dir(&folder)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = command
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}; {}", programs::HINT));
        let started = Prometheus {
            address,
            targets: Mutex::default(),
            _process: process,
            folder,
        };
        eventually("Prometheus is ready", async || {
            started
                .get("/-/ready")
                .await
                .is_some_and(|(status, _)| status == 200)
        })
        .await;
        started
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let request = Request::get(format!("http://{}{path}", self.address));
        // Tests have runtimes of their own, and connections with them.
        let answer = Client::new()
            .send(request.body(Default::default()).unwrap())
            .await;
        let answer = answer.ok()?;
        Some((answer.status.as_u16(), answer.text()))
    }

    /// `data` of what the API answers.
    pub async fn api(&self, path: &str, query: &str) -> Value {
        let answer = self.get(&format!("/api/v1/{path}?{query}")).await;
        let (_, text) = answer.unwrap_or_else(|| panic!("Prometheus is gone: {}", self.log()));
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{query}: {text}");
        answer["data"].take()
    }

    /// What an expression finds now.
    pub async fn finds(&self, expression: &str) -> Vec<Value> {
        let encoded = expression.bytes().map(|byte| format!("%{byte:02X}"));
        let query = format!("query={}", encoded.collect::<String>());
        let data = self.api("query", &query).await;
        data["result"].as_array().cloned().unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Target>)) {
        let mut targets = self.targets.lock().unwrap();
        change(&mut targets);
        let listed = targets.iter().map(|target| {
            json!({
                "targets": [target.address.to_string()],
                "labels": { "instance": target.name },
            })
        });
        let listed = Value::from_iter(listed).to_string();
        replace(&self.folder.join("targets.json"), &listed);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Watched {
    /// What an expression finds now.
    pub async fn finds(&self, expression: &str) -> Vec<Value> {
        self.prometheus.finds(expression).await
    }

    /// Returns once this alert fires for this proxy.
    pub async fn fires(&self, alert: &str) {
        let what = format!("{alert} fires for {}", self.name);
        let firing = self.firing(alert);
        eventually(&what, async || !self.finds(&firing).await.is_empty()).await;
    }

    /// Returns once it no longer does, although the proxy is there.
    pub async fn ends(&self, alert: &str) {
        let what = format!("{alert} ends for {}", self.name);
        let calm = format!(
            "up{{instance=\"{}\"}} == 1 unless on (instance) {}",
            self.name,
            self.firing(alert)
        );
        eventually(&what, async || !self.finds(&calm).await.is_empty()).await;
    }

    fn firing(&self, alert: &str) -> String {
        let name = self.name;
        format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", instance=\"{name}\"}}")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.prometheus
            .change(|targets| targets.retain(|target| target.name != self.name));
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(loopback(0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Whoever reads the file finds all of the old text or all of the new one.
fn replace(file: &Path, text: &str) {
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, file).unwrap();
}
