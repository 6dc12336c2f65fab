//! The proxy as a process: its start, its log, its signals, its end.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use damoov_proxy::simulator::{INSTANCE_ID, Simulator};
use rusqlite::Connection;
use tempfile::TempDir;

use super::builder::{override_of, write_private};
use super::caller::Client;
use super::damoov::{principal, user};
use super::waiting::{eventually, said};

/// The real binary in a process of its own. Killed when dropped.
pub struct Proxy {
    pub(super) folder: TempDir,
    pub(super) environment: Vec<(String, String)>,
    pub(super) config: PathBuf,
    pub(super) store: PathBuf,
    pub(super) child: Option<Child>,
    pub(super) address: SocketAddr,
    pub(super) status: SocketAddr,
    /// `None` without a listener for operators, and before the first start.
    pub(super) admin: Option<SocketAddr>,
    pub(super) client: Client,
}

impl Proxy {
    /// Starts the process, again or for the first time, and waits until it listens. After the
    /// first start it keeps its port, unless the test says itself where it listens.
    pub async fn start(&mut self) {
        self.begin();
        self.listens().await;
    }

    /// Starts it by this command, which becomes the proxy, and waits until it listens.
    pub async fn start_as(&mut self, command: Command) {
        self.begin_as(command);
        self.listens().await;
    }

    /// Waits until it listens.
    pub async fn listens(&mut self) {
        self.address = self.logged_address("listening").await;
        self.answers_probes().await;
    }

    /// Starts the process and waits for nothing.
    pub fn begin(&mut self) {
        self.begin_as(self.command("run"));
    }

    /// Starts it by this command, which becomes the proxy, and waits for nothing.
    pub fn begin_as(&mut self, mut command: Command) {
        let log = File::create(self.log_path()).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        self.child = Some(child);
        // A client's old connections lead nowhere.
        self.client = Client::new();
    }

    /// Waits until probes are answered.
    pub async fn answers_probes(&mut self) {
        self.status = self.logged_address("serving health and metrics").await;
        let (listens, _) = override_of("admin.listen", "");
        if self.environment.iter().any(|(name, _)| *name == listens) {
            self.admin = Some(self.logged_address("serving the dashboard").await);
        }
    }

    /// The binary with this proxy's configuration.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
        if self.address.port() != 0 {
            command.env("DAMOOV_PROXY__LISTEN", self.address.to_string());
        }
        command
            .args(subcommand.split(' '))
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // After the first start it keeps this port, too.
        if let Some(address) = self.admin {
            let (name, value) = override_of("admin.listen", &address.to_string());
            command.env(name, value);
        }
        command
    }

    /// What a command prints that has this proxy's configuration, and its exit code.
    pub async fn run(&self, subcommand: &str) -> (Option<i32>, String) {
        said(self.command(subcommand)).await
    }

    async fn logged_address(&mut self, message: &str) -> SocketAddr {
        for _ in 0..1500 {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| line.contains(&format!("\"message\":\"{message}\"")));
            if let Some(address) = line.and_then(|line| line.split("\"address\":\"").nth(1)) {
                return address.split('"').next().unwrap().parse().unwrap();
            }
            let child = self.child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the proxy ended with {status}:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the proxy does not listen:\n{}", self.log());
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What this run has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Returns once this run has logged this: a thread of its own writes the log.
    pub async fn has_logged(&self, said: &str) {
        eventually(said, async || self.log().contains(said)).await;
    }

    /// Where callers are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are served.
    pub fn status_address(&self) -> SocketAddr {
        self.status
    }

    /// Where operators are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.expect("it is `administered`")
    }

    /// The configuration's file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The store's folder.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGKILL: no destructor, no flush, nothing.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "it ended by itself:\n{}",
            self.log()
        );
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, then the exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        tokio::task::spawn_blocking(move || child.wait().unwrap())
            .await
            .unwrap()
    }

    /// Kills it and starts it anew, on the same port and store.
    pub async fn crash(&mut self) {
        self.kill();
        self.start().await;
    }

    /// Issues a pair to each of these users, as if they had logged in elsewhere, and hands the
    /// pairs to `tokens import`.
    pub fn import(&self, damoov: &Simulator, users: impl IntoIterator<Item = usize>) {
        let line = |number| {
            let pair = damoov.handle().issue(&principal(number));
            let line = serde_json::json!({
                "DeviceToken": user(number).to_string(),
                "InstanceId": INSTANCE_ID,
                "AccessToken": pair.access_token,
                "RefreshToken": pair.refresh_token,
            });
            format!("{line}\n")
        };
        let lines: String = users.into_iter().map(line).collect();
        let file = self.folder.path().join("pairs.jsonl");
        write_private(&file, &lines);
        let import = format!("tokens import --from {}", file.display());
        assert!(self.command(&import).status().unwrap().success());
    }

    /// Changes one byte of the stored pair of a user. The proxy must not run.
    pub fn damage_pair(&self, number: usize) {
        let db = Connection::open(self.store().join("tokens.db")).unwrap();
        let damage = "UPDATE entries SET sealed = CAST(
                substr(sealed, 1, 40) || iif(substr(sealed, 41, 1) = x'00', x'01', x'00')
                    || substr(sealed, 42) AS BLOB)
            WHERE principal = ?1";
        let damaged = db.execute(damage, [principal(number).to_string()]);
        assert_eq!(damaged, Ok(1));
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// Overrides one key, as [`Builder::set`] does, from the next start on.
    pub fn reconfigure(&mut self, key: &str, value: &str) {
        self.environment.push(override_of(key, value));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the proxy's last lines:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}
