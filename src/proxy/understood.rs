//! Calls that the proxy understands: the Auth endpoints, which it answers; registrations, whose
//! answer it keeps; moves and deletions of users, which end what it holds of them.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::answer::Received;
use super::call::Call;
use super::record::Record;
use super::{Forwarder, Proxy};
use crate::auth_endpoints::{self, Registering, Reply, Terms};
use crate::caller::Caller;
use crate::content_coding::{self, LONGEST, understood};
use crate::credentials::{self, LoginSlot, SlotEnd};
use crate::damoov::auth;
use crate::damoov::auth_requests::Endpoint;
use crate::damoov::retry_after::retry_after;
use crate::damoov::user_changes::{self, Change};
use crate::error::Error;
use crate::head::Rejection;
use crate::headers::{self, Authorization, Renewal};
use crate::principal::{InstanceId, Principal};
use crate::replay::{self, Content, Recorder};
use crate::upstream::{self, Target, pool};

/// Registrations and forwarded logins under way on one worker at most when another registration comes:
/// each holds its content, even if its caller hangs up.
const MOST_UNFINISHED: usize = 256;

/// A call to an Auth endpoint.
pub(super) struct AuthCall<'a> {
    caller: Caller,
    endpoint: Endpoint,
    /// What the header InstanceId names.
    instance: Option<InstanceId>,
    /// How it goes on, if it is forwarded.
    call: Call<'a>,
}

impl<'a> AuthCall<'a> {
    pub(super) fn new(
        caller: Caller,
        endpoint: Endpoint,
        instance: Option<InstanceId>,
        call: Call<'a>,
    ) -> Result<AuthCall<'a>, Error> {
        if call.request.method != Method::POST {
            return Err(Rejection::Method.into());
        }
        Ok(AuthCall {
            caller,
            endpoint,
            instance,
            call,
        })
    }
}

impl Forwarder {
    /// Answers a call to an Auth endpoint, or lets Damoov answer it.
    pub(super) async fn answer_auth(
        &self,
        auth: AuthCall<'_>,
        record: &mut Record<'_>,
    ) -> Result<Received, Error> {
        let proxy = &*self.proxy;
        let whole = read(auth.call.content).await?;
        let said = understood(&auth.call.request.headers, whole.clone())?;
        let call = auth_endpoints::Call {
            caller: auth.caller,
            endpoint: auth.endpoint,
            instance: auth.instance,
            content: &said,
        };
        let rules = auth.call.rules;
        let terms = Terms {
            settings: rules.auth_endpoints,
            directory: &rules.directory,
        };
        let reply = proxy.auth_endpoints.answer(call, terms).await?;
        match reply {
            Reply::Answered {
                principal,
                renewed,
                content,
            } => {
                record.principal = Some(principal);
                if renewed {
                    record.renewal = Renewal::Before;
                }
                Ok(Received::own(content))
            }
            Reply::Forward => self.forward_auth(auth, whole).await,
        }
    }

    /// Lets Damoov answer.
    async fn forward_auth(&self, auth: AuthCall<'_>, content: Bytes) -> Result<Received, Error> {
        let AuthCall {
            endpoint,
            instance,
            mut call,
            ..
        } = auth;
        let headers = &mut call.request.headers;
        headers::clean_request(headers, Authorization::Dropped);
        if let Some(instance) = instance {
            let id = HeaderValue::from_str(&instance.to_string()).expect("a UUID is visible ASCII");
            headers::attach_instance_id(headers, id);
        }
        // What it says counts, whatever codings the caller would take.
        ask_for_plain(headers);
        match endpoint {
            Endpoint::Login => {
                let slot = self.proxy.provider.take_login((instance, &content)).await?;
                self.forward_login(slot, call, Content::of(content)).await
            }
            Endpoint::RefreshToken => self.send(&call, Content::of(content)).await,
        }
    }

    /// Everything that logs in takes a slot of the budget, forwarded logins too. What becomes of the
    /// slot depends on whether the login was sent, so that it runs in a task of its own, whether its
    /// caller stays or not.
    async fn forward_login(
        &self,
        slot: LoginSlot,
        call: Call<'_>,
        content: Content<Incoming>,
    ) -> Result<Received, Error> {
        let (pool, target) = (self.pool.clone(), call.rules.target(call.route).clone());
        let within = call.rules.response_timeout(call.route);
        let request = call.request;
        let (answered, answer) = oneshot::channel();
        self.spawn_to_completion(async move {
            let overdue = sleep(within);
            let sent = pool.send(&target, &request, content, Instant::now(), overdue);
            let received = match sent.await {
                Ok(answer) => Received::unread(answer).gathered(within).await,
                Err(error) => Err(error),
            };
            let end = match &received {
                Ok(answer) if answer.inner_status() == StatusCode::TOO_MANY_REQUESTS.as_u16() => {
                    let retry_after = retry_after(answer.headers());
                    SlotEnd::Limited { retry_after }
                }
                Err(error) if error.is_unsent() => SlotEnd::NotSent,
                Ok(_) | Err(_) => SlotEnd::Answered,
            };
            slot.end(end).await;
            let received = received.map_err(|error| target.failed(error));
            // Refused only if the caller has left.
            let _ = answered.send(received);
        });
        match answer.await {
            Ok(received) => Ok(received?),
            // The worker ends, and the task with it.
            Err(_) => Err(credentials::Error::Closing.into()),
        }
    }

    /// Sends a registration, once. From then on there is a user, whether its caller stays or not:
    /// the rest runs in a task of its own.
    pub(super) async fn register(
        &self,
        caller: Caller,
        instance: InstanceId,
        call: Call<'_>,
    ) -> Result<Received, Error> {
        let Call {
            rules,
            route,
            mut request,
            content,
            ..
        } = call;
        let content = read(content).await?;
        let (proxy, pool) = (self.proxy.clone(), self.pool.clone());
        let target = rules.target(route).clone();
        self.has_room_for_a_registration(&target)?;
        let registering = Registering {
            caller,
            instance,
            hand_out: rules.auth_endpoints.hand_out,
            expected: proxy.provider.expect_tokens()?,
        };
        ask_for_plain(&mut request.headers);
        let within = rules.response_timeout(route);
        let (answered, answer) = oneshot::channel();
        self.spawn_to_completion(async move {
            let overdue = sleep(within);
            let received = pool
                .send(
                    &target,
                    &request,
                    Content::<Incoming>::of(content),
                    Instant::now(),
                    overdue,
                )
                .await;
            let kept = match received {
                Ok(received) => keep(&proxy, &registering, received, within).await,
                Err(error) => {
                    if let upstream::Error::Framing = error {
                        let provider = &proxy.provider;
                        provider.registration_unreadable(None, auth::Unreadable::Framing);
                    }
                    Err(error)
                }
            };
            let kept = kept.map_err(|error| target.failed(error));
            // Refused only if the caller has left.
            let _ = answered.send(kept);
        });
        match answer.await {
            Ok(kept) => Ok(kept?),
            // The worker ends, and the task with it.
            Err(_) => Err(credentials::Error::Closing.into()),
        }
    }

    /// What the store believes of a user follows what the API was told about it: its credentials
    /// are worth nothing any more. `sent` is what the content of the request says, which went out
    /// as `sender`. Returns the answer for the caller.
    pub(super) async fn follow(
        &self,
        change: Change,
        call: &Call<'_>,
        sender: &Principal,
        answer: Received,
        sent: impl FnOnce() -> Option<Bytes>,
    ) -> Result<Received, Error> {
        if !answer.succeeded() {
            return Ok(answer);
        }
        // One that is cut has succeeded, as far as is known.
        let answer = gathered(call, answer).await;
        if answer.as_ref().is_ok_and(|answer| !answer.succeeded()) {
            return answer;
        }
        let moved = || user_changes::moved(&sent()?);
        let changed = match change {
            Change::Deleted(user) => Some((Principal::User(user), None)),
            Change::Moved => moved().map(|(user, to)| (Principal::User(user), to)),
            Change::Joined => sender.is_user().then(|| (sender.clone(), None)),
            Change::Registered => None,
        };
        if let Some((principal, now_in)) = changed {
            self.forget(principal, now_in).await;
        }
        answer
    }

    /// Forgets a user that is deleted, or moved to this instance.
    async fn forget(&self, principal: Principal, now_in: Option<InstanceId>) {
        let provider = &self.proxy.provider;
        let followed = async {
            provider.forget(&principal).await?;
            match now_in {
                Some(instance) => provider.registered(&principal, instance).await,
                None => Ok(()),
            }
        };
        if let Err(error) = followed.await {
            tracing::warn!(
                principal = provider.log_name(&principal).as_str(),
                %error,
                "a user was deleted or moved, but its credentials could not be forgotten"
            );
        }
    }

    /// Returns once no registration and no forwarded login is under way.
    pub(crate) async fn finished(&self) {
        poll_fn(|cx| {
            let mut under_way = self.unfinished.borrow_mut();
            while ready!(under_way.poll_join_next(cx)).is_some() {}
            Poll::Ready(())
        })
        .await;
    }

    fn has_room_for_a_registration(&self, target: &Target) -> Result<(), upstream::Failed> {
        let mut under_way = self.unfinished.borrow_mut();
        while under_way.try_join_next().is_some() {}
        match under_way.len() < MOST_UNFINISHED {
            true => Ok(()),
            false => Err(target.failed(upstream::Error::Busy)),
        }
    }

    /// Runs `call` to its end, or to the worker's.
    fn spawn_to_completion(&self, call: impl Future<Output = ()> + 'static) {
        self.unfinished.borrow_mut().spawn_local(call);
    }
}

/// The answer to `call` with its content in memory, if it can be.
async fn gathered(call: &Call<'_>, answer: Received) -> Result<Received, Error> {
    let (rules, route) = (call.rules, call.route);
    let gathered = answer.gathered(rules.response_timeout(route)).await;
    Ok(gathered.map_err(|error| rules.target(route).failed(error))?)
}

/// What the content of a request that was sent says, if that can be told.
pub(super) fn sent(headers: &HeaderMap, content: Bytes) -> Option<Bytes> {
    understood(headers, content).ok()
}

/// Asks for content without a coding. Not asking for any would allow all (RFC 9110 §12.5.3).
fn ask_for_plain(headers: &mut HeaderMap) {
    let identity = HeaderValue::from_static("identity");
    headers.insert(header::ACCEPT_ENCODING, identity);
}

/// All of a caller's content, as it came.
async fn read(content: &Recorder<Incoming>) -> Result<Bytes, Error> {
    match Limited::new(content.view(), LONGEST).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::ContentTooLarge),
        Err(_) => Err(content.failure().unwrap_or(replay::Failure::Cut).into()),
    }
}

/// The answer to a registration with tokens of our own, once the real ones are kept.
async fn keep(
    proxy: &Proxy,
    registering: &Registering,
    answer: Response<pool::AnswerContent>,
    within: Duration,
) -> Result<Received, upstream::Error> {
    let received = Received::unread(answer);
    let status = received.status();
    let unreadable = |why| {
        if status.is_success() {
            let status = Some(status.as_u16());
            proxy.provider.registration_unreadable(status, why);
        }
        upstream::Error::Unreadable
    };
    let whole = received.whole(LONGEST, within).await;
    let (mut head, mut content) = whole.map_err(|error| match error {
        upstream::Error::Unreadable => unreadable(content_coding::Unreadable::TooLong.into()),
        error => error,
    })?;
    if status.is_success() {
        let kept = async {
            let said = understood(&head.headers, content)?;
            let endpoints = &proxy.auth_endpoints;
            endpoints.registered(registering, said).await
        };
        content = kept.await.map_err(unreadable)?;
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::CONTENT_ENCODING);
    }
    Ok(Received::with_content(head, content))
}
