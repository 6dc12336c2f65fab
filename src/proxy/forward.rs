//! The path of a request, in three functions: [`Forwarder::forward`] checks, routes, finds out whose
//! credentials are asked for; `send_as` gets them and sends; `replay` follows a 401. There is no loop:
//! a request is sent at most twice.
//!
//! Whatever is rare is boxed: every connection would have room for it, and every request would move
//! it about.

use std::task::{Context, Poll, Waker};

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts as CallerHead;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{self, Received};
use super::call::Call;
use super::record::Record;
use super::understood::{self, AuthCall};
use super::{Forwarder, Request, Rules, cors};
use crate::caller::{Authorized, Caller, authorize, authorize_instance};
use crate::credentials::{self, Credentials, Need, Obtained};
use crate::damoov::auth;
use crate::damoov::auth_requests::Endpoint;
use crate::damoov::routes::Credential;
use crate::damoov::user_changes::Change;
use crate::directory::Instance;
use crate::error::Error;
use crate::handed_out;
use crate::head;
use crate::headers::{self, Authorization, Renewal};
use crate::naming::{self, Bearer};
use crate::principal::InstanceId;
use crate::replay::{Content, NotKept};
use crate::upstream;

impl Forwarder {
    /// Checks a request, routes it, finds out whose credentials it asks for, and sends it the way
    /// that its route says.
    pub(super) async fn forward<'a>(
        &'a self,
        asked: &mut Request,
        record: &mut Record<'a>,
    ) -> Result<Received, Error> {
        let rules = record.rules;
        let Request {
            caller,
            head,
            seen,
            content,
        } = asked;
        let (caller, seen) = (*caller, *seen);
        let target = head::check(head, seen, &rules.head)?;
        let (prefix, path) = naming::cut_prefix(target.path())?;
        if seen.origin && cors::is_preflight(head) {
            return cors::answer_preflight(path, &head.headers, record);
        }
        let route = rules
            .routes
            .find(path, &head.method)
            .ok_or_else(|| rules.unknown(path))?;
        record.route = Some(route);
        if head::asks_for_websocket(head, seen, route.is_live())? {
            let request = taken(head, target.forwarded(path));
            return Box::pin(self.switch(caller, route, prefix, request, record)).await;
        }
        let bearer = match seen.authorization {
            true => Box::pin(self.bearer(rules, &caller, route.credential, &head.headers)).await?,
            false => Bearer::Absent,
        };
        let credential = route.credential;
        let named = naming::name(credential, prefix, bearer, &head.headers, &rules.directory)?;
        let change = match &*route.host {
            auth::HOST => Change::of(&head.method, path),
            _ => None,
        };
        let mut call = Call {
            rules,
            route,
            request: taken(head, target.forwarded(path)),
            change,
            content,
        };
        let Some(principal) = named.principal else {
            return Box::pin(self.send_as_nobody(caller, path, named.instance, call, record)).await;
        };
        headers::clean_request(&mut call.request.headers, Authorization::Dropped);
        record.principal = Some(principal.clone());
        let authorized = authorize(caller, &rules.directory, principal, named.instance)?;
        self.send_as(&authorized, &mut call, record).await
    }

    /// Sends a request on a route that attaches no JWT.
    async fn send_as_nobody(
        &self,
        caller: Caller,
        path: &str,
        instance: Option<InstanceId>,
        mut call: Call<'_>,
        record: &mut Record<'_>,
    ) -> Result<Received, Error> {
        let rules = call.rules;
        match call.route.credential {
            Credential::Answer => {
                let endpoint = Endpoint::at(path).ok_or_else(|| rules.unknown(path))?;
                let call = AuthCall::new(caller, endpoint, instance, call)?;
                return self.answer_auth(call, record).await;
            }
            Credential::Passthrough => {
                headers::clean_request(&mut call.request.headers, Authorization::Kept);
            }
            Credential::Instance => {
                headers::clean_request(&mut call.request.headers, Authorization::Dropped);
                let instance = authorize_instance(&rules.directory, instance)?;
                let (id, key) = instance_fields(instance)?;
                headers::attach_instance(&mut call.request.headers, id, key);
                if call.change == Some(Change::Registered) {
                    return self.register(caller, instance.id, call).await;
                }
            }
            // Naming has refused a request that names nobody there.
            Credential::User | Credential::Admin | Credential::UserOrAdmin => {
                return Err(naming::Error::DeviceTokenMissing.into());
            }
        }
        self.send(&call, call.content.view()).await
    }

    /// Sends a request with somebody's credentials.
    async fn send_as(
        &self,
        authorized: &Authorized,
        call: &mut Call<'_>,
        record: &mut Record<'_>,
    ) -> Result<Received, Error> {
        let need = match call.can_be_replayed() {
            true => Need::Usable,
            false => Need::Fresh,
        };
        let Obtained {
            credentials,
            renewed,
        } = self.proxy.provider.get(authorized, need).await?;
        record.log_name = Some(credentials.log_name());
        if renewed {
            record.renewal = Renewal::Before;
        }
        let authorization = credentials.authorization().clone();
        headers::attach_authorization(&mut call.request.headers, authorization);
        let first = self.send(call, call.content.view()).await?;
        if first.is_unauthorized() {
            let replayed = self.replay(first, &credentials, authorized, call, record);
            return Box::pin(replayed).await;
        }
        credentials.accept();
        match call.change {
            None => Ok(first),
            Some(change) => {
                let sent = || understood::sent(&call.request.headers, call.content.recorded()?);
                let principal = authorized.principal();
                Box::pin(self.follow(change, call, principal, first, sent)).await
            }
        }
    }

    /// `first` is a 401: renews the rejected credentials and sends the request once more, if both can
    /// be done; else the 401 is the answer.
    async fn replay(
        &self,
        first: Received,
        rejected: &Credentials,
        authorized: &Authorized,
        call: &mut Call<'_>,
        record: &mut Record<'_>,
    ) -> Result<Received, Error> {
        let provider = &self.proxy.provider;
        if !call.can_be_replayed() {
            provider.renew_without_replay(authorized, rejected);
            return Ok(first);
        }
        // Those who need no renewal must not wait for a connection that waits for one; and reading
        // on closes it.
        let first = first.detached().await;
        let Some(renewed) = provider.renew(authorized, rejected).await? else {
            return Ok(first);
        };
        record.renewal = Renewal::Before;
        let kept = match call.content.kept().await {
            Ok(kept) => kept,
            Err(NotKept::Overflowed) => {
                renewed.impossible();
                return Ok(first);
            }
            Err(NotKept::Failed(failure)) => return Err(failure.into()),
        };
        drop(first);
        let sent = call.change.and_then(|_| kept.whole());
        let authorization = renewed.credentials().authorization().clone();
        headers::attach_authorization(&mut call.request.headers, authorization);
        record.renewal = Renewal::Replayed;
        let second = match self.send(call, kept).await {
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
        let Some(change) = call.change else {
            return Ok(second);
        };
        let sent = || understood::sent(&call.request.headers, sent?);
        self.follow(change, call, authorized.principal(), second, sent)
            .await
    }

    /// Whom the caller's bearer names, on routes where that matters.
    pub(super) async fn bearer(
        &self,
        rules: &Rules,
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
        let hand_out = rules.auth_endpoints.hand_out;
        let holder = self.proxy.handed_out.holder(hand_out, caller, token);
        Ok(holder.await?)
    }

    /// Sends the request once, with this content. If the caller's content fails, that is the error.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        content: Content<Incoming>,
    ) -> Result<Received, Error> {
        let now = Instant::now();
        let within = call.rules.response_timeout(call.route);
        let overdue = call.content.upstream_deadline(within, now, &self.timers);
        let target = call.rules.target(call.route);
        let failed = |error| match call.content.failure() {
            Some(failure) => Error::Content(failure),
            None => Error::Upstream(target.failed(error)),
        };
        let sent = self.pool.send(target, &call.request, content, now, overdue);
        let answer = sent.await.map_err(failed)?;
        let coding = match call.rules.in_band_401 {
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
}

/// The request of a caller as it goes to `target`; its fields are moved, not copied.
fn taken(head: &mut CallerHead, target: PathAndQuery) -> upstream::Head {
    upstream::Head {
        method: head.method.clone(),
        target,
        headers: std::mem::take(&mut head.headers),
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
