//! Contents of a gigabyte pass through a flat memory.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use crate::harness::{Proxy, SCORES, damoov, heavy, principal, proxy, user};

const GIB: u64 = 1 << 30;
const PIECE: usize = 64 << 10;
/// How much resident memory may grow.
const MOST: u64 = 16 << 20;

type Content = BoxBody<Bytes, Infallible>;

/// The piece number `number` of an upload; no two are alike.
fn piece(number: u64) -> Vec<u8> {
    let mut piece = vec![b'u'; PIECE];
    piece[..8].copy_from_slice(&number.to_be_bytes());
    piece
}

fn hex(hash: Sha256) -> String {
    let hash = hash.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn send(proxy: &Proxy, request: Request<Content>) -> Response<Incoming> {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost")
        .header("DeviceToken", user(1).to_string())
}

async fn download(proxy: &Proxy, length: u64) {
    let request = request("GET", &format!("/mobilesdk/stage/bytes/{length}"));
    let answer = send(proxy, request.body(Empty::new().boxed()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let (mut body, mut received, mut hash) = (answer.into_body(), 0, Sha256::new());
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        received += piece.len() as u64;
        hash.update(&piece);
    }
    let mut expected = Sha256::new();
    for _ in 0..length / PIECE as u64 {
        expected.update([b'd'; PIECE]);
    }
    assert_eq!((received, hex(hash)), (length, hex(expected)));
}

async fn upload(proxy: &Proxy, length: u64) {
    let pieces = length / PIECE as u64;
    let content = futures_util::stream::iter((0..pieces).map(|number| {
        let piece = Bytes::from(piece(number));
        Ok::<_, Infallible>(Frame::data(piece))
    }));
    let request = request("POST", "/mobilesdk/stage/sink").header("Content-Length", length);
    let content = BodyExt::boxed(StreamBody::new(content));
    let answer = send(proxy, request.body(content).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let mut expected = Sha256::new();
    (0..pieces).for_each(|number| expected.update(piece(number)));
    assert_eq!(
        answer.headers()["x-sim-content-length"],
        *length.to_string()
    );
    assert_eq!(answer.headers()["x-sim-content-sha256"], *hex(expected));
}

/// Resident memory at its highest while `work` runs.
async fn peak_during(proxy: &Proxy, work: impl Future<Output = ()>) -> u64 {
    let mut work = pin!(work);
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let mut peak = 0;
    loop {
        tokio::select! {
            () = &mut work => return peak,
            _ = look.tick() => peak = peak.max(proxy.resident()),
        }
    }
}

#[tokio::test]
async fn a_gigabyte_down_and_up_and_both_at_once_leaves_memory_flat() {
    let _turn = heavy().await;
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let before = proxy.resident();
    let down = peak_during(&proxy, download(&proxy, GIB)).await;
    let up = peak_during(&proxy, upload(&proxy, GIB)).await;
    let both = peak_during(&proxy, async {
        tokio::join!(download(&proxy, GIB), upload(&proxy, GIB));
    })
    .await;
    for (what, peak) in [("down", down), ("up", up), ("both", both)] {
        let grown = peak.saturating_sub(before);
        assert!(grown < MOST, "{what}: grew by {grown} bytes from {before}");
    }
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.ok, 1);
}
