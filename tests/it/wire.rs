//! Bytes on sockets: a caller that writes what it likes, an upstream that answers what it likes.
//! No HTTP library stands in between.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::harness::{Proxy, loopback, user};

/// Longer than any deadline of the proxy that these tests run into.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer on a connection that stays.
pub const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// An answer on a connection that ends with it.
pub const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood";

/// One end of a connection.
pub struct Wire {
    stream: TcpStream,
    /// Read, and not yet taken as part of a message.
    read: Vec<u8>,
}

/// A request or an answer as its bytes came.
#[derive(Debug)]
pub struct Message {
    /// The first line and the fields, with the empty line.
    pub head: String,
    /// Without the framing of `chunked`.
    pub content: Vec<u8>,
}

/// An upstream whose every byte the test writes.
pub struct Upstream(TcpListener);

impl Wire {
    /// A caller's connection.
    pub async fn to(proxy: &Proxy) -> Wire {
        Wire::connect(proxy.address()).await
    }

    /// A connection to any address.
    pub async fn connect(address: SocketAddr) -> Wire {
        Wire::new(TcpStream::connect(address).await.unwrap())
    }

    /// One end of a connection that is open already.
    pub fn over(stream: TcpStream) -> Wire {
        Wire::new(stream)
    }

    fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        Wire {
            stream,
            read: Vec::new(),
        }
    }

    /// Writes. The other side may have closed already; what it said is then still to be read.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Writes and reads one answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.write(request).await;
        self.message().await
    }

    /// Reads one whole message.
    pub async fn message(&mut self) -> Message {
        let mut message = self.head().await;
        if message.field("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                message.content.extend(chunk);
            }
        } else if let Some(length) = message.field("content-length") {
            let length = length.parse().unwrap();
            message.content = self.take(length).await;
        }
        message
    }

    /// Reads the head of a message.
    pub async fn head(&mut self) -> Message {
        let end = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.fill().await > 0, "no whole head: {so_far:?}");
        };
        let head = String::from_utf8(self.take(end).await).unwrap();
        Message {
            head,
            content: Vec::new(),
        }
    }

    /// Reads one chunk; `None` after the last one.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = find(&self.read, b"\r\n") {
                break at + 2;
            }
            assert!(self.fill().await > 0, "the content was cut");
        };
        let size = String::from_utf8(self.take(end).await).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = self.take(size + 2).await;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Reads this many bytes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.fill().await > 0, "the connection ended too early");
        }
        self.read.drain(..length).collect()
    }

    /// Everything up to the end of the connection, which must come.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.read)
    }

    /// Writes, unless the other side has gone.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads on, to an orderly end; false if it is a reset.
    pub async fn ends_whole(&mut self) -> bool {
        loop {
            self.read.clear();
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            match read.expect("the other side says nothing and does not close") {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Says that nothing more will be written.
    pub async fn close_half(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Closes this end.
    pub async fn close(self) {
        drop(self.stream);
    }

    /// Resets the connection: what the other side still sends is answered by an RST.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// 0 at the end, be it orderly or a reset.
    async fn fill(&mut self) -> usize {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        read.expect("the other side says nothing and does not close")
            .unwrap_or(0)
    }
}

impl Message {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// `Errors[0].Key` of the envelope; empty where there is no envelope.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.content).unwrap_or_default();
        let code = json["Errors"][0]["Key"].as_str();
        code.unwrap_or_default().to_owned()
    }

    /// Whether the sender says that it closes the connection.
    pub fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

impl Upstream {
    /// Listens on a free port.
    pub async fn listen() -> Upstream {
        Upstream(TcpListener::bind(loopback(0)).await.unwrap())
    }

    /// As it stands in `[upstream.hosts]`.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        let accepted = timeout(PATIENCE, self.0.accept()).await;
        Wire::new(accepted.expect("nobody connects").unwrap().0)
    }

    /// The next connection, whenever it comes.
    pub async fn next(&self) -> Option<Wire> {
        self.0
            .accept()
            .await
            .ok()
            .map(|(stream, _)| Wire::new(stream))
    }

    /// Accepts a connection, reads one request, and writes `answer`.
    pub async fn answer_once(&self, answer: &str) -> Wire {
        let mut wire = self.accept().await;
        wire.message().await;
        wire.write(answer).await;
        wire
    }
}

/// `GET path` as user 1 with these `fields`, each ended by CRLF.
pub fn get(path: &str, fields: &str) -> String {
    request("GET", path, fields)
}

/// A head that is good but for what a test makes of it.
pub fn request(method: &str, path: &str, fields: &str) -> String {
    let device = user(1);
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nDeviceToken: {device}\r\n{fields}\r\n")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}
