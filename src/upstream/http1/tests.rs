//! Whole exchanges, the API's side written byte by byte.

mod against_hyper;
mod early_answers;

use std::pin::pin;
use std::task::Waker;

use http::HeaderMap;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// Room for what one side writes before the other reads.
const ROOM: usize = 256 * 1024;

fn connected(room: usize) -> (Connection, DuplexStream) {
    let (near, far) = duplex(room);
    (Connection::new(near.into(), Rc::default()), far)
}

impl Held for () {
    fn rest(&self) -> impl FnMut(u64, &mut Context<'_>) -> Poll<()> + 'static {
        |_, _| Poll::Pending
    }
}

fn head(method: Method) -> Head {
    Head {
        method,
        target: "/trips".parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

async fn exchange<B, P>(
    connection: Connection,
    method: Method,
    content: B,
    place: P,
) -> Result<Response<Content<P>>, Failed>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    P: Held,
{
    let host = HeaderValue::from_static("api.example");
    let head = head(method);
    connection.exchange(&head, &host, content, place).await
}

async fn get(connection: Connection) -> Result<Response<Content<()>>, Failed> {
    exchange(connection, Method::GET, Full::default(), ()).await
}

/// All of the content, and the connection where it can be used again.
async fn whole<P>(answer: Response<Content<P>>) -> Result<(Vec<u8>, Option<Connection>), Broken> {
    let mut content = answer.into_body();
    let mut all = Vec::new();
    while let Some(piece) = poll_fn(|cx| content.poll_piece(cx)).await {
        all.extend_from_slice(&piece?);
    }
    assert!(content.is_over());
    Ok((
        all,
        content.take_connection().map(|(connection, _)| connection),
    ))
}

/// Reads until what was read ends so.
async fn hear(far: &mut DuplexStream, end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        heard.push(far.read_u8().await.unwrap());
    }
    String::from_utf8(heard).unwrap()
}

fn is_quiet(connection: &mut Connection) -> bool {
    connection.is_quiet() && connection.stays_quiet(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_used_again_only_after_an_answer_that_leaves_no_doubt() {
    for (method, answer, content, again) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            "",
            true,
        ),
        // The content that these announce may come yet, or never.
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
            "",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 9\r\n\r\n",
            "",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "",
            false,
        ),
        (
            "HEAD",
            "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
            "",
            false,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            "ok",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noktoo much",
            "ok",
            false,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nok", "", false),
        (
            "GET",
            "HTTP/1.1 200 OK\r\n\r\nuntil the end",
            "until the end",
            false,
        ),
    ] {
        let (connection, mut far) = connected(ROOM);
        far.write_all(answer.as_bytes()).await.unwrap();
        if !answer.contains("Length") && !answer.contains("chunked") {
            far.shutdown().await.unwrap();
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let got = exchange(connection, method, Full::<Bytes>::default(), ()).await;
        let (got, connection) = whole(got.unwrap()).await.unwrap();
        assert_eq!(got, content.as_bytes(), "{answer:?}");
        assert_eq!(connection.is_some(), again, "{answer:?}");
        assert!(connection.is_none_or(|mut connection| is_quiet(&mut connection)));
    }
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_that_says_anything_is_not_quiet() {
    for word in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let (connection, mut far) = connected(ROOM);
        far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        let (_, connection) = whole(get(connection).await.unwrap()).await.unwrap();
        let mut connection = connection.unwrap();
        assert!(is_quiet(&mut connection) && is_quiet(&mut connection));
        far.write_all(word.as_bytes()).await.unwrap();
        if word.is_empty() {
            far.shutdown().await.unwrap();
        }
        assert!(!is_quiet(&mut connection), "{word:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_task_that_has_read_its_share_takes_no_idle_connection_for_quiet() {
    let (connection, mut far) = connected(ROOM);
    far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    let (_, connection) = whole(get(connection).await.unwrap()).await.unwrap();
    let mut connection = connection.unwrap();
    far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await
        .unwrap();
    let quiet = poll_fn(|cx| {
        while tokio::task::coop::has_budget_remaining() {
            let _ = pin!(tokio::task::coop::consume_budget()).poll(cx);
        }
        Poll::Ready(connection.is_quiet() || connection.stays_quiet(cx))
    });
    assert!(!quiet.await);
}

#[tokio::test(flavor = "local")]
async fn a_connection_keeps_no_buffer_of_a_long_answer() {
    for length in (100_000..200_000).step_by(7919) {
        let (connection, mut far) = connected(ROOM);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        far.write_all(answer.as_bytes()).await.unwrap();
        far.write_all(&vec![0; length]).await.unwrap();
        let (got, connection) = whole(get(connection).await.unwrap()).await.unwrap();
        assert_eq!(got.len(), length);
        let spare = connection.unwrap().0.buffers.to_read();
        assert_eq!(spare.capacity(), 0, "{length}");
    }
}

#[tokio::test(flavor = "local")]
async fn content_that_ends_early_is_an_error_after_everything_that_came() {
    for (answer, came) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "abc"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "abc",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx",
            "abc",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
            "abc",
        ),
    ] {
        let (connection, mut far) = connected(ROOM);
        far.write_all(answer.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let mut content = get(connection).await.unwrap().into_body();
        let first = poll_fn(|cx| content.poll_piece(cx)).await;
        assert_eq!(first.unwrap().unwrap(), came, "{answer:?}");
        // Not in the same breath: hyper has to write what came before it hears of the error.
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(content.poll_piece(&mut nobody).is_pending());
        assert!(matches!(
            content.poll_piece(&mut nobody),
            Poll::Ready(Some(Err(_)))
        ));
        assert!(!content.is_over() && content.take_connection().is_none());
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_ends_tells_whether_anything_was_heard() {
    for (said, heard) in [
        ("", false),
        ("H", true),
        ("HTTP/1.1 100 Continue\r\n\r\n", true),
    ] {
        let (connection, mut far) = connected(ROOM);
        far.write_all(said.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let failed = get(connection).await.unwrap_err();
        assert!(matches!(failed.error, Error::Broken(Broken::Cut)));
        assert_eq!(failed.heard, heard);
    }
}
