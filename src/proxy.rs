//! The path of a request, top to bottom: [`Path::answer`] answers whatever happens, the function
//! below it is the path itself. Words no error, opens no socket.

pub mod answer;
mod cors;
mod handshake;
mod record;
mod understood;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts as CallerHead;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::answer::Received;
use self::cors::Page;

use self::record::Record;
use crate::auth_endpoints::AuthEndpoints;
use crate::caller::{Caller, authorize, authorize_instance};
use crate::credentials::{self, Need, Obtained, Provider};
use crate::damoov::auth;
use crate::damoov::auth_requests::Endpoint;
use crate::damoov::routes::{Credential, Replay, Route, Table};
use crate::damoov::user_changes::Change;
use crate::directory::{Directory, Instance};
use crate::error::Error;
use crate::handed_out::{self, HandedOut};
use crate::head::{self, Rejection};
use crate::headers::{self, Authorization, Passed};
use crate::live::{self, Live};
use crate::metrics::{CutLabels, CutReason, Metrics, Stalled, Tally};
use crate::naming::{self, Bearer};
use crate::peer::Peer;
use crate::replay::{self, Content, Memory, NotKept, Recorder};
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

/// Everything that the path needs.
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

/// The path on one worker: what is shared, and the worker's own connections.
pub struct Path {
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

impl Path {
    /// The path for the current thread, which must run a local runtime.
    pub fn new(proxy: Arc<Proxy>) -> Path {
        Path {
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
            let passed = self.pass(caller, &mut head, seen, &content, &mut record);
            match passed.await {
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

    /// The path itself. There is no loop: a request is sent at most twice.
    ///
    /// Whatever is rare is boxed: every connection would have room for it, and every request would
    /// move it about.
    async fn pass<'a>(
        &'a self,
        caller: Caller,
        head: &mut CallerHead,
        seen: head::Seen,
        content: &Recorder<Incoming>,
        record: &mut Record<'a>,
    ) -> Result<Received, Error> {
        let proxy = &*self.proxy;
        let target = crate::head::check(head, seen, &proxy.head)?;
        let (prefix, path) = naming::cut_prefix(target.path())?;
        if seen.origin && cors::is_preflight(head) {
            return self.permission(path, &head.headers, record);
        }
        let route = proxy
            .routes
            .find(path, &head.method)
            .ok_or_else(|| proxy.unknown(path))?;
        record.route = Some(route);
        if head::asks_for_websocket(head, seen, route.is_live())? {
            let target = target.forwarded(path);
            return Box::pin(self.switch(caller, route, prefix, head, target, record)).await;
        }
        let bearer = match seen.authorization {
            true => Box::pin(self.bearer(&caller, route.credential, &head.headers)).await?,
            false => Bearer::Absent,
        };
        let named = naming::name(
            route.credential,
            prefix,
            bearer,
            &head.headers,
            &proxy.directory,
        )?;
        let change = match &*route.host {
            auth::HOST => Change::of(&head.method, path),
            _ => None,
        };

        let mut request = upstream::Head {
            method: head.method.clone(),
            target: target.forwarded(path),
            headers: std::mem::take(&mut head.headers),
        };
        match route.credential {
            Credential::Answer => {
                let endpoint = Endpoint::at(path).ok_or_else(|| proxy.unknown(path))?;
                let call =
                    understood::AuthCall::new(caller, endpoint, route, named.instance, request)?;
                return Box::pin(self.answer_auth(call, content, record)).await;
            }
            Credential::Passthrough => {
                headers::clean_request(&mut request.headers, Authorization::Kept);
            }
            Credential::Instance => {
                headers::clean_request(&mut request.headers, Authorization::Dropped);
                let instance = authorize_instance(&proxy.directory, named.instance)?;
                let (id, key) = instance_fields(instance)?;
                headers::attach_instance(&mut request.headers, id, key);
                if change == Some(Change::Registered) {
                    let instance = instance.id;
                    let registering = self.register(caller, route, request, instance, content);
                    return Box::pin(registering).await;
                }
            }
            Credential::User | Credential::Admin | Credential::UserOrAdmin => {
                headers::clean_request(&mut request.headers, Authorization::Dropped);
            }
        }
        let Some(principal) = named.principal else {
            let sent = self.send(route, &request, content, content.view());
            return Box::pin(sent).await;
        };
        record.principal = Some(principal.clone());
        let authorized = authorize(caller, &proxy.directory, principal, named.instance)?;

        let may_replay = route.replay == Replay::On401 && content.keeps();
        let need = if may_replay {
            Need::Usable
        } else {
            Need::Fresh
        };
        let Obtained {
            credentials,
            renewed,
        } = proxy.provider.get(&authorized, need).await?;
        record.log_name = Some(credentials.log_name());
        if renewed {
            record.passed = Passed::Renewed;
        }
        headers::attach_authorization(&mut request.headers, credentials.authorization().clone());
        let first = self.send(route, &request, content, content.view()).await?;
        if !first.is_unauthorized() {
            credentials.accept();
            return match change {
                Some(change) => {
                    let sent = || understood::sent(&request.headers, content.recorded()?);
                    let principal = authorized.principal();
                    Box::pin(self.follow(change, principal, route, first, sent)).await
                }
                None => Ok(first),
            };
        }

        if route.replay == Replay::Never || !content.keeps() {
            proxy
                .provider
                .renew_without_replay(&authorized, &credentials);
            return Ok(first);
        }
        // Those who need no renewal must not wait for a connection that waits for one; and reading
        // on closes it.
        let first = Box::pin(first.detached()).await;
        let renewed = Box::pin(proxy.provider.renew(&authorized, &credentials));
        let Some(renewed) = renewed.await? else {
            return Ok(first);
        };
        record.passed = Passed::Renewed;
        let kept = match Box::pin(content.kept()).await {
            Ok(kept) => kept,
            Err(NotKept::Overflowed) => {
                renewed.impossible();
                return Ok(first);
            }
            Err(NotKept::Failed(failure)) => return Err(failure.into()),
        };
        drop(first);
        let sent = change.and_then(|_| kept.whole());
        let authorization = renewed.credentials().authorization();
        headers::attach_authorization(&mut request.headers, authorization.clone());
        record.passed = Passed::Replayed;
        let second = match Box::pin(self.send(route, &request, content, kept)).await {
            Ok(second) => second,
            Err(error) => {
                renewed.failed();
                return Err(error);
            }
        };
        if second.is_unauthorized() {
            renewed.unauthorized();
            return Ok(second);
        }
        renewed.ok();
        match change {
            Some(change) => {
                let sent = || understood::sent(&request.headers, sent?);
                let principal = authorized.principal();
                Box::pin(self.follow(change, principal, route, second, sent)).await
            }
            None => Ok(second),
        }
    }

    /// Whom the caller's bearer names, on routes where that matters.
    async fn bearer(
        &self,
        caller: &Caller,
        credential: Credential,
        headers: &HeaderMap,
    ) -> Result<Bearer, Error> {
        match credential {
            Credential::User | Credential::Admin | Credential::UserOrAdmin => {}
            Credential::Passthrough => {
                let mut lines = headers::lines(headers, &header::AUTHORIZATION);
                return match lines.any(|line| handed_out::is_within(line.as_bytes())) {
                    true => Err(naming::Error::BearerOurs.into()),
                    false => Ok(Bearer::Absent),
                };
            }
            Credential::Instance | Credential::Answer => return Ok(Bearer::Absent),
        }
        let Some(token) = headers::bearer(headers) else {
            return Ok(Bearer::Absent);
        };
        Ok(self.proxy.handed_out.holder(caller, token).await?)
    }

    /// Sends the request once. If the caller's content fails, that is the error.
    async fn send(
        &self,
        route: &Route,
        request: &upstream::Head,
        recorder: &Recorder<Incoming>,
        content: Content<Incoming>,
    ) -> Result<Received, Error> {
        let proxy = &*self.proxy;
        let now = Instant::now();
        let within = proxy.response_timeout(route);
        let overdue = recorder.upstream_deadline(within, now, &self.timers);
        let target = &proxy.targets[&*route.host];
        let failed = |error| match recorder.failure() {
            Some(failure) => Error::Content(failure),
            None => Error::Upstream(target.failed(error)),
        };
        let sent = self.pool.send(target, request, content, now, overdue);
        let answer = sent.await.map_err(failed)?;
        let coding = match proxy.in_band_401 {
            true => answer::may_hold_a_401(&answer),
            false => None,
        };
        let mut received = Received::unread(answer);
        let Some(coding) = coding else {
            return Ok(received);
        };
        // The first piece is usually there, and needs neither a timer nor room in this future.
        let mut nobody = Context::from_waker(Waker::noop());
        match received.poll_look(coding, &mut nobody) {
            Poll::Ready(looked) => looked.map_err(failed)?,
            Poll::Pending => {
                let looked = Box::pin(received.looked_into(coding, within)).await;
                return looked.map_err(failed);
            }
        }
        Ok(received)
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

impl Handler for Path {
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

/// InstanceId and InstanceKey as fields. A key that cannot stand in a field is none of Damoov's.
fn instance_fields(instance: &Instance) -> Result<(HeaderValue, HeaderValue), credentials::Error> {
    let field =
        |text: &str| HeaderValue::from_str(text).map_err(|_| credentials::Error::LoginRejected);
    let mut key = field(instance.key.expose())?;
    key.set_sensitive(true);
    Ok((field(&instance.id.to_string())?, key))
}
