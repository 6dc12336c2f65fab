//! To how many connections at a time something is answered, and who gives way to whom.

use super::*;

/// This many connections on which `said` was said, each read until `heard` is heard.
async fn connections(address: SocketAddr, count: usize, said: &str, heard: &str) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // So that an answer that is not read is noticed soon.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut so_far = String::new();
        while !so_far.contains(heard) {
            so_far.push(char::from(stream.read_u8().await.unwrap()));
        }
        all.push(stream);
    }
    all
}

/// Whether the other side has closed it.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let moment = Duration::from_millis(20);
    let read = tokio::time::timeout(moment, stream.read(&mut [0])).await;
    read.is_ok_and(|read| read.unwrap_or(0) == 0)
}

const PROBE: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n";
const ASKED: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_that_asks_for_nothing_gives_way_to_a_probe() {
    for (said, heard) in [("", ""), ("GET /livez HT", ""), (ASKED, "degraded\":[]}")] {
        let (address, _stage) = listening().await;
        let mut idle = connections(address, 2 * connections::MOST, said, heard).await;
        let answer = exchange(address, PROBE).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // The oldest ones were closed, and no more than had to be.
        assert!(is_closed(&mut idle[0]).await);
        assert!(!is_closed(idle.last_mut().unwrap()).await);
    }
}

#[tokio::test]
async fn nobody_gives_way_while_there_is_room_and_the_silent_ones_do_first() {
    let (address, _stage) = listening().await;
    let count = connections::MOST - 1 - connections::NEWEST;
    let mut used = connections(address, count, ASKED, "degraded\":[]}").await;
    let mut silent = connections(address, 1, "", "").await;
    used.extend(connections(address, connections::NEWEST, ASKED, "degraded\":[]}").await);
    assert!(!is_closed(&mut silent[0]).await);
    exchange(address, PROBE).await;
    assert!(is_closed(&mut silent[0]).await);
    for stream in &mut used {
        stream.write_all(ASKED.as_bytes()).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
    }
}

#[tokio::test]
async fn a_probe_among_many_that_come_has_the_time_to_ask() {
    let (address, _stage) = listening().await;
    let answered = "degraded\":[]}";
    let _idle = connections(address, connections::MOST, ASKED, answered).await;
    let mut probe = TcpStream::connect(address).await.unwrap();
    let _others = connections(address, connections::NEWEST - 1, ASKED, answered).await;
    probe.write_all(ASKED.as_bytes()).await.unwrap();
    assert_eq!(probe.read_u8().await.unwrap(), b'H');
}

#[tokio::test]
async fn readers_that_read_nothing_give_way_too() {
    let (address, _stage) = listening().await;
    // More answers than the buffers of a connection take.
    let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40);
    let _unread = connections(address, connections::MOST, &asked, "").await;
    let answer = exchange(address, PROBE).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_up_no_other_probe() {
    let scene = scene(Some(Still {
        hangs: true,
        ..Still::default()
    }));
    let address = listen(&scene, Serves::Health);
    let asked = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    let _waiting = connections(address, 2 * connections::MOST, asked, "").await;
    let answer = exchange(address, PROBE).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
