//! A worker: one thread with one runtime that serves its connections from beginning to end.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answers::{Answers, answers};
use super::coalesced_writes::CoalescedWrites;
use super::listen::Stream;
use super::pulse::Heart;
use super::timeouts::{Answering, ConnectionTimeouts, Cut, TimedStream};
use super::{Answered, Drained, Handler, Session, Stage, Times, Transport};
use crate::headers;
use crate::peer::Peer;
use crate::telemetry::episode::Chain;

/// Of a request's head, request line included; more is a 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// Fields of a request's head; more is a 431.
const FIELD_LIMIT: usize = 64;
/// The longest piece of content that is read of a caller, and how much may lie unwritten before more is
/// asked for. hyper takes 400 KiB, if left to itself; of either direction there are two such pieces.
const PIECE: usize = 32 * 1024;

/// The uid of users that this system, or this namespace, has no number for.
const NOBODY: u32 = 65_534;

/// While the server drains, a head that has begun, or the first one of a connection, has this long.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// A worker's thread as the accept loops see it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Connections handed over and not yet closed.
    load: Arc<AtomicUsize>,
    connections: mpsc::UnboundedSender<Connection>,
    /// Answers when the thread has nothing left to do.
    ended: oneshot::Receiver<Drained>,
    thread: thread::JoinHandle<()>,
}

/// A caller's connection on its way to the worker.
struct Connection {
    stream: Stream,
    place: Place,
}

/// What a connection takes up. Dropping it makes room for another one.
struct Place {
    load: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    /// Starts a thread that makes its handler and waits for connections.
    pub(super) fn start<H: Handler>(
        number: usize,
        new_handler: impl Fn() -> H + Send + 'static,
        (stage, heart): (watch::Receiver<Stage>, Heart),
        times: watch::Receiver<Times>,
    ) -> io::Result<Worker> {
        let (connections, handed) = mpsc::unbounded_channel();
        let (ending, ended) = oneshot::channel();
        let runtime = || -> io::Result<LocalRuntime> {
            Builder::new_current_thread()
                .enable_all()
                .build_local(Default::default())
        };
        let (report, reported) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(report.send(Err(error))),
                };
                drop(report.send(Ok(())));
                runtime.spawn_local(heart.answer());
                let drained = runtime.block_on(run(new_handler, handed, times, stage));
                drop(runtime);
                // Refused only if the server was dropped.
                let _ = ending.send(drained);
            })?;
        reported
            .recv()
            .expect("the thread reports before it does anything else")?;
        Ok(Worker {
            load: Arc::default(),
            connections,
            ended,
            thread,
        })
    }

    /// How many connections it has now.
    pub(super) fn connections(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Gives it one more.
    pub(super) fn hand(&self, stream: Stream, permit: OwnedSemaphorePermit) {
        self.load.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            load: self.load.clone(),
            _permit: permit,
        };
        // Refused only by a worker that has ended; the connection is closed then.
        drop(self.connections.send(Connection { stream, place }));
    }

    /// Hands it nothing more and waits until its thread has ended.
    pub(super) async fn end(self) -> Drained {
        drop(self.connections);
        // An error is a panic, which goes on below.
        let drained = self.ended.await.unwrap_or_default();
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        drained
    }
}

async fn run<H: Handler>(
    new_handler: impl Fn() -> H,
    mut handed: mpsc::UnboundedReceiver<Connection>,
    times: watch::Receiver<Times>,
    mut stage: watch::Receiver<Stage>,
) -> Drained {
    let answers = Rc::new(answers(new_handler(), times.clone()));
    let counts = answers.counts.clone();
    let mut serving = JoinSet::new();
    let mut leaving = stage.clone();
    let mut leaving = pin!(leaving.wait_for(|stage| *stage > Stage::Serving));
    let mut ended_before = None;
    loop {
        tokio::select! {
            _ = &mut leaving, if ended_before.is_none() => {
                counts.are_last.set(true);
                ended_before = Some(counts.ended.get());
            }
            connection = handed.recv() => match connection {
                Some(connection) => {
                    serving.spawn_local(serve(connection, answers.clone(), stage.clone()));
                }
                None => break,
            },
            Some(ended) = serving.join_next() => report(ended),
        }
    }
    let drain_timeout = times.borrow().drain_timeout;
    let drained = async {
        while let Some(ended) = serving.join_next().await {
            report(ended);
        }
        answers.handler().finish().await;
    };
    let ended_before = ended_before.unwrap_or_else(|| counts.ended.get());
    tokio::select! {
        () = drained => {}
        _ = stage.wait_for(|stage| *stage == Stage::Stopping) => {}
        () = tokio::time::sleep(drain_timeout) => {}
    }
    // Before the connections are dropped, which ends their answers in another way.
    Drained {
        ended: counts.ended.get() - ended_before,
        cut: counts.under_way.get(),
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a request panicked; its connection is closed");
    }
}

async fn serve<H, F>(
    connection: Connection,
    answers: Rc<Answers<H, F>>,
    stage: watch::Receiver<Stage>,
) where
    H: Handler,
    F: Future<Output = Answered<H>> + 'static,
{
    let Connection { stream, place } = connection;
    // The descriptor is registered with this thread's runtime from here on.
    let ended = match stream {
        Stream::Tcp(stream, from) => match TcpStream::from_std(stream) {
            Ok(stream) => serve_connection(Peer::at(from), stream, answers, stage).await,
            Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
        },
        Stream::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => serve_connection(user_of(&stream), stream, answers, stage).await,
            Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Chain(&error), "a caller's connection broke");
    }
    drop(place);
}

/// The user that connected to a unix socket.
fn user_of(stream: &UnixStream) -> Peer {
    Peer::Uid(stream.peer_cred().map_or(NOBODY, |user| user.uid()))
}

/// Serves one open connection of `peer`, of whatever kind: answers request after request until the caller
/// leaves or the server drains; what follows a 101 is its session's.
///
/// # Errors
///
/// The connection broke, or what came is not HTTP.
pub async fn serve_connection<H, F>(
    peer: Peer,
    stream: impl Transport,
    answers: Rc<Answers<H, F>>,
    stage: watch::Receiver<Stage>,
) -> hyper::Result<()>
where
    H: Handler,
    F: Future<Output = Answered<H>> + 'static,
{
    let timeouts = ConnectionTimeouts::new(answers.counts.clone());
    let stream = TimedStream::new(
        CoalescedWrites(stream),
        timeouts.clone(),
        answers.times.clone(),
    );
    let switched: Rc<Cell<Option<H::Session>>> = Rc::default();
    let service =
        service_fn(|request| begin(&answers, &timeouts, switched.clone(), (peer, request)));
    let mut connection = http().serve_connection(TokioIo::new(stream), service);
    let ended = match until_draining(&mut connection, &stage).await {
        Some(ended) => ended,
        None => {
            answers.counts.are_last.set(true);
            // Boxed, because it happens once, and long after the beginning.
            let draining = Box::pin(drain(
                &mut connection,
                |connection| Pin::new(connection).graceful_shutdown(),
                &timeouts,
            ));
            draining.await
        }
    };
    if let Some(cut) = timeouts.cut() {
        if cut == Cut::Stalled {
            answers.handler().caller_stalled();
        }
        let CoalescedWrites(stream) = connection.into_parts().io.into_inner().into_inner();
        stream.abort();
        return ended;
    }
    ended?;
    if let Some(session) = switched.take() {
        let parts = connection.into_parts();
        let CoalescedWrites(stream) = parts.io.into_inner().into_inner();
        // Boxed, so that connections which never switch have no room for it.
        Box::pin(take_over(session, stream, parts.read_buf, stage)).await;
    }
    Ok(())
}

/// What hyper is told of each connection.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_header_size(HEAD_LIMIT)
        .max_headers(FIELD_LIMIT)
        .max_buf_size(PIECE);
    http
}

/// Lets a session have its caller's connection until one of them ends or the server drains.
async fn take_over(
    session: impl Session,
    stream: impl Transport,
    read: Bytes,
    mut stage: watch::Receiver<Stage>,
) {
    let draining = async {
        let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
    };
    session.run(stream, read, draining).await;
}

/// Begins the answer to one request of `peer`; with a 101, the session that takes the connection over is
/// put into `switched`.
fn begin<'a, H, F>(
    answers: &'a Answers<H, F>,
    timeouts: &ConnectionTimeouts,
    switched: Rc<Cell<Option<H::Session>>>,
    (peer, mut request): (Peer, Request<Incoming>),
) -> impl Future<Output = Result<Response<Answering<H>>, Infallible>> + use<'a, H, F>
where
    H: Handler,
    F: Future<Output = Answered<H>> + 'static,
{
    let busy = timeouts.busy();
    if timeouts.has_several_lengths() {
        request.extensions_mut().insert(headers::SeveralLengths);
    }
    let is_old = request.version() == Version::HTTP_10;
    let answer = answers.begin(peer, request);
    // All in one step: each step more would move the whole answer once more.
    answer.map(move |(mut answer, session)| {
        if session.is_some() {
            switched.set(session);
        } else if answers.counts.are_last.get() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(answer.map(|content| Answering::<H> {
            is_unmarked: is_old && content.size_hint().exact().is_none(),
            content,
            busy,
        }))
    })
}

/// Serves a connection to its end; `None` if the server begins to drain before that.
async fn until_draining<C: Future + Unpin>(
    connection: &mut C,
    stage: &watch::Receiver<Stage>,
) -> Option<C::Output> {
    let mut watched = stage.clone();
    let mut draining = pin!(watched.wait_for(|stage| *stage >= Stage::Draining));
    let mut will_be_woken = false;
    poll_fn(|cx| {
        // The stage first, so that an answer ready at the same time says `Connection: close`. Once it
        // is waited for, a look at whether it has changed is enough. An error means that the sender is
        // gone: drain as well.
        let may_drain = !will_be_woken || stage.has_changed().unwrap_or(true);
        will_be_woken = true;
        if may_drain && draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut *connection).poll(cx).map(Some)
    })
    .await
}

/// Brings a connection to its end, whose answers are the last ones from here on.
async fn drain<C: Future + Unpin>(
    connection: &mut C,
    shut_down: impl FnOnce(&mut C),
    timeouts: &ConnectionTimeouts,
) -> C::Output {
    // What has come is read first: a request that is on its way is answered, and a caller that has
    // just connected may send one.
    let beginning = poll_fn(|cx| match Pin::new(&mut *connection).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if timeouts.awaits_a_head() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    });
    if let Ok(Some(ended)) = timeout(LAST_HEAD, beginning).await {
        return ended;
    }
    shut_down(connection);
    connection.await
}
