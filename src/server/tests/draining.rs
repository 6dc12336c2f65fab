//! How a server ends, and what becomes of connections that were switched to another protocol.

use super::*;

#[tokio::test]
async fn draining_ends_answers_closes_idle_connections_accepts_nobody() {
    let running = start(settings(tcp()));
    let (mut idle, mut busy) = (running.connect().await, running.connect().await);
    send(&mut idle, "/").await;
    receive(&mut idle).await;
    send(&mut busy, "/wait").await;
    running.doors.entered.notified().await;
    running.stage.send_replace(Stage::Draining);
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(running.bound[0]).await.is_err());
    assert!(!running.serving.is_finished());
    running.doors.open.notify_one();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    running.serving.await.unwrap().unwrap();
}

async fn switch(running: &Running, behind: &[u8]) -> TcpStream {
    let mut stream = running.connect().await;
    let request =
        b"GET /switch HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(&[request, behind].concat()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

#[tokio::test]
async fn after_a_101_the_session_has_the_connection_and_what_was_read() {
    let running = start(settings(tcp()));
    let mut stream = switch(&running, b"GET / early").await;
    stream.write_all(b" late").await.unwrap();
    let mut heard = [0; 16];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"GET / early late");
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    running.end(Stage::Stopping).await;
}

#[tokio::test]
async fn a_session_keeps_its_place_and_is_told_to_end_when_the_server_drains() {
    let running = start(Settings {
        max_connections: 1,
        ..settings(tcp())
    });
    let mut stream = switch(&running, b"").await;
    let mut waiting = running.connect().await;
    send(&mut waiting, "/").await;
    let served = tokio::time::timeout(Duration::from_millis(50), receive(&mut waiting));
    assert!(served.await.is_err(), "there is no room for it");
    running.stage.send_replace(Stage::Draining);
    assert_eq!(rest(&mut stream).await, "goodbye");
    running.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn draining_ends_in_time_and_at_once_when_told_to_stop() {
    for (drain_timeout, then) in [
        (Duration::from_millis(50), Stage::Draining),
        (Duration::from_secs(60), Stage::Stopping),
    ] {
        let times = Times {
            drain_timeout,
            ..times()
        };
        let running = start(Settings {
            times,
            ..settings(tcp())
        });
        let mut busy = running.connect().await;
        send(&mut busy, "/wait").await;
        running.doors.entered.notified().await;
        running.stage.send_replace(Stage::Draining);
        running.end(then).await;
        assert_eq!(rest(&mut busy).await, "");
    }
}

#[tokio::test]
async fn all_workers_share_one_drain_timeout() {
    let drain_timeout = Duration::from_secs(1);
    let running = start(Settings {
        times: Times {
            drain_timeout,
            ..times()
        },
        threads: 3,
        ..settings(tcp())
    });
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut stream = running.connect().await;
        send(&mut stream, "/wait").await;
        running.doors.entered.notified().await;
        busy.push(stream);
    }
    let started = tokio::time::Instant::now();
    running.end(Stage::Draining).await;
    assert!(started.elapsed() < 2 * drain_timeout);
}
