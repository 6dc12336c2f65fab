//! Sockets that are open before the proxy runs, and stay so when it ends.

use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::passing;
use crate::harness::{Proxy, SCORES, damoov, eventually, heavy, proxy, rounds, said as run_to_end};
use crate::signals::load::ask;
use crate::wire::get;

/// Callers at once.
const CALLERS: usize = 8;

/// Starts it on a socket that stays open here.
async fn start_on(proxy: &mut Proxy, socket: &impl AsFd) {
    let socket = socket.as_fd().try_clone_to_owned().unwrap();
    let run = passing(&proxy.command("run"), socket);
    proxy.start_as(run).await;
}

#[tokio::test]
async fn an_inherited_socket_is_served_and_left_open() {
    let damoov = damoov().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut proxy = proxy(&damoov)
        .set("listen", &format!("\"{address}\""))
        .stopped_here();
    for _ in 0..2 {
        start_on(&mut proxy, &socket).await;
        assert_eq!(proxy.address(), address);
        assert_eq!(proxy.get(1, SCORES).await.status, 200);
        assert!(proxy.terminate().await.success());
        // Nobody accepts, and nobody is refused.
        TcpStream::connect(address).unwrap();
    }
}

#[tokio::test]
async fn an_inherited_unix_socket_keeps_its_file_and_its_mode() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let path = builder.folder().join("proxy.sock");
    let socket = UnixListener::bind(&path).unwrap();
    // Stricter than the listener's.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let before = fs::metadata(&path).unwrap();
    let listen = format!(
        r#"["127.0.0.1:0", {{ unix = "{}", mode = "0660" }}]"#,
        path.display()
    );
    let mut proxy = builder.set("listen", &listen).stopped_here();
    start_on(&mut proxy, &socket).await;
    let mut caller = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = get(SCORES, "Connection: close\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(proxy.terminate().await.success());
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
}

#[tokio::test]
async fn an_inherited_socket_that_more_users_can_connect_to_is_exit_code_64() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let path = builder.folder().join("aside.sock");
    let socket = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let listener = format!("{{ unix = \"{}\" }}", path.display());
    let proxy = builder.set("status.listen", &listener).stopped_here();
    let (code, said) = run_to_end(passing(&proxy.command("run"), socket)).await;
    assert_eq!(code, Some(64), "{said}");
    for expected in ["has the mode 0666", "SocketMode=0660", "file descriptor 3"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!proxy.store().exists(), "nothing was opened");
}

#[tokio::test]
async fn the_status_listener_inherits_its_socket_too() {
    let damoov = damoov().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut proxy = proxy(&damoov)
        .set("status.listen", &format!("\"{address}\""))
        .stopped_here();
    start_on(&mut proxy, &socket).await;
    assert_eq!(proxy.status_address(), address);
    assert_eq!(proxy.status("/readyz").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_served_of_what_is_passed_on_is_exit_code_64() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let store = builder.store();
    let proxy = builder.stopped(&store);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let unmatched = format!("the inherited socket {}", other.local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let unix = folder.path().join("other.sock");
    let of_unix = format!("the inherited socket {}", unix.display());
    let no_listener = "is no socket that listens for streams";
    let passed: [(OwnedFd, &str); 7] = [
        (other.into(), &unmatched),
        (UnixListener::bind(&unix).unwrap().into(), &of_unix),
        (File::open("/dev/zero").unwrap().into(), no_listener),
        (File::open(proxy.config()).unwrap().into(), no_listener),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), no_listener),
        (UnixDatagram::unbound().unwrap().into(), no_listener),
        (connected.into(), no_listener),
    ];
    for (passed, expected) in passed {
        let (code, said) = run_to_end(passing(&proxy.command("run"), passed)).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("file descriptor 3"), "{said}");
    }
    let count = proxy.command("run");
    let script = "export LISTEN_PID=$$ LISTEN_FDS=many; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(count.get_program())
        .args(count.get_args())
        .envs(
            count
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let (code, said) = run_to_end(shell).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("LISTEN_FDS"), "{said}");
    assert!(!store.exists(), "nothing was opened");
}

#[tokio::test]
async fn sockets_that_were_passed_to_another_process_are_left_alone() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .start()
        .await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert!(proxy.terminate().await.success());
}

/// systemd's own tool opens the socket, and starts the proxy for the first connection.
#[tokio::test]
async fn systemd_socket_activate_starts_it_for_the_first_connection() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let address = proxy.address();
    proxy.terminate().await;
    let run = proxy.command("run");
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &address.to_string()]);
    for (name, value) in run.get_envs() {
        let value = value.unwrap_or_default();
        activate.arg(format!("-E{}={}", name.display(), value.display()));
    }
    activate.arg(run.get_program()).args(run.get_args());
    proxy.begin_as(activate);
    eventually("a caller can connect", async || {
        TcpStream::connect(address).is_ok()
    })
    .await;
    proxy.listens().await;
    assert_eq!(proxy.address(), address);
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert!(proxy.terminate().await.success());
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicUsize,
    enough: AtomicBool,
}

/// A request on a connection of its own, again and again.
async fn call(address: SocketAddr, seen: Arc<Seen>) {
    while !seen.enough.load(Ordering::Relaxed) {
        let counted = match tokio::net::TcpStream::connect(address).await {
            Err(_) => &seen.refused,
            Ok(mut stream) => match ask(&mut stream, &get(SCORES, "Connection: close\r\n")).await {
                Some(_) => &seen.answered,
                None => &seen.failed,
            },
        };
        counted.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn restarts_on_an_inherited_socket_under_load_refuse_nobody() {
    let _turn = heavy().await;
    let damoov = damoov().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut proxy = proxy(&damoov)
        .set("listen", &format!("\"{address}\""))
        .stopped_here();
    let seen = Arc::new(Seen::default());
    let mut callers = JoinSet::new();
    start_on(&mut proxy, &socket).await;
    for _ in 0..CALLERS {
        callers.spawn(call(address, seen.clone()));
    }
    for round in 0..rounds(3, 50) {
        let before = seen.answered.load(Ordering::Relaxed);
        eventually("there is load", async || {
            seen.answered.load(Ordering::Relaxed) > before + 4 * CALLERS
        })
        .await;
        let status = proxy.terminate().await;
        assert!(status.success(), "round {round}: {status}\n{}", proxy.log());
        start_on(&mut proxy, &socket).await;
    }
    seen.enough.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let (refused, failed) = (&seen.refused, &seen.failed);
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    assert_eq!(failed.load(Ordering::Relaxed), 0);
}
