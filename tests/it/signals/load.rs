//! SIGTERM under load: callers that are told to leave lose nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{SCORES, damoov, eventually, heavy, proxy, rounds};
use crate::wire::get;

/// Callers at once.
const CALLERS: usize = 16;

/// What the callers of one round did.
#[derive(Default)]
struct Score {
    answered: AtomicUsize,
    failed: AtomicUsize,
    leaving: AtomicBool,
}

/// Asks again and again, as a pool of connections does: a connection whose answer says so is used no
/// more. A caller that leaves goes elsewhere then, once the end has begun; one that stays connects
/// anew until nobody accepts any more.
async fn call(address: std::net::SocketAddr, score: Arc<Score>, leaves: bool) {
    while let Ok(mut stream) = TcpStream::connect(address).await {
        loop {
            match ask(&mut stream, &get(SCORES, "")).await {
                Some(closes) => {
                    score.answered.fetch_add(1, Ordering::Relaxed);
                    if closes {
                        break;
                    }
                }
                None => {
                    score.failed.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
        if leaves && score.leaving.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// One request; whether its answer closes the connection, and `None` where there is no whole 200.
pub async fn ask(stream: &mut TcpStream, request: &str) -> Option<bool> {
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream
            .read(&mut piece)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        said.extend(&piece[..read]);
        let Some(end) = said.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(said[..end].to_vec()).ok()?.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
        if said.len() >= end + 4 + length {
            let closes = head.contains("\r\nconnection: close");
            return head.starts_with("http/1.1 200 ").then_some(closes);
        }
    }
}

#[tokio::test]
async fn a_sigterm_under_load_fails_no_request() {
    let _turn = heavy().await;
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("drain_delay", "300ms").stopped_here();
    for round in 0..rounds(3, 200) {
        proxy.start().await;
        let score = Arc::new(Score::default());
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let leaves = number % 2 == 0;
            callers.spawn(call(proxy.address(), score.clone(), leaves));
        }
        eventually("there is load", async || {
            score.answered.load(Ordering::Relaxed) > 4 * CALLERS
        })
        .await;
        score.leaving.store(true, Ordering::Relaxed);
        proxy.signal(Signal::TERM);
        let status = proxy.ended().await;
        callers.join_all().await;
        assert_eq!(status.code(), Some(0), "round {round}:\n{}", proxy.log());
        let failed = score.failed.load(Ordering::Relaxed);
        assert_eq!(failed, 0, "round {round}:\n{}", proxy.log());
    }
}
