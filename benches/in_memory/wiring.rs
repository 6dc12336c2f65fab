//! The proxy as `run` wires it, every default on, but in memory: whom it dials are callees of this
//! process, and nothing listens. The store is the real one, in a folder that is gone afterwards.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use damoov_proxy::cli;
use damoov_proxy::cli::opening::open_store;
use damoov_proxy::cli::wiring::Foundation;
use damoov_proxy::clock::Clock;
use damoov_proxy::config::{self, Environment, Secrets};
use damoov_proxy::credentials::{Background, Provider};
use damoov_proxy::damoov::routes::Table;
use damoov_proxy::handed_out::HandedOut;
use damoov_proxy::metrics::Metrics;
use damoov_proxy::principal::DeviceToken;
use damoov_proxy::proxy::Proxy;
use damoov_proxy::server::Times;
use damoov_proxy::telemetry::Log;
use damoov_proxy::telemetry::access::AccessLog;
use damoov_proxy::upstream::{Dial, Dialed, Hosts};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

const INSTANCE: &str = "11111111-1111-4111-8111-111111111111";
/// Bytes of a JWT, as the API's are about as long.
const JWT: usize = 700;
/// Seconds that a JWT lives.
pub(crate) const LIFE: i64 = 43_200;

/// The components, each as `run` makes it.
pub(crate) struct Wired {
    pub(crate) provider: Provider,
    pub(crate) handed_out: Arc<HandedOut>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) times: watch::Receiver<Times>,
    pub(crate) access: AccessLog,
    pub(crate) log: Log,
    /// Whom the proxy connects to.
    pub(crate) dialed: mpsc::UnboundedReceiver<Dialed>,
    pub(crate) background: Background,
    pub(crate) folder: TempDir,
}

/// A proxy as `run` wires it, whose store holds a fresh pair for each of this many users, generation 0 of [`jwt`] and
/// [`refresh_token`]. On the current runtime.
pub(crate) async fn wire(users: usize) -> Wired {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(&folder);
    let (dial, dialed) = mpsc::unbounded_channel();
    let hosts = Hosts::new(&settings.upstream).expect("hosts that can be reached");
    import(&folder, users);
    let opened = open_store(&settings.store).await;
    let log = Log::open(settings.log.format).expect("a thread");
    // Another log of this process may be followed already: then access events are wanted, too.
    let _ = log.follow(settings.log.level);
    let (_, times) = watch::channel(settings.server.times);
    let access = AccessLog::new(log.lines());
    let foundation = Foundation {
        store: opened.expect("the store that the import made"),
        hosts: hosts.dialed_by(Dial::Memory(dial)),
        metrics: Arc::new(Metrics::new()),
        access: access.clone(),
    };
    let cli::wiring::Wired {
        provider,
        handed_out,
        proxy,
        background,
    } = cli::wiring::wire(settings, foundation).expect("hosts that can be reached");
    Wired {
        provider,
        handed_out,
        proxy,
        times,
        access,
        log,
        dialed,
        background,
        folder,
    }
}

/// The defaults, with every host of the API in plain text under its own name.
fn settings(folder: &TempDir) -> config::Settings {
    let table = Table::new(Vec::new(), None);
    let hosts: BTreeSet<_> = table.hosts().collect();
    let hosts: String = hosts
        .iter()
        .map(|host| format!("\"{host}\" = \"http://{host}\"\n"))
        .collect();
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[workers]\nthreads = 1\n[[instance]]\nname = \"main\"\nid = \"{INSTANCE}\"\n\
         key = \"the key of main\"\n[store]\npath = \"{}\"\n[upstream.hosts]\n{hosts}",
        folder.path().join("store").display(),
    );
    let file = config_file(folder);
    std::fs::write(&file, text).expect("a file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("its mode");
    let loaded = config::load(&file, &Environment::default(), Secrets::Resolve);
    loaded.expect("a configuration").settings
}

fn config_file(folder: &TempDir) -> PathBuf {
    folder.path().join("damoov-proxy.toml")
}

/// By another process, so that none of it is counted here.
fn import(folder: &TempDir, users: usize) {
    let mut importing = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"))
        .args(["tokens", "import", "--from", "-", "--config"])
        .arg(config_file(folder))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut lines = importing.stdin.take().expect("a pipe");
    for user in (0..users).map(user) {
        let (jwt, refresh) = (jwt(user, 0), refresh_token(user, 0));
        writeln!(
            lines,
            r#"{{"DeviceToken":"{user}","AccessToken":"{jwt}","RefreshToken":"{refresh}"}}"#
        )
        .expect("it reads");
    }
    drop(lines);
    assert!(importing.wait().expect("it ends").success());
}

/// User number `number`.
pub(crate) fn user(number: usize) -> DeviceToken {
    DeviceToken::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).expect("a UUID")
}

/// A JWT of 700 bytes, with the claims that the proxy reads; another one for each generation,
/// the same whenever it is asked for.
pub(crate) fn jwt(user: DeviceToken, generation: usize) -> String {
    static ISSUED: LazyLock<i64> = LazyLock::new(|| Clock::real().wall().as_millis() / 1000);
    let issued = *ISSUED;
    let payload = format!(
        r#"{{"DeviceToken":"{user}","iat":{issued},"exp":{},"jti":"{generation:08}"}}"#,
        issued + LIFE,
    );
    let mut jwt = [r#"{"alg":"RS256","typ":"JWT"}"#, payload.as_str()]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
        .join(".");
    jwt.push('.');
    let signature = JWT - jwt.len();
    jwt.extend(std::iter::repeat_n('s', signature));
    jwt
}

/// The RefreshToken beside [`jwt`].
pub(crate) fn refresh_token(user: DeviceToken, generation: usize) -> String {
    format!("refresh-{user}-{generation:08}")
}
