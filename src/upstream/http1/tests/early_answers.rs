//! Answers that begin before the request was sent whole.

use std::cell::Cell;

use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::*;
use crate::upstream::http1::rest::REST_TIMEOUT;

/// What a test sends of a request, piece by piece.
type Pieces = mpsc::UnboundedSender<io::Result<Bytes>>;

fn by_hand() -> (Pieces, impl Body<Data = Bytes, Error = io::Error> + Unpin) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let pieces = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    });
    (sender, StreamBody::new(pieces))
}

/// An answer to a request of which these pieces alone are there, and more may come.
async fn answered<P: Held>(
    said: &str,
    pieces: &'static [&'static str],
    room: usize,
    place: P,
) -> (Response<Content<P>>, Pieces, DuplexStream) {
    let (connection, mut far) = connected(room);
    let (sender, content) = by_hand();
    far.write_all(said.as_bytes()).await.unwrap();
    for piece in pieces {
        sender
            .send(Ok(Bytes::from_static(piece.as_bytes())))
            .unwrap();
    }
    let answer = exchange(connection, Method::POST, content, place).await;
    (answer.unwrap(), sender, far)
}

/// Says when it is dropped.
struct Place(Rc<Cell<bool>>);

impl Held for Place {
    fn rest(&self) -> impl FnMut(u64, &mut Context<'_>) -> Poll<()> + 'static {
        ().rest()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[tokio::test(flavor = "local")]
async fn an_upload_goes_on_after_an_early_answer_that_was_read_whole() {
    let dropped = Rc::new(Cell::new(false));
    let place = Place(dropped.clone());
    let said = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
    let (answer, pieces, mut far) = answered(said, &["one"], ROOM, place).await;
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
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    let (answer, pieces, mut far) = answered(said, &[], ROOM, ()).await;
    hear(&mut far, "\r\n\r\n").await;
    drop(answer);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    assert!(pieces.is_closed());
}

#[tokio::test(flavor = "local")]
async fn an_upload_that_fails_after_an_early_answer_is_not_taken_for_whole() {
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no";
    let (answer, pieces, mut far) = answered(said, &["one"], ROOM, ()).await;
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
    let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx";
    let (answer, pieces, mut far) = answered(said, &[], ROOM, ()).await;
    hear(&mut far, "\r\n\r\n").await;
    let mut content = answer.into_body();
    let broken = poll_fn(|cx| content.poll_piece(cx)).await;
    assert!(matches!(broken, Some(Err(Broken::Chunks))));
    let mut byte = [0];
    let read = tokio::time::timeout(REST_TIMEOUT, far.read(&mut byte)).await;
    assert_eq!(read.unwrap().unwrap(), 0);
    assert!(pieces.is_closed());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_upload_after_a_whole_answer_ends_once_the_api_takes_nothing_more() {
    let dropped = Rc::new(Cell::new(false));
    let place = Place(dropped.clone());
    let said = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
    let (answer, pieces, mut far) = answered(said, &[], 64, place).await;
    drop(whole(answer).await.unwrap());
    hear(&mut far, "\r\n\r\n").await;
    for _ in 0..5 {
        tokio::time::sleep(REST_TIMEOUT * 2 / 3).await;
        pieces.send(Ok("slow".into())).unwrap();
        hear(&mut far, "4\r\nslow\r\n").await;
    }
    pieces.send(Ok(vec![0; 1024].into())).unwrap();
    tokio::time::sleep(REST_TIMEOUT * 2 / 3).await;
    assert!(!dropped.get());
    tokio::time::sleep(REST_TIMEOUT * 2).await;
    assert!(dropped.get() && pieces.is_closed());
}
