//! What the proxy adds to a call: the same requests to the simulated Damoov, straight and through
//! the proxy, in paired rounds of one run.
//!
//! ```sh
//! cargo bench --bench added
//! ```
//!
//! Client, proxy and simulated API share the machine, so the ratios are below what the proxy would
//! show with a core of its own.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use damoov_proxy::damoov::routes::Table;
use damoov_proxy::simulator::{INSTANCE_ID, INSTANCE_KEY, Settings, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
const DEVICE_TOKEN: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
const TARGET: &str = "/indicators/v3/Scores/safety?StartDate=2026-11-01&EndDate=2026-11-07";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        ..Settings::default()
    };
    let damoov = Simulator::start(settings).await.expect("a free port");
    let (proxy, address) = start_proxy(&damoov).await;
    // A token for the straight calls, which the proxy's own stays valid beside.
    let through = request(address, &format!("DeviceToken: {DEVICE_TOKEN}"));
    exchange(
        &mut TcpStream::connect(address).await.expect("it listens"),
        &through,
    )
    .await;
    let other =
        damoov_proxy::principal::Principal::parse("user:00000000-0000-4000-8000-000000000001")
            .expect("a principal");
    let token = damoov.handle().issue(&other).access_token;
    let straight = request(damoov.addr(), &format!("Authorization: Bearer {token}"));

    println!(
        "{ROUNDS} paired rounds of {ROUND:?}; median, and the smallest and largest of the ratios"
    );
    for connections in [1, 64] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let without = calls(damoov.addr(), &straight, connections).await;
            let with = calls(address, &through, connections).await;
            rounds.push((without, with));
        }
        let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            (
                values[0],
                values[values.len() / 2],
                values[values.len() - 1],
            )
        };
        let (least, ratio, most) = median(&|(without, with)| with / without);
        let (_, straight, _) = median(&|(without, _)| *without);
        let (_, through, _) = median(&|(_, with)| *with);
        print!(
            "{connections:>3} connections: {straight:>6.0} calls/s straight, {through:>6.0} through the \
             proxy, ratio {ratio:.2} ({least:.2} to {most:.2})",
        );
        if connections == 1 {
            // With one call under way at a time, the rest of each call's time is the proxy's.
            print!(
                ", {:.0} µs more a call",
                1e6 * (1.0 / through - 1.0 / straight)
            );
        }
        println!();
    }
    stop(proxy).await;
    damoov.shutdown().await;
}

/// Calls per second over this many connections, each with one request under way.
async fn calls(address: SocketAddr, request: &[u8], connections: u32) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + ROUND;
    let callers: Vec<_> = (0..connections)
        .map(|_| {
            let (request, done) = (request.to_vec(), done.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                stream.set_nodelay(true).expect("a TCP option");
                while Instant::now() < until {
                    exchange(&mut stream, &request).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no call fails");
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

/// One call; its answer must be a 200.
async fn exchange(stream: &mut TcpStream, request: &[u8]) {
    stream
        .write_all(request)
        .await
        .expect("the connection stays");
    let mut answer = Vec::with_capacity(4096);
    loop {
        assert_ne!(
            stream.read_buf(&mut answer).await.expect("an answer"),
            0,
            "a whole answer"
        );
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = str::from_utf8(&answer[..head])
            .expect("a head")
            .to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.split("content-length: ").nth(1).expect("a length");
        let length: usize = length
            .split("\r\n")
            .next()
            .unwrap_or(length)
            .parse()
            .expect("digits");
        if answer.len() >= head + 4 + length {
            return;
        }
    }
}

fn request(host: SocketAddr, field: &str) -> Vec<u8> {
    format!("GET {TARGET} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n").into_bytes()
}

async fn start_proxy(damoov: &Simulator) -> (Child, SocketAddr) {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let table = Table::new(Vec::new(), None);
    let hosts = table.routes().map(|route| route.host.clone());
    let hosts: std::collections::BTreeSet<_> = hosts.collect();
    let hosts: String = hosts
        .iter()
        .map(|host| format!("\"{host}\" = \"{}\"\n", damoov.base_url()))
        .collect();
    let config = folder.join("damoov-proxy.toml");
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\n[[instance]]\nname = \"main\"\nid = \"{INSTANCE_ID}\"\n\
         key = \"{INSTANCE_KEY}\"\n[store]\npath = \"{}\"\n[upstream.hosts]\n{hosts}",
        folder.join("store").display(),
    );
    std::fs::write(&config, text).expect("a file");
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("its mode");
    let log = std::fs::File::create(folder.join("log")).expect("a file");
    let child = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"))
        .arg("--config")
        .arg(&config)
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (child, address)
}

async fn stop(mut proxy: Child) {
    let _ = proxy.kill();
    let _ = tokio::task::spawn_blocking(move || proxy.wait()).await;
}
