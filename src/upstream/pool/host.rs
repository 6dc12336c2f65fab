//! One host and one worker's connections to it: a stack of idle connections, the newest on top,
//! because it is the least likely to be closed by the other side.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Limits;
use super::streaming::Streaming;
use crate::metrics::{CutLabels, CutReason, Histogram, Metrics, Stalled};
use crate::stalls::Side;
use crate::timer::TimerPool;
use crate::upstream::http1::{self, Buffers};
use crate::upstream::{Condition, Error, MAX_AGE, Target, connect};

/// One host on one worker. Everything in it stays on the worker's thread, except `free` (whose permits
/// own it), the metrics, and the condition of the target.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) target: Target,
    /// Set anew when the configuration changes.
    pub(super) limits: Cell<Limits>,
    /// Permits that are to be taken away since the limit fell, once they are given back.
    excess: Cell<usize>,
    /// One permit for each connection that carries a request. Idle connections hold none: a new one is
    /// opened only when no idle one is left, so that all together stay within the limit.
    pub(super) free: Arc<Semaphore>,
    /// The one used last is at the end, and is used first.
    pub(super) idle: RefCell<Vec<Idle>>,
    /// Whether the configuration no longer has the host: requests that began before that are still
    /// sent, and no connection is kept.
    retired: Cell<bool>,
    /// `upstream_connections`
    open: Gauge,
    /// `upstream_duration_seconds` of this host.
    pub(super) duration: Histogram,
    /// Shared by all hosts.
    buffers: Rc<Buffers>,
    /// For requests that wait for a connection, and for answers that wait for the API. Timers are reused,
    /// because arming one takes a lock.
    pub(super) timers: TimerPool,
    /// Answers that did not end at once, one of which may have to give way.
    pub(super) streaming: Streaming,
    /// `answers_cut_total`
    pub(super) cut: Family<CutLabels, Counter>,
}

/// A connection that carries no request.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) connection: http1::Connection,
    opened: Opened,
    /// Since when it is known to be idle. The sweeper notes it, so that giving a connection back reads no
    /// clock.
    since: Option<Instant>,
}

/// An open connection, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    at: Instant,
    gauge: Gauge,
    /// Of the host, which is counted by itself, too.
    condition: Arc<Condition>,
}

impl Opened {
    fn now(gauge: &Gauge, condition: &Arc<Condition>) -> Opened {
        gauge.inc();
        condition.open.fetch_add(1, Ordering::Relaxed);
        Opened {
            at: Instant::now(),
            gauge: gauge.clone(),
            condition: condition.clone(),
        }
    }

    fn is_young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < MAX_AGE
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.gauge.dec();
        self.condition.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection for one request.
#[derive(Debug)]
pub(super) struct CheckedOut {
    pub(super) connection: http1::Connection,
    pub(super) slot: Slot,
}

/// What a connection takes up while it carries a request: one of the host's `max_connections`.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) host: Rc<Host>,
    pub(super) opened: Opened,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Whether a connection that carried a request before will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    Any,
    OnlyNew,
}

impl Host {
    /// A retired host, until it is restored.
    pub(super) fn new(
        target: &Target,
        limits: Limits,
        buffers: &Rc<Buffers>,
        metrics: &Metrics,
    ) -> Host {
        Host {
            target: target.clone(),
            limits: Cell::new(limits),
            excess: Cell::new(0),
            free: Arc::new(Semaphore::new(limits.max_connections)),
            idle: RefCell::default(),
            retired: Cell::new(true),
            open: metrics.upstream_connections.clone(),
            duration: metrics.upstream_duration_of(target.condition.name()),
            buffers: buffers.clone(),
            timers: TimerPool::default(),
            streaming: Streaming::default(),
            cut: metrics.answers_cut.clone(),
        }
    }

    /// What may be done from here on. Connections in use beyond a lower limit are used to the end of
    /// their exchanges.
    pub(super) fn limit(&self, limits: Limits) {
        let before = self.limits.replace(limits).max_connections + self.excess.take();
        match limits.max_connections.checked_sub(before) {
            Some(more) => self.free.add_permits(more),
            None => self.excess.set(before - limits.max_connections),
        }
        self.take_excess();
    }

    fn take_excess(&self) {
        let excess = self.excess.get();
        self.excess.set(excess - self.free.forget_permits(excess));
    }

    /// Closes idle connections, and keeps none from here on.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }

    /// Keeps connections from here on.
    pub(super) fn restore(&self) {
        self.retired.set(false);
    }

    /// Whether it keeps no connection.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// An idle connection, if there is one that can be used and no request waits before this one.
    pub(super) fn at_once(self: &Rc<Self>, now: Instant) -> Option<CheckedOut> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        self.idle(Accept::Any, now, permit).ok()
    }

    /// A connection for one request, and whether it has been used before. Waits for a free one.
    pub(super) async fn check_out(
        self: &Rc<Self>,
        accept: Accept,
    ) -> Result<(CheckedOut, bool), Error> {
        let deadline = Instant::now() + self.limits.get().connect_timeout;
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
        let stream = connect::open(&self.target, deadline).await?;
        self.target.condition.reached();
        let opened = Opened::now(&self.open, &self.target.condition);
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

    /// Takes back a connection that can be used again; a retired host closes it.
    pub(super) fn push(&self, connection: http1::Connection, opened: Opened) {
        if self.retired.get() {
            return;
        }
        self.idle.borrow_mut().push(Idle {
            connection,
            opened,
            since: None,
        });
    }

    /// Drops what is closed, idle for too long, or too old; `cx` is woken when another one closes.
    pub(super) fn sweep(&self, cx: &mut Context<'_>) {
        self.take_excess();
        let now = Instant::now();
        self.idle.borrow_mut().retain_mut(|idle| {
            let since = *idle.since.get_or_insert(now);
            now - since < self.limits.get().idle_timeout
                && idle.opened.is_young(now)
                && idle.connection.stays_quiet(cx)
        });
    }

    /// Waits until a connection is free, at most until `deadline`. Meanwhile the exchange that has been
    /// still for longest may be ended.
    pub(super) async fn free_place(
        &self,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = self.streaming.wait();
        let mut acquiring = pin!(self.free.clone().acquire_owned());
        loop {
            let again = match self.streaming.give_way(Instant::now()) {
                Ok(side) => {
                    self.count_cut(side.into(), CutReason::GaveWay);
                    self.target.condition.gave_way(side);
                    continue;
                }
                Err(again) => again.min(deadline),
            };
            match self.timers.until(again, acquiring.as_mut()).await {
                Some(permit) => return Ok(permit.expect("the semaphore is never closed")),
                None if Instant::now() >= deadline => return Err(Error::Busy),
                None => {}
            }
        }
    }

    pub(super) fn count_cut(&self, stalled: Stalled, reason: CutReason) {
        let labels = CutLabels { stalled, reason };
        self.cut.get_or_create(&labels).inc();
    }
}

impl From<Side> for Stalled {
    fn from(side: Side) -> Stalled {
        match side {
            Side::Upstream => Stalled::Upstream,
            Side::Caller => Stalled::Caller,
        }
    }
}
