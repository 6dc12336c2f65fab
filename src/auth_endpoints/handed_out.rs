//! Tokens of the proxy's own, which callers hold in the place of real ones. An access token has the
//! shape of a JWT and the claims of the real one; what counts is a MAC over the principal, the
//! epoch of its entry, and the caller. So they are good on every sidecar with the store key and
//! after restarts, and `tokens forget`, which raises the epoch, ends them all. Nothing is kept of
//! them.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;
use crate::clock::{Clock, Timestamp};
use crate::credentials::seal::TokenKeys;
use crate::credentials::{Credentials, Provider};
use crate::damoov::jwt;
use crate::principal::Principal;

/// `{"alg":"HS256","typ":"JWT","kid":"damoov-proxy"}`, which tells our tokens from real ones.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImRhbW9vdi1wcm94eSJ9";
/// The claim that says what the token is bound to.
const BOUND: &str = "damoov-proxy";
/// An access token names its principal for so long after its `exp`.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long a RefreshToken is good.
const REFRESH_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// What callers are given for the real access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOut {
    /// A token of the proxy's own.
    Own,
    /// The real JWT, for callers that also call Damoov directly; never the real RefreshToken.
    Real,
}

/// Makes tokens and knows them again.
pub struct HandedOut {
    keys: TokenKeys,
    gives: HandOut,
    provider: Provider,
    clock: Clock,
}

/// What a caller is given.
#[derive(Debug)]
pub struct Tokens {
    /// Names the principal when it comes back as a bearer.
    pub access_token: String,
    /// Renews it.
    pub refresh_token: String,
}

/// Why a token names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Handed out by somebody else.
    #[error("the token was not handed out by this proxy; log in through it")]
    Foreign,
    /// Forged, too old, forgotten, another caller's, or not the other one's pair.
    #[error("the token counts no longer; log in through this proxy")]
    Ours,
}

/// What a token is bound to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bound<'a> {
    #[serde(rename = "p", borrow)]
    principal: Cow<'a, str>,
    #[serde(rename = "e")]
    epoch: u64,
    #[serde(rename = "c", borrow)]
    caller: Cow<'a, str>,
}

/// As a token was handed out.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    principal: Principal,
    epoch: u64,
}

/// What a MAC is for: one kind of token never passes for the other.
#[derive(Clone, Copy)]
enum Kind {
    Access,
    Refresh,
}

impl HandedOut {
    /// `keys` are the store's, so that all who share it know each other's tokens.
    pub fn new(keys: TokenKeys, gives: HandOut, provider: Provider, clock: Clock) -> HandedOut {
        HandedOut {
            keys,
            gives,
            provider,
            clock,
        }
    }

    /// The remaining life of a real token: that of what is handed out for it.
    pub fn left(&self, credentials: &Credentials) -> Duration {
        credentials.left(self.clock.now())
    }

    /// Tokens for `caller` in the place of these credentials of `principal`.
    pub fn tokens(&self, caller: &str, principal: &Principal, credentials: &Credentials) -> Tokens {
        let bound = Bound {
            principal: principal.to_string().into(),
            epoch: credentials.epoch(),
            caller: caller.into(),
        };
        let access_token = match self.gives {
            HandOut::Real => credentials.token().to_owned(),
            HandOut::Own => {
                let claims = jwt::payload(credentials.token()).unwrap_or_default();
                self.access_token(&bound, claims, self.left(credentials))
            }
        };
        Tokens {
            access_token,
            refresh_token: self.refresh_token(&bound),
        }
    }

    /// Tokens for a principal whose real ones are not there: the next request gets some.
    pub fn names_only(&self, caller: &str, principal: &Principal) -> Tokens {
        let bound = Bound {
            principal: principal.to_string().into(),
            epoch: 0,
            caller: caller.into(),
        };
        Tokens {
            access_token: self.access_token(&bound, Map::new(), GRACE),
            refresh_token: self.refresh_token(&bound),
        }
    }

    /// Whom a caller's bearer names; none where it is not one of ours.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`] where it is one of ours that counts no longer.
    pub async fn holder(&self, caller: &str, bearer: &str) -> Result<Option<Principal>, Error> {
        if !is_ours(bearer) {
            return self.holder_of_real(bearer).await;
        }
        let (holder, expires) = self.read_access(caller, bearer).ok_or(Invalid::Ours)?;
        if self.clock.wall() > expires.plus(GRACE) {
            return Err(Invalid::Ours.into());
        }
        self.if_current(holder).await.map(Some)
    }

    /// Whose pair this is, whatever the age of its access token.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`] where it is nobody's.
    pub async fn renewable(
        &self,
        caller: &str,
        access_token: &str,
        refresh_token: &str,
    ) -> Result<Principal, Error> {
        let Some((renewed, issued)) = self.read_refresh(caller, refresh_token) else {
            return Err(match is_ours(access_token) {
                true => Invalid::Ours.into(),
                false => Invalid::Foreign.into(),
            });
        };
        if self.clock.wall() > issued.plus(REFRESH_LIFE) {
            return Err(Invalid::Ours.into());
        }
        let named = match is_ours(access_token) {
            true => self
                .read_access(caller, access_token)
                .map(|(holder, _)| holder.principal),
            false => self.holder_of_real(access_token).await?,
        };
        if named.as_ref() != Some(&renewed.principal) {
            return Err(Invalid::Ours.into());
        }
        self.if_current(renewed).await
    }

    /// Under [`HandOut::Real`] a real JWT names its principal as long as it is the current or the
    /// previous one.
    async fn holder_of_real(&self, bearer: &str) -> Result<Option<Principal>, Error> {
        match self.gives {
            HandOut::Own => Ok(None),
            HandOut::Real => Ok(self.provider.holder_of(bearer).await?),
        }
    }

    async fn if_current(&self, holder: Holder) -> Result<Principal, Error> {
        let Holder { principal, epoch } = holder;
        match self.provider.is_current(&principal, epoch).await? {
            true => Ok(principal),
            false => Err(Invalid::Ours.into()),
        }
    }

    /// The claims of the real token, but for the times, which are those of this machine's clock.
    fn access_token(
        &self,
        bound: &Bound<'_>,
        mut claims: Map<String, Value>,
        life: Duration,
    ) -> String {
        let now = self.clock.wall();
        for (claim, at) in [("iat", now), ("nbf", now), ("exp", now.plus(life))] {
            claims.insert(claim.to_owned(), seconds(at).into());
        }
        let bound = serde_json::to_value(bound).expect("texts and numbers always serialise");
        claims.insert(BOUND.to_owned(), bound);
        self.signed(Kind::Access, format!("{HEADER}.{}", encoded(&claims)))
    }

    fn refresh_token(&self, bound: &Bound<'_>) -> String {
        let issued = seconds(self.clock.wall());
        self.signed(Kind::Refresh, encoded(&(bound, issued)))
    }

    /// To whom and until when an access token was given.
    fn read_access(&self, caller: &str, token: &str) -> Option<(Holder, Timestamp)> {
        #[derive(Deserialize)]
        struct Claims<'a> {
            #[serde(rename = "damoov-proxy", borrow)]
            bound: Bound<'a>,
            exp: i64,
        }
        let payload = self.checked(Kind::Access, token)?.split_once('.')?.1;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let Claims { bound, exp } = serde_json::from_slice(&payload).ok()?;
        Some((bound.holder(caller)?, moment(exp)))
    }

    /// To whom and when a RefreshToken was given.
    fn read_refresh(&self, caller: &str, token: &str) -> Option<(Holder, Timestamp)> {
        let payload = self.checked(Kind::Refresh, token)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let (bound, issued): (Bound<'_>, i64) = serde_json::from_slice(&payload).ok()?;
        Some((bound.holder(caller)?, moment(issued)))
    }

    fn signed(&self, kind: Kind, text: String) -> String {
        let mac = self.keys.mac(&[kind.name(), text.as_bytes()]);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// What was signed, if it was.
    fn checked<'t>(&self, kind: Kind, token: &'t str) -> Option<&'t str> {
        let (text, mac) = token.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        self.keys
            .verify(&[kind.name(), text.as_bytes()], &mac)
            .then_some(text)
    }
}

impl Bound<'_> {
    /// Whose token it is, for the caller that it was given to.
    fn holder(&self, caller: &str) -> Option<Holder> {
        let principal = Principal::parse(&self.principal)?;
        (self.caller == caller).then_some(Holder {
            principal,
            epoch: self.epoch,
        })
    }
}

impl Kind {
    fn name(self) -> &'static [u8] {
        match self {
            Kind::Access => b"access",
            Kind::Refresh => b"refresh",
        }
    }
}

fn is_ours(bearer: &str) -> bool {
    bearer
        .strip_prefix(HEADER)
        .is_some_and(|rest| rest.starts_with('.'))
}

fn encoded(payload: &impl Serialize) -> String {
    let payload = serde_json::to_vec(payload).expect("texts and numbers always serialise");
    URL_SAFE_NO_PAD.encode(payload)
}

fn seconds(at: Timestamp) -> i64 {
    at.as_millis() / 1000
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000))
}
