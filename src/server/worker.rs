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

use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::answers::{Answers, answers};
use super::joined::Joined;
use super::listen::Stream;
use super::patience::{Answering, Patience, Patient};
use super::{Answered, Handler, Session, Stage};
use crate::telemetry::episode::Chain;

/// Of a request's head, request line included; more is a 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// Fields of a request's head; more is a 431.
const FIELD_LIMIT: usize = 64;
/// The longest piece of content on its way: hyper reads up to 400 KiB at once, if left to itself.
const PIECE: usize = 64 * 1024;

/// A worker's thread as the accept loops see it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Connections handed over and not yet closed.
    load: Arc<AtomicUsize>,
    connections: mpsc::UnboundedSender<Connection>,
    /// Answers when the thread has nothing left to do.
    ended: oneshot::Receiver<()>,
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
        stage: watch::Receiver<Stage>,
        drain_timeout: Duration,
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
                runtime.block_on(run(new_handler, handed, stage, drain_timeout));
                drop(runtime);
                drop(ending);
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
    pub(super) async fn end(self) {
        drop(self.connections);
        // The sender is dropped, never used.
        let _ = self.ended.await;
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn run<H: Handler>(
    new_handler: impl Fn() -> H,
    mut handed: mpsc::UnboundedReceiver<Connection>,
    mut stage: watch::Receiver<Stage>,
    drain_timeout: Duration,
) {
    let answers = Rc::new(answers(new_handler()));
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            connection = handed.recv() => match connection {
                Some(connection) => {
                    serving.spawn_local(serve(connection, answers.clone(), stage.clone()));
                }
                None => break,
            },
            Some(ended) = serving.join_next() => report(ended),
        }
    }
    let drained = async {
        while let Some(ended) = serving.join_next().await {
            report(ended);
        }
        answers.handler().finish().await;
    };
    tokio::select! {
        () = drained => {}
        _ = stage.wait_for(|stage| *stage == Stage::Stopping) => {}
        () = tokio::time::sleep(drain_timeout) => {
            tracing::warn!("answers did not end within drain_timeout; cutting them off");
        }
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
        Stream::Tcp(stream) => match TcpStream::from_std(stream) {
            Ok(stream) => converse(stream, answers, stage).await,
            Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
        },
        Stream::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => converse(stream, answers, stage).await,
            Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Chain(&error), "a caller's connection broke");
    }
    drop(place);
}

/// Serves one open connection, of whatever kind: answers request after request until the caller
/// leaves or the server drains; what follows a 101 is its session's.
///
/// # Errors
///
/// The connection broke, or what came is not HTTP.
pub async fn converse<H, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: Rc<Answers<H, F>>,
    mut stage: watch::Receiver<Stage>,
) -> hyper::Result<()>
where
    H: Handler,
    F: Future<Output = Answered<H>> + 'static,
{
    let patience = Patience::new();
    let stream = Patient::new(Joined(stream), patience.clone());
    let switched: Rc<Cell<Option<H::Session>>> = Rc::default();
    let service = service_fn(|request| {
        let switched = switched.clone();
        let busy = patience.busy();
        answers.begin(request).map(move |(answer, session)| {
            if session.is_some() {
                switched.set(session);
            }
            Ok::<_, Infallible>(answer.map(|content| Answering {
                content,
                _busy: busy,
            }))
        })
    });
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(HEAD_LIMIT)
        .max_headers(FIELD_LIMIT)
        .max_buf_size(PIECE)
        .serve_connection(TokioIo::new(stream), service);
    let mut watched = stage.clone();
    let mut draining = pin!(watched.wait_for(|stage| *stage > Stage::Serving));
    let mut will_be_woken = false;
    let ended = poll_fn(|cx| {
        // The stage first, so that an answer ready at the same time says `Connection: close`. Once it
        // is waited for, a look at whether it has changed is enough. An error means that nobody can
        // say anything any more: drain, too.
        let may_drain = !will_be_woken || stage.has_changed().unwrap_or(true);
        will_be_woken = true;
        if may_drain && draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    match ended {
        Some(ended) => ended?,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await?;
        }
    }
    if let Some(session) = switched.take() {
        let parts = connection.into_parts();
        let Joined(stream) = parts.io.into_inner().into_inner();
        let draining = async {
            let _ = stage.wait_for(|stage| *stage > Stage::Serving).await;
        };
        // Boxed, so that connections which never switch have no room for it.
        Box::pin(session.run(stream, parts.read_buf, draining)).await;
    }
    Ok(())
}
