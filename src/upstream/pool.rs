//! One worker's connections to the API's hosts: for each a stack of idle connections, the newest
//! on top, because it is the least likely to be closed by the other side. This is bookkeeping;
//! `http1` beside it speaks the protocol.

mod exchange;
mod streaming;

pub use exchange::AnswerContent;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect;
use super::http1::{self, Buffers};
use super::{Error, Head, MAX_AGE, SWEEP, Target};
use crate::metrics::{CutLabels, Histogram, Metrics};
use crate::timer::TimerPool;
use exchange::{CheckedOut, Progress, Slot};
use streaming::Streaming;

/// What one worker may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From asking for a connection to having one, a wait for a free one included.
    pub connect_timeout: Duration,
    /// How long an API that has begun an answer may be still.
    pub stall_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// Connections to one host; at least 1.
    pub max_connections: usize,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    /// With their public names; a handful.
    hosts: Vec<(Box<str>, Rc<Host>)>,
    /// Closes idle connections; aborted when the pool is dropped.
    _sweeper: JoinSet<()>,
}

#[derive(Debug)]
struct Host {
    target: Target,
    tls: Arc<ClientConfig>,
    limits: Limits,
    /// One permit for each connection that carries a request. Idle ones hold none: a new
    /// one is opened only when no idle one is left, so that all together stay within the limit.
    free: Arc<Semaphore>,
    /// The newest last.
    idle: RefCell<Vec<Idle>>,
    /// `upstream_connections`
    open: Gauge,
    /// `upstream_duration_seconds` of this host.
    duration: Histogram,
    /// Shared by all hosts.
    buffers: Rc<Buffers>,
    /// For those who wait for a connection, or for an answer to go on.
    timers: TimerPool,
    /// Answers on their way to their callers.
    streaming: Streaming,
    /// `answers_cut_total`
    cut: Family<CutLabels, Counter>,
}

#[derive(Debug)]
struct Idle {
    connection: http1::Connection,
    opened: Opened,
    /// Since when it is known to be idle: the sweeper notes it.
    since: Option<Instant>,
}

/// An open connection, counted until this is dropped.
#[derive(Debug)]
struct Opened {
    at: Instant,
    gauge: Gauge,
}

impl Opened {
    fn now(gauge: &Gauge) -> Opened {
        gauge.inc();
        Opened {
            at: Instant::now(),
            gauge: gauge.clone(),
        }
    }

    fn is_young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < MAX_AGE
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Whether a connection that carried a request before will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accept {
    Any,
    OnlyNew,
}

impl Pool {
    /// A pool for the thread it is made on, which must run a local runtime.
    pub fn new(
        targets: &HashMap<Box<str>, Target>,
        tls: &Arc<ClientConfig>,
        limits: Limits,
        metrics: &Metrics,
    ) -> Pool {
        let buffers = Rc::<Buffers>::default();
        let host = |name: &str, target: &Target| Host {
            target: target.clone(),
            tls: tls.clone(),
            limits,
            free: Arc::new(Semaphore::new(limits.max_connections)),
            idle: RefCell::default(),
            open: metrics.upstream_connections.clone(),
            duration: metrics.upstream_duration_of(name),
            buffers: buffers.clone(),
            timers: TimerPool::default(),
            streaming: Streaming::default(),
            cut: metrics.answers_cut.clone(),
        };
        let hosts: Vec<_> = targets
            .iter()
            .map(|(name, target)| (name.clone(), Rc::new(host(name, target))))
            .collect();
        let mut sweeper = JoinSet::new();
        let swept: Vec<_> = hosts.iter().map(|(_, host)| host.clone()).collect();
        sweeper.spawn_local(async move {
            loop {
                let mut pause = pin!(tokio::time::sleep(limits.idle_timeout.min(SWEEP) / 4));
                poll_fn(|cx| {
                    swept.iter().for_each(|host| host.sweep(cx));
                    pause.as_mut().poll(cx)
                })
                .await;
            }
        });
        Pool {
            hosts,
            _sweeper: sweeper,
        }
    }

    /// Sends one request to `host` and waits for the head of the answer, until `overdue` ends. It
    /// is ready to be sent at `now`.
    ///
    /// A GET, HEAD or OPTIONS without content that hit a connection which had died unnoticed is sent
    /// once more, if nothing was heard.
    ///
    /// `content` of the default value is none.
    pub async fn send<B>(
        &self,
        host: &str,
        head: &Head,
        content: B,
        now: Instant,
        overdue: impl Future<Output = ()>,
    ) -> Result<Response<AnswerContent>, Error>
    where
        B: Body<Data = Bytes> + Default + Unpin + 'static,
    {
        let named = self.hosts.iter().find(|(name, _)| **name == *host);
        let (_, host) = named.expect("the pool was made with the host of every route");
        let mut overdue = pin!(overdue);
        let repeatable = content.is_end_stream()
            && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);

        let (checked_out, reused, sent) = match host.at_once(now) {
            Some(checked_out) => (checked_out, true, now),
            // Boxed, because it is rare and long.
            None => {
                let (checked_out, reused) = Box::pin(host.check_out(Accept::Any)).await?;
                (checked_out, reused, Instant::now())
            }
        };
        let first = checked_out.exchange(&host.target, head, content, overdue.as_mut());
        let failed = match first.await {
            Ok(answer) => {
                host.duration.observe(sent.elapsed());
                host.target.condition.answered();
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        if failed.progress != Progress::Unanswered || !reused || !repeatable {
            return Err(failed.error);
        }
        let (checked_out, _) = Box::pin(host.check_out(Accept::OnlyNew)).await?;
        let sent = Instant::now();
        let second = Box::pin(checked_out.exchange(&host.target, head, B::default(), overdue));
        let answer = second.await.map_err(|failed| failed.error)?;
        host.duration.observe(sent.elapsed());
        host.target.condition.answered();
        Ok(answer)
    }
}

impl Host {
    /// The right to send one request on a connection that has been used before, where one is free.
    fn at_once(self: &Rc<Self>, now: Instant) -> Option<CheckedOut> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        self.idle(Accept::Any, now, permit).ok()
    }

    /// The right to send one request, and whether its connection has been used before.
    async fn check_out(self: &Rc<Self>, accept: Accept) -> Result<(CheckedOut, bool), Error> {
        let deadline = Instant::now() + self.limits.connect_timeout;
        let permit = self.free_place(deadline).await?;
        match self.idle(accept, Instant::now(), permit) {
            Ok(checked_out) => Ok((checked_out, true)),
            Err(permit) => Ok((self.connect(deadline, permit).await?, false)),
        }
    }

    /// A connection that was used before, or the permit again.
    fn idle(
        self: &Rc<Self>,
        accept: Accept,
        now: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<CheckedOut, OwnedSemaphorePermit> {
        let idle = match accept {
            Accept::Any => self.pop(now),
            Accept::OnlyNew => None,
        };
        match idle {
            Some(idle) => Ok(self.slot(idle.connection, idle.opened, permit)),
            None => Err(permit),
        }
    }

    async fn connect(
        self: &Rc<Self>,
        deadline: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<CheckedOut, Error> {
        let stream = connect::open(&self.target, &self.tls, deadline).await?;
        self.target.condition.reached();
        let opened = Opened::now(&self.open);
        let connection = http1::Connection::new(stream, self.buffers.clone());
        Ok(self.slot(connection, opened, permit))
    }

    fn slot(
        self: &Rc<Self>,
        connection: http1::Connection,
        opened: Opened,
        permit: OwnedSemaphorePermit,
    ) -> CheckedOut {
        let host = self.clone();
        let slot = Slot {
            host,
            opened,
            _permit: permit,
        };
        CheckedOut { connection, slot }
    }

    /// The newest idle connection that can still be used. Those above it cannot, and are closed.
    fn pop(&self, now: Instant) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut newest = idle.pop()?;
            if newest.opened.is_young(now) && newest.connection.is_quiet() {
                return Some(newest);
            }
        }
    }

    fn push(&self, connection: http1::Connection, opened: Opened) {
        self.idle.borrow_mut().push(Idle {
            connection,
            opened,
            since: None,
        });
    }

    /// Drops what is closed, idle for too long, or too old; `cx` is woken when another one closes.
    fn sweep(&self, cx: &mut Context<'_>) {
        let now = Instant::now();
        self.idle.borrow_mut().retain_mut(|idle| {
            let since = *idle.since.get_or_insert(now);
            now - since < self.limits.idle_timeout
                && idle.opened.is_young(now)
                && idle.connection.stays_quiet(cx)
        });
    }
}

#[cfg(test)]
mod tests;
