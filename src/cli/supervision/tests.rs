//! A real server whose worker hangs, and a real socket in the place of systemd's.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::*;
use crate::peer::Peer;
use crate::server::{self, Answered, Handler, Inherited, Listener, Session};

/// How often the supervisor wants a sign of life.
const PATIENCE: Duration = Duration::from_millis(60);

/// Holds its worker's thread until it is let go.
struct Hanging(Arc<AtomicBool>);

impl Handler for Hanging {
    type Content = Full<Bytes>;
    type Session = Never;

    async fn handle(self: Rc<Self>, _: Peer, _: Request<Incoming>) -> Answered<Self> {
        while self.0.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        (Response::default(), None)
    }

    async fn finish(&self) {}
}

/// No request switches.
struct Never;

impl Session for Never {
    async fn run(
        self,
        _: impl AsyncRead + AsyncWrite + Unpin,
        _: Bytes,
        _: impl Future<Output = ()>,
    ) {
    }
}

fn settings() -> server::Settings {
    server::Settings {
        listeners: vec![Listener::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
        max_connections: 16,
        threads: 2,
        times: server::Times {
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
        },
    }
}

/// The signs of life that have come until now.
fn signs(systemd: &UnixDatagram) -> usize {
    let mut buffer = [0; 4096];
    let mut signs = 0;
    while let Ok(length) = systemd.recv(&mut buffer) {
        signs += usize::from(&buffer[..length] == b"WATCHDOG=1\n");
    }
    signs
}

/// Returns once as many have come.
async fn come(systemd: &UnixDatagram, wanted: usize) {
    let coming = async {
        let mut come = 0;
        while come < wanted {
            sleep(PATIENCE / 10).await;
            come += signs(systemd);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), coming)
        .await
        .expect("signs of life");
}

#[tokio::test]
async fn one_worker_of_two_that_hangs_stops_the_watchdog() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_nonblocking(true).unwrap();

    let bound = server::bind(settings(), &mut Inherited::default()).unwrap();
    let address = bound.local_addrs()[0];
    let (stage, watched) = watch::channel(Stage::Serving);
    let supervision = Supervision {
        supervisor: Supervisor::at(path.as_os_str(), Some(PATIENCE)),
        pulse: bound.pulse(),
        stage: watched.clone(),
        status: "serving".to_owned(),
    };
    let hangs = Arc::new(AtomicBool::new(true));
    let held = hangs.clone();
    let (_times, times) = watch::channel(settings().times);
    let handler = move || Hanging(held.clone());
    let serving = tokio::spawn(server::serve(bound, handler, times, watched));
    let steps = async {
        come(&systemd, 3).await;

        let mut caller = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        caller.write_all(request).await.unwrap();
        let silence = async {
            // What was on its way before the worker began to hang may come first.
            loop {
                signs(&systemd);
                sleep(8 * PATIENCE).await;
                if signs(&systemd) == 0 {
                    return;
                }
            }
        };
        let silent = tokio::time::timeout(Duration::from_secs(30), silence).await;
        silent.expect("no sign of life");

        hangs.store(false, Ordering::SeqCst);
        come(&systemd, 3).await;
        stage.send(Stage::Draining).unwrap();
        drop(caller);
        serving.await.unwrap().unwrap();
        // While renewals end there is no worker that could hang.
        come(&systemd, 1).await;
    };
    tokio::select! {
        never = supervision.tell(async || Vec::new()) => match never {},
        () = steps => {}
    }
}
