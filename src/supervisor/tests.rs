//! With real sockets in the place of systemd's.

use std::os::linux::net::SocketAddrExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// In the place of systemd.
struct Listening {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Listening {
    fn new() -> Listening {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Listening {
            socket,
            path,
            _folder: folder,
        }
    }

    fn supervisor(&self) -> Supervisor {
        Supervisor::at(self.path.as_os_str(), None)
    }

    /// The datagrams that have come.
    fn heard(&self) -> Vec<String> {
        let mut datagrams = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            datagrams.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        datagrams
    }
}

#[tokio::test]
async fn each_message_is_one_datagram_and_its_status_one_line() {
    let systemd = Listening::new();
    let supervisor = systemd.supervisor();
    supervisor.status("starting").await;
    supervisor.status("starting").await;
    supervisor.ready("serving on\nA, B").await;
    supervisor.alive().await;
    supervisor
        .stopping("draining", Duration::from_secs(15))
        .await;
    supervisor.stopping("still", Duration::from_secs(15)).await;
    assert_eq!(
        systemd.heard(),
        [
            "STATUS=starting\n",
            "READY=1\nSTATUS=serving on A, B\n",
            "WATCHDOG=1\n",
            "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=15000000\n",
            "STATUS=still\nEXTEND_TIMEOUT_USEC=15000000\n",
        ]
    );
}

#[tokio::test]
async fn a_reload_is_told_with_its_time_in_one_datagram_and_when_it_is_over() {
    let systemd = Listening::new();
    let supervisor = systemd.supervisor();
    supervisor.ready("serving").await;
    systemd.heard();
    let began = monotonic();
    let told = supervisor.reloading(async { systemd.heard() }).await;
    let [told] = &told[..] else {
        panic!("{told:?}");
    };
    let lines: Vec<_> = told.lines().collect();
    let [reloading, at, status] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(reloading, "RELOADING=1");
    let at: u128 = at.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((began..=monotonic()).contains(&at), "{at}");
    assert!(status.starts_with("STATUS="), "{status}");
    assert_eq!(systemd.heard(), ["READY=1\nSTATUS=serving\n"]);
}

/// In microseconds.
fn monotonic() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    now.as_micros()
}

#[tokio::test]
async fn a_reload_that_ends_after_the_end_has_begun_does_not_say_ready() {
    let systemd = Listening::new();
    let supervisor = systemd.supervisor();
    let stopping = supervisor.stopping("draining", Duration::from_secs(1));
    supervisor.reloading(stopping).await;
    supervisor.reloading(async {}).await;
    let heard = systemd.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[1].starts_with("STOPPING=1\n"), "{heard:?}");
}

#[tokio::test]
async fn a_name_after_an_at_is_an_abstract_socket() {
    let name = format!("damoov-proxy-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let supervisor = Supervisor::at(format!("@{name}").as_ref(), None);
    supervisor.alive().await;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
}

#[tokio::test]
async fn a_supervisor_that_is_not_there_or_does_not_read_holds_nobody_up() {
    let systemd = Listening::new();
    let deaf = systemd.supervisor();
    // More than any queue takes.
    let began = Instant::now();
    let talking = async {
        loop {
            deaf.alive().await;
        }
    };
    let until_full = tokio::time::timeout(PATIENCE / 2, talking).await;
    assert!(until_full.is_err(), "the queue is full, and it waits");
    deaf.alive().await;
    assert!(began.elapsed() >= PATIENCE);
    assert!(deaf.has_warned());
    for nobody in ["/nowhere/notify", "relative", ""] {
        let supervisor = Supervisor::at(nobody.as_ref(), None);
        supervisor.ready("serving").await;
        assert!(supervisor.has_warned(), "{nobody:?}");
    }
}

impl Supervisor {
    fn has_warned(&self) -> bool {
        let link = self.0.as_ref().unwrap();
        link.has_warned.load(Ordering::Relaxed)
    }
}
