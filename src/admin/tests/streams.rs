//! Event streams: what they tell, how many there may be, and how they end.

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;

const ASK: &[u8] = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A connection that asked for events. `pipe`: how many bytes it holds that nobody has read.
async fn stream(scene: &Scene, pipe: usize) -> (DuplexStream, JoinHandle<()>) {
    let (mut near, far) = tokio::io::duplex(pipe);
    let asks = Asks {
        serves: Serves::Everything,
        answers: scene.answers.clone(),
        connection: Connection::default(),
    };
    let serving = tokio::spawn(serve_connection(far, asks));
    near.write_all(ASK).await.unwrap();
    (near, serving)
}

/// What comes, up to this.
async fn read_to(stream: &mut DuplexStream, end: &str) -> String {
    let mut so_far = Vec::new();
    while !so_far.ends_with(end.as_bytes()) {
        so_far.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(so_far).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_the_newest_events_then_states_and_its_end() {
    let scene = scene(well());
    let recent = &scene.recent;
    recent.keep_warning("before");
    let (mut stream, serving) = stream(&scene, 1 << 20).await;
    let answers = scene.answers.clone();
    let watching = tokio::spawn(async move { answers.keep_watch().await });
    let head = read_to(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let first = read_to(&mut stream, "\n\n").await;
    assert!(first.contains("event: event\ndata: {"), "{first}");
    assert!(first.contains("\"message\":\"before\""), "{first}");
    let state = read_to(&mut stream, "\n\n").await;
    assert!(state.contains("event: state\ndata: {"), "{state}");
    assert!(state.contains("\"steps\":1,"), "{state}");
    recent.keep_warning("after");
    let text = read_to(&mut stream, "\"after\",\"fields\":{}}\n\n").await;
    assert!(text.contains("event: event"), "{text}");
    scene.stage.send_replace(Stage::Draining);
    let end = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(end.contains("event: end\ndata: {}\n\n"), "{end}");
    assert_eq!(scene.answers.streams_open(), 0);
    watching.abort();
    serving.abort();
}

#[tokio::test]
async fn the_33rd_stream_is_503_until_one_of_the_others_ends() {
    let scene = scene(well());
    let mut open = Vec::new();
    for _ in 0..stream::MOST {
        let (mut reader, serving) = stream(&scene, 1 << 16).await;
        let head = read_to(&mut reader, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        open.push((reader, serving));
    }
    let (mut refused, _serving) = stream(&scene, 1 << 16).await;
    let head = read_to(&mut refused, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("retry-after: 5\r\n"), "{head}");
    let (reader, serving) = open.pop().unwrap();
    drop(reader);
    serving.await.unwrap();
    let (mut next, _serving) = stream(&scene, 1 << 16).await;
    let head = read_to(&mut next, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_reading_is_dropped() {
    let scene = scene(well());
    let answers = scene.answers.clone();
    let watching = tokio::spawn(async move { answers.keep_watch().await });
    let (mut reader, serving) = stream(&scene, 4096).await;
    read_to(&mut reader, "\r\n\r\n").await;
    assert_eq!(scene.answers.streams_open(), 1);
    let within = Duration::from_secs(10 * 60);
    tokio::time::timeout(within, serving)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(scene.answers.streams_open(), 0);
    watching.abort();
}
