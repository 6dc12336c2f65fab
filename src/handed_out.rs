//! Tokens of the proxy's own, which callers hold in the place of real ones. They are bound to the
//! principal, the epoch of its entry, and the caller: they are valid on every process with the same
//! store key, and after restarts; `tokens forget`, which raises the epoch, ends them all. The proxy
//! stores nothing of them.

mod mint;

use std::time::Duration;

use serde_json::Map;

use self::mint::{Holder, Mint};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::credentials::seal::TokenKeys;
use crate::credentials::{self, Credentials, Provider};
use crate::damoov::jwt;
use crate::naming::Bearer;
use crate::principal::Principal;

/// The life of a token that is given out while the real one is not there.
const STOPGAP: Duration = Duration::from_secs(3600);

/// What callers get in the place of the real access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOut {
    /// A token of the proxy's own.
    Own,
    /// The real JWT, for callers that also call Damoov directly; never the real RefreshToken.
    Real,
}

/// Makes tokens and knows them again.
pub struct HandedOut {
    mint: Mint,
    /// Knows the real tokens, and which epoch is the current one.
    provider: Provider,
    clock: Clock,
}

/// What a caller gets. No `Debug`, because it holds secrets.
pub struct Tokens {
    /// Names the principal when it comes back as a bearer.
    pub access_token: String,
    /// Renews it.
    pub refresh_token: String,
}

/// How many bytes of an access token tell that it is the proxy's own.
pub const MARK: usize = mint::HEADER.len();

/// Whether an access token of the proxy's own, or what claims to be one, stands anywhere in a text.
pub fn is_within(text: &[u8]) -> bool {
    memchr::memmem::find(text, mint::HEADER.as_bytes()).is_some()
}

impl HandedOut {
    /// `keys` are the store's, so that all who share it know each other's tokens.
    pub fn new(keys: TokenKeys, provider: Provider, clock: Clock) -> HandedOut {
        HandedOut {
            mint: Mint::new(keys),
            provider,
            clock,
        }
    }

    /// The remaining life of a real token: that of what is handed out for it.
    pub fn left(&self, credentials: &Credentials) -> Duration {
        credentials.left(self.clock.now())
    }

    /// Tokens for `caller` in the place of these credentials of `principal`.
    pub fn tokens(
        &self,
        hand_out: HandOut,
        caller: &Caller,
        principal: &Principal,
        credentials: &Credentials,
    ) -> Tokens {
        let holder = Holder {
            principal: principal.clone(),
            epoch: credentials.epoch(),
        };
        let now = self.provider.now();
        let access_token = match hand_out {
            HandOut::Real => credentials.token().to_owned(),
            HandOut::Own => {
                let claims = jwt::payload(credentials.token()).unwrap_or_default();
                let life = self.left(credentials);
                self.mint.access(caller.name(), &holder, claims, now, life)
            }
        };
        Tokens {
            access_token,
            refresh_token: self.mint.refresh(caller.name(), &holder, now),
        }
    }

    /// Tokens for a new principal whose real ones could not be kept: it gets others when it calls.
    pub fn stopgap(&self, caller: &Caller, principal: &Principal) -> Tokens {
        let holder = Holder {
            principal: principal.clone(),
            epoch: 0,
        };
        let now = self.provider.now();
        Tokens {
            access_token: self
                .mint
                .access(caller.name(), &holder, Map::new(), now, STOPGAP),
            refresh_token: self.mint.refresh(caller.name(), &holder, now),
        }
    }

    /// Whom a caller's bearer names.
    ///
    /// # Errors
    ///
    /// The store had to be asked and cannot be read.
    pub async fn holder(
        &self,
        hand_out: HandOut,
        caller: &Caller,
        bearer: &str,
    ) -> Result<Bearer, credentials::Error> {
        if !mint::is_ours(bearer) {
            let holder = self.holder_of_real(hand_out, bearer).await?;
            return Ok(holder.map_or(Bearer::Foreign, Bearer::Ours));
        }
        let token = self.mint.read_access(caller.name(), bearer);
        match token.filter(|token| token.names_at(self.provider.now())) {
            Some(token) => self.if_current(token.holder).await,
            None => Ok(Bearer::Void),
        }
    }

    /// Whose pair this is, whatever the age of its access token; never [`Bearer::Absent`].
    ///
    /// # Errors
    ///
    /// The store had to be asked and cannot be read.
    pub async fn renewable(
        &self,
        hand_out: HandOut,
        caller: &Caller,
        access_token: &str,
        refresh_token: &str,
    ) -> Result<Bearer, credentials::Error> {
        let access_is_ours = mint::is_ours(access_token);
        let Some(refresh) = self.mint.read_refresh(caller.name(), refresh_token) else {
            return Ok(match access_is_ours {
                true => Bearer::Void,
                false => Bearer::Foreign,
            });
        };
        let named = match access_is_ours {
            true => self
                .mint
                .read_access(caller.name(), access_token)
                .map(|access| access.holder.principal),
            false => self.holder_of_real(hand_out, access_token).await?,
        };
        if named.as_ref() != Some(&refresh.holder.principal)
            || !refresh.renews_at(self.provider.now())
        {
            return Ok(Bearer::Void);
        }
        self.if_current(refresh.holder).await
    }

    /// Under [`HandOut::Real`] a real JWT names its principal as long as it is the current or the
    /// previous one.
    async fn holder_of_real(
        &self,
        hand_out: HandOut,
        bearer: &str,
    ) -> Result<Option<Principal>, credentials::Error> {
        match hand_out {
            HandOut::Own => Ok(None),
            HandOut::Real => self.provider.holder_of(bearer).await,
        }
    }

    async fn if_current(&self, holder: Holder) -> Result<Bearer, credentials::Error> {
        let Holder { principal, epoch } = holder;
        Ok(match self.provider.is_current(&principal, epoch).await? {
            true => Bearer::Ours(principal),
            false => Bearer::Void,
        })
    }
}
