//! Live tracking: WebSocket on the one route that has it (damoov/API.md, "Live tracking").
//! [`Live::open`] shakes hands with upstream, with the credentials of the principal that is named so
//! far; the [`Session`] that comes of it gives the caller's first message a token, and passes
//! everything else on as it is.

mod direction;
mod end;
mod frames;
mod message;
mod query;
mod session;
mod watch;

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Response, StatusCode};

use crate::caller::{Authorized, Caller};
use crate::credentials::{Credentials, Need, Obtained, Provider};
use crate::directory::Directory;
use crate::error::Error;
use crate::handed_out::{self, HandOut, HandedOut};
use crate::head::Rejection;
use crate::headers::{self, Renewal};
use crate::metrics::Metrics;
use crate::naming::{self, Bearer};
use crate::principal::InstanceId;
use crate::upstream::switch::{self, Switcher, UpgradeAnswer};
use crate::upstream::{self, Target};

pub use self::session::Session;

/// What every session needs. One for all workers.
pub struct Live {
    provider: Provider,
    /// Knows the tokens that callers were given.
    handed_out: Arc<HandedOut>,
    switcher: Switcher,
    metrics: Arc<Metrics>,
}

/// A handshake that a caller asks for.
pub struct Handshake<'a> {
    /// Where it goes.
    pub target: &'a Target,
    /// The caller's, cleaned.
    pub head: upstream::Head,
    /// Who asks.
    pub caller: Caller,
    /// Whose credentials it gets, if anybody is named so far.
    pub authorized: Option<Authorized>,
    /// The instance that the caller named, if it did.
    pub instance: Option<InstanceId>,
    /// Who is configured, for as long as the session lasts.
    pub directory: Arc<Directory>,
    /// What callers are given for real tokens, for as long as the session lasts.
    pub hand_out: HandOut,
    /// What the connection may do.
    pub limits: switch::Limits,
}

/// What became of a handshake.
pub struct Opened {
    /// What the credentials went through.
    pub renewal: Renewal,
    /// Upstream's answer: a 101, which still has to be cleaned, or anything else, whole.
    pub answer: Response<Option<Bytes>>,
    /// With a 101: what takes the caller's connection over.
    pub session: Option<Session>,
}

impl Live {
    /// Sessions of principals that `provider` has credentials for.
    pub fn new(provider: Provider, handed_out: Arc<HandedOut>, metrics: Arc<Metrics>) -> Live {
        Live {
            provider,
            handed_out,
            switcher: Switcher::default(),
            metrics,
        }
    }

    /// Whom a token names.
    async fn holder(
        &self,
        hand_out: HandOut,
        caller: &Caller,
        token: &str,
    ) -> Result<Bearer, Error> {
        Ok(self.handed_out.holder(hand_out, caller, token).await?)
    }

    /// Whom the bearer and the tokens in the query name together.
    pub async fn bearer(
        &self,
        hand_out: HandOut,
        caller: &Caller,
        bearer: Bearer,
        query: Option<&str>,
    ) -> Result<Bearer, Error> {
        let mut named = bearer;
        for token in query::tokens(query) {
            named = match (named, self.holder(hand_out, caller, &token).await?) {
                (Bearer::Ours(one), Bearer::Ours(other)) if one != other => {
                    return Err(naming::Error::Conflict.into());
                }
                (_, Bearer::Void) => return Err(naming::Error::BearerVoid.into()),
                (_, Bearer::Ours(one)) => Bearer::Ours(one),
                (Bearer::Absent, other) => other,
                (named, _) => named,
            };
        }
        Ok(named)
    }

    /// Shakes hands with upstream, with the credentials of the principal that is named. Like any other
    /// request it is sent at most twice.
    pub async fn open(self: &Arc<Self>, handshake: Handshake<'_>) -> Result<Opened, Error> {
        let Handshake {
            target,
            mut head,
            caller,
            authorized,
            instance,
            directory,
            hand_out,
            limits,
        } = handshake;
        // A caller that cannot be read cannot be given a token.
        head.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        headers::attach_upgrade(&mut head.headers);
        keeps_own_tokens(&head)?;
        let (answer, renewal) = match &authorized {
            None => (
                self.switcher.ask(target, &head, limits).await?,
                Renewal::None,
            ),
            Some(authorized) => self.ask_for(authorized, target, &mut head, limits).await?,
        };
        Ok(match answer {
            UpgradeAnswer::Refused(answer) => Opened {
                renewal,
                answer,
                session: None,
            },
            UpgradeAnswer::Switched(mut upstream) => Opened {
                renewal,
                answer: switching(mem::take(&mut upstream.headers)),
                session: Some(Session {
                    live: self.clone(),
                    upstream,
                    caller,
                    authorized,
                    instance,
                    directory,
                    hand_out,
                }),
            },
        })
    }

    async fn ask_for(
        &self,
        authorized: &Authorized,
        target: &Target,
        head: &mut upstream::Head,
        limits: switch::Limits,
    ) -> Result<(UpgradeAnswer, Renewal), Error> {
        let Obtained {
            credentials,
            renewed,
        } = self.provider.get(authorized, Need::Usable).await?;
        let renewal = match renewed {
            true => Renewal::Before,
            false => Renewal::None,
        };
        attach(head, &credentials)?;
        let first = self.switcher.ask(target, head, limits).await?;
        if !is_unauthorized(&first) {
            credentials.accept();
            return Ok((first, renewal));
        }
        let Some(renewed) = self.provider.renew(authorized, &credentials).await? else {
            return Ok((first, renewal));
        };
        attach(head, renewed.credentials())?;
        let second = match self.switcher.ask(target, head, limits).await {
            Ok(second) => second,
            Err(error) => {
                renewed.failed();
                return Err(error.into());
            }
        };
        match is_unauthorized(&second) {
            true => renewed.unauthorized(),
            false => renewed.ok(),
        }
        Ok((second, Renewal::Replayed))
    }
}

/// What is left of a handshake carries no token of ours: clients that cannot set Authorization use
/// other fields. Those in the query are replaced.
fn keeps_own_tokens(head: &upstream::Head) -> Result<(), naming::Error> {
    let mut fields = head.headers.values();
    let in_fields = fields.any(|value| handed_out::is_within(value.as_bytes()));
    match in_fields || query::holds_own_token(head.target.query()) {
        true => Err(naming::Error::BearerOurs),
        false => Ok(()),
    }
}

/// Puts a token where the API looks for one in a handshake.
fn attach(head: &mut upstream::Head, credentials: &Credentials) -> Result<(), Rejection> {
    headers::attach_authorization(&mut head.headers, credentials.authorization().clone());
    if query::tokens(head.target.query()).next().is_some() {
        head.target = query::with_token(&head.target, credentials.token())
            .map_err(|_| Rejection::TargetTooLong)?;
    }
    Ok(())
}

fn is_unauthorized(answer: &UpgradeAnswer) -> bool {
    matches!(answer, UpgradeAnswer::Refused(answer) if answer.status() == StatusCode::UNAUTHORIZED)
}

/// The 101 for the caller: what its handshake is checked by, and nothing else.
fn switching(mut upstream: HeaderMap) -> Response<Option<Bytes>> {
    let mut answer = Response::new(None);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in [header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL] {
        if let Some(value) = upstream.remove(&name) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
