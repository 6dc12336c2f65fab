//! Whole exchanges, the API's side written byte by byte.

use std::cell::Cell;
use std::task::Waker;

use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;

/// Room for what one side writes before the other reads.
const ROOM: usize = 256 * 1024;

fn connected(room: usize) -> (Connection, DuplexStream) {
    let (near, far) = duplex(room);
    (Connection::new(near.into()), far)
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
    P: 'static,
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

/// Content that a test sends piece by piece.
fn by_hand() -> (
    mpsc::UnboundedSender<io::Result<Bytes>>,
    impl Body<Data = Bytes, Error = io::Error> + Unpin,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let pieces = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    });
    (sender, StreamBody::new(pieces))
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
    connection.is_quiet(&mut Context::from_waker(Waker::noop()))
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
            "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "",
            true,
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
async fn an_idle_connection_is_not_taken_for_quiet_by_a_task_that_has_read_its_share() {
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
        Poll::Ready(connection.is_quiet(cx))
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
        assert_eq!(connection.unwrap().read.capacity(), 0, "{length}");
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

/// Says when it is dropped.
struct Place(Rc<Cell<bool>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[tokio::test(flavor = "local")]
async fn an_upload_goes_on_after_an_early_answer_that_was_read_whole() {
    let (connection, mut far) = connected(ROOM);
    let (pieces, content) = by_hand();
    let dropped = Rc::new(Cell::new(false));
    let place = Place(dropped.clone());
    far.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")
        .await
        .unwrap();
    pieces.send(Ok("one".into())).unwrap();
    let answer = exchange(connection, Method::POST, content, place)
        .await
        .unwrap();
    let (got, connection) = whole(answer).await.unwrap();
    assert_eq!(got, b"ok");
    assert!(connection.is_none(), "not used again");
    hear(&mut far, "3\r\none\r\n").await;
    pieces.send(Ok("two".into())).unwrap();
    hear(&mut far, "3\r\ntwo\r\n").await;
    assert!(!dropped.get(), "its place is taken as long as it goes on");
    drop(pieces);
    hear(&mut far, "0\r\n\r\n").await;
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "closed in the end");
    assert!(dropped.get());
}

#[tokio::test(flavor = "local")]
async fn an_early_answer_that_nobody_reads_ends_the_upload() {
    let (connection, mut far) = connected(ROOM);
    let (pieces, content) = by_hand();
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        .await
        .unwrap();
    let answer = exchange(connection, Method::POST, content, ())
        .await
        .unwrap();
    hear(&mut far, "\r\n\r\n").await;
    drop(answer);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    assert!(pieces.is_closed());
}

#[tokio::test(flavor = "local")]
async fn an_upload_that_fails_after_an_early_answer_is_not_taken_for_whole() {
    let (connection, mut far) = connected(ROOM);
    let (pieces, content) = by_hand();
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        .await
        .unwrap();
    pieces.send(Ok("one".into())).unwrap();
    let answer = exchange(connection, Method::POST, content, ())
        .await
        .unwrap();
    hear(&mut far, "3\r\none\r\n").await;
    pieces
        .send(Err(io::ErrorKind::UnexpectedEof.into()))
        .unwrap();
    assert_eq!(
        far.read(&mut [0]).await.unwrap(),
        0,
        "no last chunk is made up"
    );
    // The answer goes on.
    far.write_all(b"k").await.unwrap();
    assert_eq!(whole(answer).await.unwrap().0, b"ok");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_early_answer_that_breaks_ends_the_upload() {
    let (connection, mut far) = connected(ROOM);
    let (pieces, content) = by_hand();
    far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx")
        .await
        .unwrap();
    let answer = exchange(connection, Method::POST, content, ())
        .await
        .unwrap();
    hear(&mut far, "\r\n\r\n").await;
    let mut content = answer.into_body();
    let broken = poll_fn(|cx| content.poll_piece(cx)).await;
    assert!(matches!(broken, Some(Err(Broken::Chunks))));
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, far.read(&mut byte)).await;
    assert_eq!(read.unwrap().unwrap(), 0);
    assert!(pieces.is_closed());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_upload_after_a_whole_answer_ends_once_the_api_takes_nothing_more() {
    let (connection, mut far) = connected(64);
    let (pieces, content) = by_hand();
    let dropped = Rc::new(Cell::new(false));
    let place = Place(dropped.clone());
    far.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")
        .await
        .unwrap();
    let answer = exchange(connection, Method::POST, content, place);
    drop(whole(answer.await.unwrap()).await.unwrap());
    hear(&mut far, "\r\n\r\n").await;
    for _ in 0..5 {
        tokio::time::sleep(PATIENCE * 2 / 3).await;
        pieces.send(Ok("slow".into())).unwrap();
        hear(&mut far, "4\r\nslow\r\n").await;
    }
    pieces.send(Ok(vec![0; 1024].into())).unwrap();
    tokio::time::sleep(PATIENCE * 2 / 3).await;
    assert!(!dropped.get());
    tokio::time::sleep(PATIENCE * 2).await;
    assert!(dropped.get() && pieces.is_closed());
}

/// What both clients make of an answer: its status, its fields and its content.
type Told = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

fn told(parts: &http::response::Parts, content: Vec<u8>) -> Told {
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    (parts.status.as_u16(), fields.collect(), content)
}

async fn told_by_hyper(far_writes: Vec<u8>) -> Option<Told> {
    let (near, mut far) = duplex(ROOM);
    tokio::task::spawn_local(async move {
        // hyper takes what comes before the request for nobody's.
        hear(&mut far, "\r\n\r\n").await;
        // It may have heard enough before the end.
        let _ = far.write_all(&far_writes).await;
    });
    let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
    let request = http::Request::get("/")
        .header("host", "a")
        .body(Full::<Bytes>::default());
    let asking = async {
        let (parts, content) = sender
            .send_request(request.unwrap())
            .await
            .ok()?
            .into_parts();
        let content = content.collect().await.ok()?.to_bytes().to_vec();
        Some(told(&parts, content))
    };
    let driving = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        told = asking => told,
        () = driving => None,
    }
}

async fn told_by_us(far_writes: Vec<u8>, piece: usize) -> Option<Told> {
    let (connection, mut far) = connected(ROOM);
    let writing = async move {
        for piece in far_writes.chunks(piece) {
            // What was heard may be enough before the end.
            let _ = far.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        far.shutdown().await.unwrap();
        std::future::pending().await
    };
    let asking = async {
        let (parts, content) = get(connection).await.ok()?.into_parts();
        let (content, _) = whole(Response::new(content)).await.ok()?;
        Some(told(&parts, content))
    };
    tokio::select! {
        told = asking => told,
        () = writing => None,
    }
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("HTTP/1.1 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.0 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.1 204 No Content\r\n".to_owned()),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n".to_owned()),
        1 => "HTTP/[0-9].[0-9] [0-9]{2,4} [ -~]{0,5}\r?\n",
    ];
    let field = prop_oneof![
        Just("Content-Length: 5\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        "(?i)content-length: ?[0-9+, ]{0,3}\r\n",
        "(?i)transfer-encoding: ?(chunked|gzip|identity|, ){0,3}\r\n",
        "(?i)connection: (close|keep-alive)\r\n",
        "[A-Za-z-]{1,8}:[ -~\t\u{e4}]{0,9}\r?\n",
        "[ -~\r\n]{0,8}",
    ];
    let content = prop_oneof![
        Just("hello".to_owned()),
        Just("5\r\nhello\r\n0\r\n\r\n".to_owned()),
        "(5;?a?\r\nhello\r\n){0,2}0\r\n(A: b\r\n)?\r\n",
        "[0-9a-fx;\r\n ]{0,20}",
    ];
    (line, proptest::collection::vec(field, 0..4), content).prop_map(|(line, fields, content)| {
        format!("{line}{}\r\n{content}", fields.concat()).into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the API says: no panic, and what is taken for an answer is the one that hyper
    /// reads, too. It may take more for answers than this does.
    #[test]
    fn an_answer_is_the_one_that_hyper_reads_or_none(answer in answers(), piece in 1..80_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let ours = told_by_us(answer.clone(), piece).await;
            if ours.is_some() {
                let theirs = told_by_hyper(answer).await;
                prop_assert_eq!(ours, theirs);
            }
            Ok(())
        })?;
    }
}
