//! What the configuration says of requests and may change while the proxy runs: [`Rules`], one
//! immutable value. What lives on when it changes (credentials, connections, content that is kept,
//! metrics, the log) is apart from it, in [`Proxy`](super::Proxy).
//!
//! A request looks once at which rules are in force, and holds on to them to its end: none sees a
//! route of one configuration and a host or a key of another.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use crate::auth_endpoints;
use crate::damoov::routes::{Route, Table};
use crate::directory::Directory;
use crate::error::Error;
use crate::head;
use crate::upstream::pool::Limits;
use crate::upstream::{self, Hosts, Target, Targets, switch};

/// What rules are made of.
pub struct Parts<'a> {
    /// What is served, and to which web origins.
    pub head: head::Settings,
    /// Which path goes where.
    pub routes: Table,
    /// Who is configured.
    pub directory: Arc<Directory>,
    /// What callers that log in by themselves are given.
    pub auth_endpoints: auth_endpoints::Settings,
    /// Whether a 2xx answer whose beginning says 401 counts as a 401.
    pub in_band_401: bool,
    /// Bytes kept of a request's content for a replay.
    pub replay_limit: u64,
    /// How hosts are reached.
    pub hosts: &'a Hosts,
    /// Deadlines and limits of connections to them.
    pub upstream: &'a upstream::Settings,
    /// How many workers share the limits.
    pub workers: usize,
}

/// The rules that requests are answered by.
#[derive(Debug)]
pub struct Rules {
    pub(super) head: head::Settings,
    pub(super) routes: Table,
    pub(super) directory: Arc<Directory>,
    pub(super) auth_endpoints: auth_endpoints::Settings,
    pub(super) in_band_401: bool,
    pub(super) replay_limit: u64,
    /// Where the host of each route is reached. The same target, made again for later rules, is known
    /// to be the same: connections to it are kept.
    pub(super) targets: Targets,
    /// What the pool of one worker may do.
    pub(super) limits: Limits,
    /// What WebSockets may do, over all workers.
    websockets: switch::Limits,
    /// Where a route sets no other.
    response_timeout: Duration,
}

impl Rules {
    /// Works out where every route leads.
    ///
    /// # Errors
    ///
    /// The host of a route cannot be reached under its name.
    pub fn new(parts: Parts<'_>) -> Result<Rules, upstream::Invalid> {
        let settings = parts.upstream;
        Ok(Rules {
            targets: parts.hosts.targets(parts.routes.hosts())?,
            head: parts.head,
            routes: parts.routes,
            directory: parts.directory,
            auth_endpoints: parts.auth_endpoints,
            in_band_401: parts.in_band_401,
            replay_limit: parts.replay_limit,
            limits: Limits {
                connect_timeout: settings.connect_timeout,
                stall_timeout: settings.stall_timeout,
                idle_timeout: settings.idle_timeout,
                max_connections: (settings.max_connections / parts.workers.max(1)).max(1),
            },
            websockets: switch::Limits {
                connect_timeout: settings.connect_timeout,
                response_timeout: settings.response_timeout,
                max_connections: settings.max_connections,
            },
            response_timeout: settings.response_timeout,
        })
    }

    /// Where the host of a route of these rules is reached.
    pub(super) fn target(&self, route: &Route) -> &Target {
        &self.targets[&*route.host]
    }

    /// How long the head of an answer is waited for.
    pub(super) fn response_timeout(&self, route: &Route) -> Duration {
        route.response_timeout.unwrap_or(self.response_timeout)
    }

    /// What a WebSocket on this route may do.
    pub(super) fn websockets(&self, route: &Route) -> switch::Limits {
        switch::Limits {
            response_timeout: self.response_timeout(route),
            ..self.websockets
        }
    }

    /// No route has this path, which has passed the checks of the head, or none for this method.
    pub(super) fn unknown(&self, path: &str) -> Error {
        Error::RouteUnknown(Some(Box::new(self.routes.suggestion(path))))
    }
}

/// The rules that are in force, as one worker sees them.
pub(super) struct InForce {
    /// Notices new rules by one look at a pointer.
    published: Cache<Arc<ArcSwap<Rules>>, Arc<Rules>>,
    /// What the worker's requests share.
    held: Rc<Held>,
}

/// Rules that requests of one worker hold. Counted by an `Rc`: with an `Arc` alone, every worker
/// would write to the same counter for every request.
pub(super) struct Held(Arc<Rules>);

impl Deref for Held {
    type Target = Rules;

    fn deref(&self) -> &Rules {
        &self.0
    }
}

impl InForce {
    pub(super) fn new(published: &Arc<ArcSwap<Rules>>) -> InForce {
        InForce {
            published: Cache::new(published.clone()),
            held: Rc::new(Held(published.load_full())),
        }
    }

    /// The rules that are in force now. `changed` is called with those that were not seen before.
    pub(super) fn now(&mut self, changed: impl FnOnce(&Rules)) -> Rc<Held> {
        let latest = self.published.load();
        if !Arc::ptr_eq(latest, &self.held.0) {
            changed(latest);
            self.held = Rc::new(Held(latest.clone()));
        }
        self.held.clone()
    }
}
