//! hyper's server and client with a table of tokens between them, and nothing else: no checks, no
//! log, no metrics, no deadlines. Each worker has a stack of `hyper::client::conn::http1`
//! connections. What this costs, everybody pays who uses hyper's client.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use clap::Parser;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::{Api, Setup, Tokens};
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    peers::serve(&Setup::parse(), Worker::new, serve)
}

struct Worker {
    tokens: Tokens,
    api: Api,
    idle: Rc<Idle>,
}

/// Connections whose last answer was read to its end, the newest last.
type Idle = RefCell<Vec<SendRequest<Incoming>>>;

impl Worker {
    fn new(setup: &Setup) -> Worker {
        Worker {
            tokens: peers::tokens(&setup.tokens),
            api: Api::new(setup),
            idle: Rc::default(),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> io::Result<Response<Content>> {
        let device = request.headers().get("devicetoken");
        let bearer = device.and_then(|device| self.tokens.get(device.as_bytes()));
        let bearer = bearer.ok_or_else(|| io::Error::other("nobody is named"))?;
        request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        let mut connection = self.connection().await?;
        let answer = connection.send_request(request).await;
        Ok(answer.map_err(io::Error::other)?.map(|content| Content {
            content,
            connection: Some(connection),
            idle: Rc::downgrade(&self.idle),
        }))
    }

    async fn connection(&self) -> io::Result<SendRequest<Incoming>> {
        loop {
            let newest = self.idle.borrow_mut().pop();
            let Some(mut connection) = newest else { break };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TokioIo::new(self.api.connect().await?);
        let (connection, driver) = handshake(stream).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(driver);
        Ok(connection)
    }
}

async fn serve(worker: Rc<Worker>, caller: TcpStream) {
    let service = service_fn(|request| worker.forward(request));
    // A caller that hangs up is no error.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(caller), service)
        .await;
}

/// Content of an answer, which gives its connection back at its end.
struct Content {
    content: Incoming,
    connection: Option<SendRequest<Incoming>>,
    idle: Weak<Idle>,
}

impl Body for Content {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(cx));
        if frame.is_none() || self.content.is_end_stream() {
            self.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

impl Content {
    fn give_back(&mut self) {
        if let (Some(connection), Some(idle)) = (self.connection.take(), self.idle.upgrade()) {
            idle.borrow_mut().push(connection);
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.content.is_end_stream() {
            self.give_back();
        }
    }
}
