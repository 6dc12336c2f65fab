//! `demo`: the real proxy in front of a simulated Damoov, in one process, with lines to paste.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;

use rustix::process::{Signal, getpid, kill_process};
use tracing::level_filters::LevelFilter;

use super::output::print_aside;
use super::reloading::Start;
use super::run::until_signalled;
use super::service::Service;
use super::{Failure, Source, print};
use crate::config::Environment;
use crate::credentials::key_file;
use crate::server::Inherited;
use crate::signals::Signals;
use crate::simulator::{self, Simulator};
use crate::telemetry;

/// The port that the README names; any free one if it is taken.
const PORT: u16 = 8080;

/// Serves until Ctrl-C or SIGTERM. Its store is in a temporary folder, which is removed at the end.
pub fn run(signals: Signals) -> Result<ExitCode, Failure> {
    let log = telemetry::start(telemetry::Settings {
        format: telemetry::Format::Text,
        level: Some(LevelFilter::WARN),
    });
    let (log, level) = log.map_err(Failure::other)?;
    let folder = tempfile::tempdir().map_err(Failure::other)?;
    super::background_runtime()?.block_on(serve(folder.path(), signals, log.lines(), level))
}

async fn serve(
    folder: &Path,
    signals: Signals,
    log: &telemetry::Lines,
    level: telemetry::LogLevel,
) -> Result<ExitCode, Failure> {
    let damoov = simulator::Settings {
        listen: loopback(0),
        ..simulator::Settings::default()
    };
    let damoov = Simulator::start(damoov).await.map_err(Failure::other)?;
    key_file::read_or_create(folder).map_err(Failure::other)?;
    let file = folder.join("damoov-proxy.toml");
    std::fs::write(&file, configuration(folder, &damoov.base_url())).map_err(Failure::other)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(Failure::other)?;
    let source = Source {
        path: file,
        environment: Environment::default(),
    };
    let (loaded, seen) = source.read();
    let settings = loaded?.settings;
    let signals = signals.follow().map_err(Failure::other)?;
    let start = Start::new(source, seen, &settings, level);
    let ending = until_signalled(signals, &start);
    let inherited = Inherited::default();
    if let Some(service) = Service::open(settings, inherited, start, ending, log).await? {
        let addresses = service.local_addrs().into_iter();
        let lines = addresses.map(|address| lines_to_paste(address, &damoov.base_url()));
        let printing = print_aside(lines.collect());
        let (served, printed) = {
            let (mut serving, mut printing) = (pin!(service.serve()), pin!(printing));
            tokio::select! {
                served = &mut serving => (served, None),
                printed = &mut printing => {
                    if printed.is_err() {
                        // As by Ctrl-C: the store is in use until everything has ended in order.
                        let _ = kill_process(getpid(), Signal::INT);
                    }
                    (serving.await, Some(printed))
                }
            }
        };
        served.map_err(Failure::other)?;
        damoov.shutdown().await;
        // If the lines were never read this would wait behind them.
        if let Some(printed) = printed {
            printed?;
            print("\nended")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An ordinary configuration, except for the hosts.
fn configuration(folder: &Path, damoov: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:{port}"
drain_delay = "0s"

[[instance]]
name = "main"
id = "{id}"
key = "{key}"

[[account]]
name = "reporting"
email = "{email}"
password = "{password}"

[store]
path = "{folder}/store"
key = {{ file = "{folder}/{key_file}" }}

[upstream]
all_hosts = "{damoov}"
"#,
        port = free_port(),
        id = simulator::INSTANCE_ID,
        key = simulator::INSTANCE_KEY,
        email = simulator::ACCOUNT_EMAIL,
        password = simulator::ACCOUNT_PASSWORD,
        folder = folder.display(),
        key_file = key_file::KEY_FILE,
    )
}

fn lines_to_paste(proxy: SocketAddr, damoov: &str) -> String {
    let user = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
    let (instance, key) = (simulator::INSTANCE_ID, simulator::INSTANCE_KEY);
    let dates = "StartDate=2026-11-01&EndDate=2026-11-07";
    let scores = format!("http://{proxy}/indicators/v3/Scores/safety?{dates}");
    let control = format!("{damoov}/_control");
    format!(
        r#"damoov-proxy    http://{proxy}
simulated API   {damoov}

Paste these into another terminal.

# 1. A call. The user has never been seen: the proxy logs in, once.
curl -s '{scores}' -H 'DeviceToken: {user}'

# 2. The same call after every token has expired: a refresh and a replay, unseen by you.
curl -s -o /dev/null -X POST {control}/expire; curl -si '{scores}' -H 'DeviceToken: {user}' | grep -i -e ^HTTP -e ^proxy-status

# 3. The one case that costs a known user a login: the API rotated the pair, and its answer was lost on the way.
curl -s -o /dev/null {control}/faults -d '{{"on":"refresh","action":{{"lose":"reset"}},"times":1}}'; curl -s -o /dev/null -X POST {control}/expire; curl -si '{scores}' -H 'DeviceToken: {user}' | grep -i -e ^HTTP -e ^proxy-status

# 4. A burst of 1,000 parallel calls on an expired token: one refresh.
curl -s -o /dev/null -X POST {control}/expire; curl -sZ --no-progress-meter --parallel-max 200 -o /dev/null -w '%{{http_code}}\n' '{scores}&n=[1-1000]' -H 'DeviceToken: {user}' | sort | uniq -c

# 5. A service that logs in by itself: the proxy answers, no login is made, and the service's token is swapped for the real one.
curl -s 'http://{proxy}/v1/Auth/Login' -H 'InstanceId: {instance}' -d '{{"LoginFields":"{{\"Devicetoken\":\"{user}\"}}","Password":"{key}"}}' | grep -o 'eyJ[^"]*' | xargs -I TOKEN curl -si '{scores}' -H 'Authorization: Bearer TOKEN' | grep -i -e ^HTTP -e ^proxy-status

# 6. What lines 1 to 5 cost, each pasted once, as the API counted it: a login for line 1 and one for line 3, a refresh for lines 2 and 4.
curl -s '{control}/counts?principal={user}' | sed 's/.*"logins":{{[^}}]*"ok":\([0-9]*\).*"refreshes":{{[^}}]*"ok":\([0-9]*\).*/logins: expected 2, counted \1; refreshes: expected 2, counted \2/'

Ctrl-C ends both."#
    )
}

fn free_port() -> u16 {
    match TcpListener::bind(loopback(PORT)) {
        Ok(_) => PORT,
        Err(_) => 0,
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
