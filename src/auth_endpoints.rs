//! Calls to the Auth endpoints, answered by the proxy: services that log in by themselves share one
//! upstream login and cannot revoke one another. Also what a registration's answer gives away.
//! [`handed_out`](crate::handed_out) makes and knows the tokens. Holds no state of its own; sends
//! nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::caller::{Authorized, Caller, authorize};
use crate::credentials::{self, Expected, Login, Need, PasswordError, Provider};
use crate::damoov::auth::Unreadable;
use crate::damoov::auth_requests::{self, Endpoint, Granted, Who};
use crate::damoov::jwt::Claims;
use crate::damoov::user_changes::Registration;
use crate::directory::Directory;
use crate::error::Error;
use crate::handed_out::{HandOut, HandedOut, Tokens};
use crate::naming::{self, Bearer};
use crate::principal::{InstanceId, Principal};

/// Part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What callers get in the place of the real access token.
    pub hand_out: HandOut,
    /// Whether a login for an instance or account that is not configured goes to Damoov.
    pub forward_unknown_logins: bool,
}

/// Answers the Auth endpoints.
pub struct AuthEndpoints {
    provider: Provider,
    handed_out: Arc<HandedOut>,
}

/// A call to an Auth endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who calls.
    pub caller: Caller,
    /// Which one.
    pub endpoint: Endpoint,
    /// The instance that the header InstanceId names.
    pub instance: Option<InstanceId>,
    /// What its content says.
    pub content: &'a [u8],
}

/// By what a call is answered.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Part of the configuration.
    pub settings: Settings,
    /// Who is configured.
    pub directory: &'a Directory,
}

/// A registration under way.
#[derive(Clone, Copy, Debug)]
pub struct Registering {
    /// Who registers a user.
    pub caller: Caller,
    /// The instance whose key it is registered with.
    pub instance: InstanceId,
    /// What the caller is given.
    pub hand_out: HandOut,
    /// From [`Provider::expect_tokens`], before it was sent.
    pub expected: Expected,
}

/// What becomes of a call to an Auth endpoint.
#[derive(Debug)]
pub enum Reply {
    /// It is answered here.
    Answered {
        /// Whose tokens it got.
        principal: Principal,
        /// Whether it waited for a renewal.
        renewed: bool,
        /// The content of a 200, in the API's envelope.
        content: Bytes,
    },
    /// Damoov must answer: the call concerns no configured instance or account.
    Forward,
}

impl AuthEndpoints {
    /// Of principals that `provider` has credentials for.
    pub fn new(provider: Provider, handed_out: Arc<HandedOut>) -> AuthEndpoints {
        AuthEndpoints {
            provider,
            handed_out,
        }
    }

    /// Answers a call.
    pub async fn answer(&self, call: Call<'_>, terms: Terms<'_>) -> Result<Reply, Error> {
        match call.endpoint {
            Endpoint::Login => self.log_in(call, terms).await,
            Endpoint::RefreshToken => self.refresh(call, terms).await,
        }
    }

    async fn log_in(&self, call: Call<'_>, terms: Terms<'_>) -> Result<Reply, Error> {
        let Call {
            caller,
            instance,
            content,
            ..
        } = call;
        let login = auth_requests::read_login(content)?;
        let who = match &login.who {
            Who::User(user) => Login::User {
                user: *user,
                instance,
                known: match instance {
                    Some(_) => None,
                    None => {
                        let user = Principal::User(*user);
                        self.provider.known_instance(&user).await
                    }
                },
            },
            Who::Account(email) => Login::Account { email },
        };
        let (peer, password) = (caller.peer(), login.password.expose());
        let checked = self
            .provider
            .check_password(terms.directory, peer, &who, password);
        let (principal, instance) = match checked.await {
            Err(PasswordError::NotConfigured) if terms.settings.forward_unknown_logins => {
                return Ok(Reply::Forward);
            }
            checked => checked?,
        };
        let authorized = authorize(caller, terms.directory, principal, instance)?;
        let got = self.provider.get(&authorized, Need::Usable).await?;
        Ok(self.granted(&authorized, &got, terms.settings.hand_out))
    }

    /// A refresh is answered with a token whose life has just begun, if there is one; never with
    /// the real one that the caller already holds, because Damoov may have refused it.
    async fn refresh(&self, call: Call<'_>, terms: Terms<'_>) -> Result<Reply, Error> {
        let Call {
            caller, content, ..
        } = call;
        let Settings {
            hand_out,
            forward_unknown_logins,
        } = terms.settings;
        let pair = auth_requests::read_refresh(content)?;
        let (access_token, refresh_token) =
            (pair.access_token.expose(), pair.refresh_token.expose());
        let named = self
            .handed_out
            .renewable(hand_out, &caller, access_token, refresh_token)
            .await?;
        let principal = match named {
            Bearer::Ours(principal) => principal,
            Bearer::Foreign
                if forward_unknown_logins && !is_configured_here(terms.directory, access_token) =>
            {
                return Ok(Reply::Forward);
            }
            Bearer::Foreign => return Err(Error::TokensForeign),
            Bearer::Void | Bearer::Absent => return Err(naming::Error::BearerVoid.into()),
        };
        let authorized = authorize(caller, terms.directory, principal, None)?;
        let mut got = self.provider.get(&authorized, Need::Fresh).await?;
        if got.credentials.token() == access_token {
            got = self.provider.newer(&authorized, got.credentials).await?;
        }
        Ok(self.granted(&authorized, &got, terms.settings.hand_out))
    }

    fn granted(&self, to: &Authorized, got: &credentials::Obtained, hand_out: HandOut) -> Reply {
        let (principal, credentials) = (to.principal(), &got.credentials);
        let Tokens {
            access_token,
            refresh_token,
        } = self
            .handed_out
            .tokens(hand_out, &to.caller(), principal, credentials);
        let content = Granted {
            user: match principal {
                Principal::User(user) => Some(*user),
                Principal::Account(_) => None,
            },
            access_token: &access_token,
            expires_in: self.handed_out.left(credentials).as_secs(),
            form: credentials.expires_in_form(),
            refresh_token: &refresh_token,
        }
        .content();
        Reply::Answered {
            principal: principal.clone(),
            renewed: got.renewed,
            content: content.into(),
        }
    }

    /// Keeps what the answer to a registration gives out, and puts tokens of our own in its place.
    /// `content` is decoded.
    ///
    /// # Errors
    ///
    /// It cannot be told what it gives out, so that real tokens might pass.
    pub async fn registered(
        &self,
        registering: &Registering,
        content: Bytes,
    ) -> Result<Bytes, Unreadable> {
        let Registering {
            caller,
            instance,
            hand_out,
            expected,
        } = *registering;
        if content.is_empty() {
            return Ok(content);
        }
        let mut registration = Registration::read(&content)?;
        let Some(grant) = registration.grant.take() else {
            if let Some(user) = registration.user {
                self.registered_without_tokens(&Principal::User(user), instance)
                    .await;
            }
            return Ok(content);
        };
        let user = registration.user.ok_or(Unreadable::Unexpected)?;
        let principal = Principal::User(user);
        let adopted = self
            .provider
            .adopt(expected, &principal, Some(instance), grant)
            .await
            .inspect_err(|error| {
                tracing::error!(
                    principal = self.provider.log_name(&principal).as_str(),
                    %error,
                    "the tokens of a new user are lost; its first request costs a login"
                );
            });
        let tokens = match &adopted {
            Ok(credentials) => self
                .handed_out
                .tokens(hand_out, &caller, &principal, credentials),
            // The user is there all the same.
            Err(_) => self.handed_out.stopgap(&caller, &principal),
        };
        let ours = registration.with_tokens(&tokens.access_token, &tokens.refresh_token);
        Ok(ours.into())
    }

    async fn registered_without_tokens(&self, user: &Principal, instance: InstanceId) {
        if let Err(error) = self.provider.registered(user, instance).await {
            tracing::warn!(
                principal = self.provider.log_name(user).as_str(),
                %error,
                "the instance of a new user is not remembered; name it until it has logged in"
            );
        }
    }
}

/// Whether a real JWT is of a configured instance: its pair may be the one in the store, which a
/// refresh that passes by would end.
fn is_configured_here(directory: &Directory, jwt: &str) -> bool {
    let instance = Claims::read(jwt).instance;
    instance.is_some_and(|instance| directory.instance(instance).is_some())
}
