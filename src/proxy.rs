//! The path of a request: [`Forwarder::answer`] answers whatever happens; `forward` beside it is the
//! path itself. Words no error, opens no socket.

pub mod answer;
mod call;
mod cors;
mod forward;
mod handshake;
mod record;
pub mod rules;
mod understood;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::Response;
use http::header::{self, HeaderValue};
use http::request::Parts as CallerHead;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use self::cors::Page;
use self::record::Record;
pub use self::rules::Rules;
use self::rules::{Held, InForce};
use crate::auth_endpoints::AuthEndpoints;
use crate::caller::Caller;
use crate::credentials::Provider;
use crate::error::Error;
use crate::handed_out::HandedOut;
use crate::head::{self, Rejection};
use crate::live::{self, Live};
use crate::metrics::{CutLabels, CutReason, Metrics, Stalled, Tally};
use crate::peer::Peer;
use crate::replay::{Memory, Recorder};
use crate::server::Handler;
use crate::stalls::Stalls;
use crate::telemetry::access::{AccessLog, AccessWriter};
use crate::telemetry::seldom::Seldom;
use crate::timer::TimerPool;
use crate::upstream::pool::Pool;

/// Content left unread behind an early answer is swallowed up to this, so that the caller gets to
/// read the answer; behind more, the connection is closed.
const DRAIN: u64 = 64 * 1024;
/// And for as long as this.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What a proxy is made of.
pub struct Parts {
    /// What the configuration says of requests.
    pub rules: Rules,
    /// Gives out credentials.
    pub provider: Provider,
    /// Knows the tokens that callers were given.
    pub handed_out: Arc<HandedOut>,
    /// Bytes of content that are kept for replays, over all requests.
    pub replay_memory: u64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are recorded.
    pub access: AccessLog,
}

/// What all workers share: the rules that are in force, and what lives on when they change.
pub struct Proxy {
    /// Replaced as a whole by [`Proxy::publish`]; each worker looks at it once a request.
    rules: Arc<ArcSwap<Rules>>,
    provider: Provider,
    auth_endpoints: AuthEndpoints,
    handed_out: Arc<HandedOut>,
    /// Counts the content that requests keep for a replay, against one limit for all.
    memory: Arc<Memory>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    /// Answers that callers left unread: told of now and then.
    unread: Seldom,
    /// The label of requests that no route was found for.
    no_route: Arc<str>,
}

/// Answers the requests of one worker: what all workers share, and the worker's own connections.
pub struct Forwarder {
    proxy: Arc<Proxy>,
    /// As this worker sees them.
    rules: RefCell<InForce>,
    pool: Rc<Pool>,
    tally: Tally,
    access: AccessWriter,
    timers: TimerPool,
    /// Registrations and forwarded logins under way, which a caller's hang-up does not end; the worker
    /// waits for them.
    unfinished: RefCell<JoinSet<()>>,
}

/// What a caller asks.
struct Request {
    caller: Caller,
    head: CallerHead,
    /// What the first look at the head found.
    seen: head::Seen,
    content: Recorder<Incoming>,
}

impl Proxy {
    /// Answers by `rules` until others are published.
    pub fn new(parts: Parts) -> Proxy {
        let Parts {
            rules,
            provider,
            handed_out,
            replay_memory,
            metrics,
            access,
        } = parts;
        let no_route: Arc<str> = "none".into();
        let labels = rules.routes.routes().map(|route| route.label());
        metrics.expect(labels.chain([&no_route]));
        Proxy {
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            auth_endpoints: AuthEndpoints::new(provider.clone(), handed_out.clone()),
            memory: Arc::new(Memory::new(
                replay_memory,
                metrics.replay_memory_bytes.clone(),
            )),
            live: Arc::new(Live::new(
                provider.clone(),
                handed_out.clone(),
                metrics.clone(),
            )),
            provider,
            handed_out,
            metrics,
            access,
            unread: Seldom::new(),
            no_route,
        }
    }

    /// Puts other rules in force. Requests under way are answered by those that they began with.
    pub fn publish(&self, rules: Rules) {
        let labels = rules.routes.routes().map(|route| route.label());
        self.metrics.expect(labels);
        self.rules.store(Arc::new(rules));
    }

    /// The hosts that routes lead to, each with how many connections to it are open.
    pub fn hosts(&self) -> Vec<(String, u64)> {
        let rules = self.rules.load();
        let hosts = rules.targets.iter();
        hosts
            .map(|(host, target)| (host.to_owned(), target.connections()))
            .collect()
    }

    /// Bytes of content that are kept for replays now, and at most.
    pub fn replay_memory(&self) -> (u64, u64) {
        self.memory.reserved()
    }

    /// A host that cannot be connected to, and since when.
    pub fn unreachable(&self) -> Option<(String, SystemTime)> {
        let rules = self.rules.load();
        let mut hosts = rules.targets.iter();
        let (host, since) = hosts.find_map(|(_, target)| target.unreachable())?;
        Some((host.to_owned(), since))
    }
}

impl Forwarder {
    /// For the current thread, which must run a local runtime.
    pub fn new(proxy: Arc<Proxy>) -> Forwarder {
        let mut rules = InForce::new(&proxy.rules);
        let first = rules.now(|_| {});
        Forwarder {
            pool: Rc::new(Pool::new(&first.targets, first.limits, &proxy.metrics)),
            rules: RefCell::new(rules),
            tally: Tally::new(proxy.metrics.clone()),
            access: proxy.access.writer(),
            timers: TimerPool::default(),
            proxy,
            unfinished: RefCell::default(),
        }
    }

    /// The rules for a request that begins now.
    fn rules(&self) -> Rc<Held> {
        let mut rules = self.rules.borrow_mut();
        rules.now(|new| self.pool.reconcile(&new.targets, new.limits))
    }

    /// Answers a request, whatever happens; counts and logs it once. With a 101 comes the session
    /// that takes the connection over.
    pub fn answer(
        self: Rc<Self>,
        peer: Peer,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = (Response<answer::Content>, Option<Box<live::Session>>)> + 'static
    {
        let rules = self.rules();
        let (head, content) = request.into_parts();
        let mut asked = Request {
            caller: Caller::anybody(peer),
            seen: head::Seen::of(&head.headers),
            head,
            content: Recorder::new(content, &self.proxy.memory, rules.replay_limit),
        };
        async move {
            let mut record = Record::new(&self, &rules, &asked.head, asked.seen);
            let page = Page::of(&asked.head.headers, asked.seen, &rules.head);
            match self.forward(&mut asked, &mut record).await {
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
                    if !asked.seen.expectation {
                        Box::pin(asked.content.drain(DRAIN, DRAIN_TIME)).await;
                    }
                    let mut answer = record.refused(&error);
                    if !asked.content.is_complete() {
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
        request: http::Request<Incoming>,
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
