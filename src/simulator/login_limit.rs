//! The limit that makes a login scarce: some calls per client address, then a long block
//! (damoov/API.md, "Login").

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// How many Login calls one client address may make. Answered or rejected, each of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimit {
    /// Calls in any span of `per`; the next one is answered 429 and starts the block.
    pub calls: usize,
    /// The span.
    pub per: Duration,
    /// For how long every Login is then answered 429.
    pub block: Duration,
    /// What a 429 says about the block.
    pub retry_after: RetryAfter,
}

/// Whether a 429 says how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// The header is there, in seconds.
    Told,
    /// No header.
    Silent,
}

/// 5 calls a minute, then an hour; `Retry-After` is told.
impl Default for LoginLimit {
    fn default() -> LoginLimit {
        LoginLimit {
            calls: 5,
            per: Duration::from_secs(60),
            block: Duration::from_secs(3600),
            retry_after: RetryAfter::Told,
        }
    }
}

/// Whether one Login call may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Admitted,
    /// 429. `tripped` on the call that started the block.
    Limited { wait: Duration, tripped: bool },
}

/// Applies a [`LoginLimit`].
#[derive(Debug)]
pub(super) struct Limiter {
    limit: Option<LoginLimit>,
    clock: Clock,
    clients: Mutex<HashMap<IpAddr, Client>>,
}

/// What is remembered of one client address.
#[derive(Debug, Default)]
struct Client {
    /// The calls of the last span, oldest first.
    calls: VecDeque<Moment>,
    blocked_until: Option<Moment>,
}

impl Limiter {
    pub(super) fn new(limit: Option<LoginLimit>, clock: Clock) -> Limiter {
        Limiter {
            limit,
            clock,
            clients: Mutex::default(),
        }
    }

    /// Counts one call of `address`.
    pub(super) fn admit(&self, address: IpAddr) -> Admission {
        let Some(limit) = self.limit else {
            return Admission::Admitted;
        };
        let now = self.clock.now();
        let mut clients = self.clients.lock().expect("no holder panics");
        let client = clients.entry(address).or_default();
        if let Some(until) = client.blocked_until {
            if now < until {
                return Admission::Limited {
                    wait: until.since(now),
                    tripped: false,
                };
            }
            *client = Client::default();
        }
        client.calls.retain(|call| now.since(*call) < limit.per);
        if client.calls.len() < limit.calls {
            client.calls.push_back(now);
            return Admission::Admitted;
        }
        client.blocked_until = Some(now.plus(limit.block));
        Admission::Limited {
            wait: limit.block,
            tripped: true,
        }
    }

    /// Whether a 429 carries `Retry-After`.
    pub(super) fn tells_when(&self) -> bool {
        self.limit
            .is_some_and(|limit| limit.retry_after == RetryAfter::Told)
    }

    /// Lifts every block and forgets every call.
    pub(super) fn reset(&self) {
        self.clients.lock().expect("no holder panics").clear();
    }
}
