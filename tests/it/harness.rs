//! What the tests share: a simulated Damoov in this process, the real proxy as a child process in
//! front of it, and a client. Everything on loopback, every port chosen by the system.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::damoov::routes::Table;
use damoov_proxy::principal::{DeviceToken, Principal};
use damoov_proxy::simulator::{
    ACCOUNT_EMAIL, ACCOUNT_PASSWORD, INSTANCE_ID, INSTANCE_KEY, LoginCall, Settings, Simulator,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Resource, Rlimit};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// The path of a call that every user may make.
pub const SCORES: &str = "/indicators/v3/Scores/safety?StartDate=2026-11-01&EndDate=2026-11-07";
/// Records what arrives.
pub const ECHO: &str = "/mobilesdk/stage/echo";

/// How often a test repeats what it repeats: `once` in `tests/run`, `long` in `tests/run long`.
pub fn rounds(once: usize, long: usize) -> usize {
    match std::env::var("DAMOOV_PROXY_TESTS").as_deref() {
        Ok("long") => long,
        _ => once,
    }
}

/// Held by tests that fill the machine, so that they take turns.
pub async fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Lets this process and those that it starts open as many descriptors as they may.
pub fn allow_many_descriptors() {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
}

/// The most of `calls` in any span of `per`.
pub fn most_within(calls: &[LoginCall], per: Duration) -> usize {
    let ends = calls.iter().map(|first| first.at.plus(per));
    ends.enumerate()
        .map(|(first, end)| calls.partition_point(|call| call.at < end) - first)
        .max()
        .unwrap_or(0)
}

/// A simulated Damoov on a free port, with no login limit unless the test sets one.
pub async fn damoov() -> Simulator {
    damoov_with(|settings| settings.login_limit = None).await
}

/// A simulated Damoov on a free port, its settings changed by `change`.
pub async fn damoov_with(change: impl FnOnce(&mut Settings)) -> Simulator {
    let mut settings = Settings {
        listen: loopback(0),
        ..Settings::default()
    };
    change(&mut settings);
    Simulator::start(settings)
        .await
        .expect("a free port on loopback")
}

/// An address of one proxy alone: nobody else is given the port that it gives up and takes again
/// when it restarts.
fn address_apart() -> Ipv4Addr {
    static TAKEN: AtomicU16 = AtomicU16::new(1);
    let [.., process] = std::process::id().to_be_bytes();
    let [high, low] = TAKEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, process | 1, high, low)
}

/// An address on loopback.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The DeviceToken number `number`: always the same one.
pub fn user(number: usize) -> DeviceToken {
    DeviceToken::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).unwrap()
}

/// The same as a principal.
pub fn principal(number: usize) -> Principal {
    Principal::User(user(number))
}

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
    let table = Table::new(Vec::new(), None);
    let mut hosts: Vec<_> = table.hosts().map(str::to_owned).collect();
    hosts.sort();
    hosts.dedup();
    let hosts = hosts
        .iter()
        .map(|host| format!("\"{host}\" = \"{}\"\n", damoov.base_url()));
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
        let name = key.to_uppercase().replace('.', "__");
        self.environment
            .push((format!("DAMOOV_PROXY__{name}"), value.to_owned()));
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
            client: Client::new(),
        }
    }
}

/// A file that may hold secrets.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// The real binary in a process of its own. Killed when dropped.
pub struct Proxy {
    folder: TempDir,
    environment: Vec<(String, String)>,
    config: PathBuf,
    store: PathBuf,
    child: Option<Child>,
    address: SocketAddr,
    status: SocketAddr,
    client: Client,
}

impl Proxy {
    /// Starts the process, again or for the first time, and waits until it listens. After the
    /// first start it keeps its port, unless the test says itself where it listens.
    pub async fn start(&mut self) {
        self.begin();
        self.address = self.logged_address("listening").await;
        self.answers_probes().await;
    }

    /// Starts the process and waits for nothing.
    pub fn begin(&mut self) {
        let log = File::create(self.log_path()).unwrap();
        let child = self.command("run").stderr(log).spawn().unwrap();
        self.child = Some(child);
        // A client's old connections lead nowhere.
        self.client = Client::new();
    }

    /// Waits until probes are answered.
    pub async fn answers_probes(&mut self) {
        self.status = self.logged_address("serving health and metrics").await;
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
        command
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

    /// The absolute URL of a path on this proxy.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client of this proxy, with its own connections.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// `GET path` as user number `number`.
    pub async fn get(&self, number: usize, path: &str) -> Answer {
        self.send(Request::get(path).header("DeviceToken", user(number).to_string()))
            .await
    }

    /// A request without content; its URI is a path on this proxy.
    pub async fn send(&self, request: http::request::Builder) -> Answer {
        self.send_with(request, Bytes::new()).await
    }

    /// A request with content; its URI is a path on this proxy.
    pub async fn send_with(
        &self,
        request: http::request::Builder,
        content: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(request, content).await.expect("an answer")
    }

    /// The same, where no answer at all is possible.
    pub async fn try_send(
        &self,
        request: http::request::Builder,
        content: impl Into<Bytes>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let mut request = request.body(Full::new(content.into())).unwrap();
        *request.uri_mut() = self.url(&request.uri().to_string()).parse().unwrap();
        self.client.send(request).await
    }

    /// `GET path` on the status listener.
    pub async fn status(&self, path: &str) -> Answer {
        let uri = format!("http://{}{path}", self.status);
        self.client
            .send(Request::get(uri).body(Full::default()).unwrap())
            .await
            .expect("an answer")
    }

    /// The sum of a metric over all label sets that contain `labels`; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.status("/metrics").await.text();
        text.lines()
            .filter(|line| {
                line.strip_prefix("damoov_proxy_")
                    .is_some_and(|l| l.starts_with(name))
            })
            .filter(|line| line.contains(labels))
            .filter(|line| matches!(line[13 + name.len()..].chars().next(), Some('{' | ' ')))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
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

/// A pooled HTTP/1.1 client that nothing of the proxy is part of.
#[derive(Clone)]
pub struct Client(HyperClient<HttpConnector, Full<Bytes>>);

impl Client {
    /// One with no connections yet.
    pub fn new() -> Client {
        Client(HyperClient::builder(TokioExecutor::new()).build_http())
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let (head, body) = self.0.request(request).await?.into_parts();
        let content = body.collect().await.map(|content| content.to_bytes());
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            content: content.ok(),
        })
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `None` if the content was cut.
    content: Option<Bytes>,
}

impl Answer {
    /// The content, which must be whole.
    pub fn content(&self) -> &Bytes {
        self.content.as_ref().expect("whole content")
    }

    /// Whether the content came to its end.
    pub fn is_whole(&self) -> bool {
        self.content.is_some()
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.content().to_vec()).unwrap()
    }

    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// `Errors[0].Key` of the envelope: the proxy's code word.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(self.content()).unwrap_or_default();
        json["Errors"][0]["Key"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Whose token reached Damoov, as it says itself.
    pub fn served_as(&self) -> &str {
        self.header("x-sim-device-token")
    }
}

/// Runs a command to its end, beside everything else, and keeps what it prints.
pub async fn captured(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Polls until `condition` holds; 30 s are never.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polling)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

impl Builder {
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

impl Proxy {
    /// Overrides one key, as [`Builder::set`] does, from the next start on.
    pub fn reconfigure(&mut self, key: &str, value: &str) {
        let name = key.to_uppercase().replace('.', "__");
        self.environment
            .push((format!("DAMOOV_PROXY__{name}"), value.to_owned()));
    }

    /// Starts `GET path` as user number `number`, in a task that can be waited for or aborted.
    pub fn calling(&self, number: usize, path: &str) -> tokio::task::JoinHandle<Answer> {
        let request = Request::get(self.url(path))
            .header("DeviceToken", user(number).to_string())
            .body(Full::default())
            .unwrap();
        let client = self.client();
        tokio::spawn(async move { client.send(request).await.expect("an answer") })
    }
}
