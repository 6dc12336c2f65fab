//! The path of a request: [`Forwarder::answer`] answers whatever happens; `forward` beside it is the
//! path itself. Words no error, opens no socket.

pub mod answer;
mod call;
mod cors;
mod forward;
mod handshake;
mod record;
mod understood;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::task::JoinSet;

use self::cors::Page;

use self::record::Record;
use crate::auth_endpoints::AuthEndpoints;
use crate::caller::Caller;
use crate::credentials::Provider;
use crate::damoov::routes::{Route, Table};
use crate::directory::Directory;
use crate::error::Error;
use crate::handed_out::HandedOut;
use crate::head::{self, Rejection};
use crate::live::{self, Live};
use crate::metrics::{CutLabels, CutReason, Metrics, Stalled, Tally};
use crate::peer::Peer;
use crate::replay::{self, Memory, Recorder};
use crate::server::Handler;
use crate::stalls::Stalls;
use crate::telemetry::access::{AccessLog, AccessWriter};
use crate::telemetry::seldom::Seldom;
use crate::timer::TimerPool;
use crate::upstream::pool::{Limits, Pool};
use crate::upstream::switch::Switcher;
use crate::upstream::{self, Hosts, Targets};

/// Content left unread behind an early answer is swallowed up to this, so that the caller gets to
/// read the answer; behind more, the connection is closed.
const DRAIN: u64 = 64 * 1024;
/// And for as long as this.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Everything that the path of a request needs.
pub struct Parts {
    /// What is served.
    pub head: head::Settings,
    /// Which path goes where.
    pub routes: Table,
    /// Who is configured.
    pub directory: Arc<Directory>,
    /// Gives out credentials.
    pub provider: Provider,
    /// Answers callers that log in by themselves.
    pub auth_endpoints: AuthEndpoints,
    /// Knows the tokens that they were given.
    pub handed_out: Arc<HandedOut>,
    /// How hosts are reached.
    pub hosts: Hosts,
    /// Deadlines and limits of connections to them.
    pub upstream: upstream::Settings,
    /// How much content is kept.
    pub replay: replay::Settings,
    /// Whether a 2xx answer whose beginning says 401 counts as a 401.
    pub in_band_401: bool,
    /// How many workers share the limits.
    pub workers: usize,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are recorded.
    pub access: AccessLog,
}

/// What all workers share.
pub struct Proxy {
    head: head::Settings,
    routes: Table,
    directory: Arc<Directory>,
    provider: Provider,
    auth_endpoints: AuthEndpoints,
    handed_out: Arc<HandedOut>,
    /// Where the host of each route is reached.
    targets: Targets,
    /// Where a route sets no other.
    response_timeout: Duration,
    limits: Limits,
    memory: Arc<Memory>,
    in_band_401: bool,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    unread: Seldom,
    /// The label of requests that no route was found for.
    no_route: Arc<str>,
}

/// Answers the requests of one worker: what all workers share, and the worker's own connections.
pub struct Forwarder {
    proxy: Arc<Proxy>,
    pool: Rc<Pool>,
    tally: Tally,
    access: AccessWriter,
    timers: TimerPool,
    /// Registrations and forwarded logins under way, which a caller's hang-up does not end; the worker
    /// waits for them.
    unfinished: RefCell<JoinSet<()>>,
}

impl Proxy {
    /// Works out where every route leads.
    pub fn new(parts: Parts) -> Result<Proxy, upstream::Invalid> {
        let targets = parts.hosts.targets(parts.routes.hosts())?;
        let settings = parts.upstream;
        let switcher = Switcher::new(&settings);
        let live = Live::new(
            parts.provider.clone(),
            parts.handed_out.clone(),
            switcher,
            parts.metrics.clone(),
        );
        let no_route: Arc<str> = "none".into();
        let labels = parts.routes.routes().map(|route| route.label());
        parts.metrics.expect(labels.chain([&no_route]));
        Ok(Proxy {
            head: parts.head,
            routes: parts.routes,
            directory: parts.directory,
            provider: parts.provider,
            auth_endpoints: parts.auth_endpoints,
            handed_out: parts.handed_out,
            targets,
            response_timeout: settings.response_timeout,
            limits: Limits {
                connect_timeout: settings.connect_timeout,
                stall_timeout: settings.stall_timeout,
                idle_timeout: settings.idle_timeout,
                max_connections: (settings.max_connections / parts.workers.max(1)).max(1),
            },
            memory: Arc::new(Memory::new(
                parts.replay,
                parts.metrics.replay_memory_bytes.clone(),
            )),
            in_band_401: parts.in_band_401,
            live: Arc::new(live),
            metrics: parts.metrics,
            access: parts.access,
            unread: Seldom::new(),
            no_route,
        })
    }
}

impl Proxy {
    /// How long the head of an answer is waited for.
    fn response_timeout(&self, route: &Route) -> Duration {
        route.response_timeout.unwrap_or(self.response_timeout)
    }

    /// No route has this path, which has passed the checks of the head, or none for this method.
    fn unknown(&self, path: &str) -> Error {
        Error::RouteUnknown(Some(Box::new(self.routes.suggestion(path))))
    }

    /// A host that cannot be connected to, and since when.
    pub fn unreachable(&self) -> Option<(&str, SystemTime)> {
        self.targets
            .iter()
            .find_map(|(_, target)| target.unreachable())
    }
}

impl Forwarder {
    /// For the current thread, which must run a local runtime.
    pub fn new(proxy: Arc<Proxy>) -> Forwarder {
        Forwarder {
            pool: Rc::new(Pool::new(&proxy.targets, proxy.limits, &proxy.metrics)),
            tally: Tally::new(proxy.metrics.clone()),
            access: proxy.access.writer(),
            timers: TimerPool::default(),
            proxy,
            unfinished: RefCell::default(),
        }
    }

    /// Answers a request, whatever happens; counts and logs it once. With a 101 comes the session
    /// that takes the connection over.
    pub fn answer(
        self: Rc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = (Response<answer::Content>, Option<Box<live::Session>>)> + 'static
    {
        let (mut head, content) = request.into_parts();
        let content = Recorder::new(content, &self.proxy.memory);
        let seen = head::Seen::of(&head.headers);
        let caller = Caller::anybody(peer);
        async move {
            let mut record = Record::new(&self, &head.method);
            let page = Page::of(&head.headers, seen, &self.proxy.head);
            let forwarded = self.forward(caller, &mut head, seen, &content, &mut record);
            match forwarded.await {
                Ok(answer) => {
                    let (mut answer, session) = record.answered(answer);
                    // A WebSocket is open to whom its handshake was, and to nobody else.
                    if session.is_none() {
                        page.permit(answer.headers_mut());
                    }
                    (answer, session)
                }
                Err(error) => {
                    // Reading would tell a caller that waits for a 100 to go ahead.
                    if !seen.expectation {
                        Box::pin(content.drain(DRAIN, DRAIN_TIME)).await;
                    }
                    let mut answer = record.refused(&error);
                    if !content.is_complete() {
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(header::CONNECTION, close);
                    }
                    if !matches!(error, Error::Head(Rejection::Origin)) {
                        page.permit(answer.headers_mut());
                    }
                    (answer, None)
                }
            }
        }
    }

    /// A caller took nothing of its answer for `stall_timeout`.
    pub(crate) fn left_unread(&self) {
        let proxy = &*self.proxy;
        let labels = CutLabels {
            stalled: Stalled::Caller,
            reason: CutReason::Timeout,
        };
        proxy.metrics.answers_cut.get_or_create(&labels).inc();
        if let Some(answers) = proxy.unread.happened() {
            tracing::warn!(
                answers,
                "callers do not read their answers: their connections are reset"
            );
        }
        tracing::debug!("a caller did not read its answer");
    }
}

impl Handler for Forwarder {
    type Content = answer::Content;
    type Session = Box<live::Session>;

    fn handle(
        self: Rc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = (Response<Self::Content>, Option<Self::Session>)> {
        self.answer(peer, request)
    }

    fn stalls(content: &Self::Content) -> Option<&Rc<Stalls>> {
        content.stalls()
    }

    fn caller_stalled(&self) {
        self.left_unread();
    }

    async fn finish(&self) {
        self.finished().await;
    }
}
