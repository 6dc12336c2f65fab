//! One worker's connections to the API's hosts. This is bookkeeping; `http1` beside it speaks the
//! protocol.

mod exchange;
mod host;
mod streaming;
mod watch;

pub use exchange::AnswerContent;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http1::Buffers;
use super::target::TargetId;
use super::{Error, Head, SWEEP, Target, Targets};
use crate::metrics::Metrics;
use exchange::Progress;
use host::{Accept, Host};

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
    /// Shared with the sweeper.
    hosts: Rc<Known>,
    limits: Cell<Limits>,
    metrics: Arc<Metrics>,
    /// Shared by all hosts.
    buffers: Rc<Buffers>,
    /// Closes idle connections; aborted when the pool is dropped.
    _sweeper: JoinSet<()>,
}

/// The hosts that requests may be sent to, a handful, and those that requests under way may still be
/// sent to.
type Known = RefCell<Vec<(TargetId, Rc<Host>)>>;

impl Pool {
    /// A pool for the thread it is made on, which must run a local runtime.
    pub fn new(targets: &Targets, limits: Limits, metrics: &Arc<Metrics>) -> Pool {
        let hosts = Rc::<Known>::default();
        let mut sweeper = JoinSet::new();
        sweeper.spawn_local(sweep(hosts.clone()));
        let pool = Pool {
            hosts,
            limits: Cell::new(limits),
            metrics: metrics.clone(),
            buffers: Rc::default(),
            _sweeper: sweeper,
        };
        pool.reconcile(targets, limits);
        pool
    }

    /// From here on the hosts are `targets`, and each of them has these `limits`. Connections to a host
    /// that stays as it is are kept, in use or idle. Idle connections to any other host are closed at
    /// once; one that is in use is closed after its answer.
    ///
    /// A request that began before this is still sent to the target that it began with, on a
    /// connection of its own.
    pub fn reconcile(&self, targets: &Targets, limits: Limits) {
        self.limits.set(limits);
        for (id, host) in &*self.hosts.borrow() {
            if targets.iter().all(|(_, target)| target.id != *id) {
                host.retire();
            }
            host.limit(limits);
        }
        for (_, target) in targets.iter() {
            self.host(target).restore();
        }
    }

    /// Sends one request to `target` and waits for the head of the answer, until `overdue` ends. It
    /// is ready to be sent at `now`.
    ///
    /// A GET, HEAD or OPTIONS without content that hit a connection which had died unnoticed is sent
    /// once more, if nothing was heard.
    ///
    /// `content` of the default value is none.
    pub async fn send<B>(
        &self,
        target: &Target,
        head: &Head,
        content: B,
        now: Instant,
        overdue: impl Future<Output = ()>,
    ) -> Result<Response<AnswerContent>, Error>
    where
        B: Body<Data = Bytes> + Default + Unpin + 'static,
    {
        let host = self.host(target);
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

    fn host(&self, target: &Target) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some((_, host)) = hosts.iter().find(|(id, _)| *id == target.id) {
            return host.clone();
        }
        let host = Host::new(target, self.limits.get(), &self.buffers, &self.metrics);
        let host = Rc::new(host);
        hosts.push((target.id, host.clone()));
        host
    }
}

/// Closes idle connections that are due, again and again, and forgets retired hosts.
async fn sweep(hosts: Rc<Known>) {
    loop {
        let shortest = {
            let hosts = hosts.borrow();
            let idle_timeouts = hosts.iter().map(|(_, host)| host.limits.get().idle_timeout);
            idle_timeouts.min().unwrap_or(SWEEP)
        };
        let mut pause = pin!(tokio::time::sleep(shortest.min(SWEEP) / 4));
        poll_fn(|cx| {
            hosts.borrow_mut().retain(|(_, host)| {
                host.sweep(cx);
                !host.is_retired() || Rc::strong_count(host) > 1
            });
            pause.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
