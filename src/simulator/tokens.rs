//! The pairs that were issued: who holds which, what still counts, what a refresh turns it into.
//! Knows nothing of HTTP.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::principal::{InstanceId, Principal};

use super::jwt;
use super::random::random_id;
use super::settings::{Lifetimes, PreviousToken, Refresh};

/// Access tokens remembered per principal. Older ones are unknown: 401, and no refresh with them.
const REMEMBERED: usize = 16;

/// What a login, a refresh or a registration hands out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Pair {
    /// The JWT.
    pub access_token: String,
    /// Opaque, good for one refresh.
    pub refresh_token: String,
    /// The life of the JWT from now, in seconds.
    pub expires_in: u64,
}

/// Which pair, of all that were issued: counts from 1, so that of two pairs of a principal the newer one
/// has the greater serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Serial(pub u64);

/// Where a pair comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Birth {
    /// The pair.
    pub serial: Serial,
    /// The pair that it took the place of: the one that was redeemed, or that a login revoked.
    pub parent: Option<Serial>,
}

/// A pair that was issued just now, or within the grace period once more.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) pair: Pair,
    pub(super) birth: Birth,
}

impl Serial {
    /// The serial that a RefreshToken begins with, whatever became of it since; `None` if it was never
    /// issued.
    pub(super) fn of_refresh_token(token: &str) -> Option<Serial> {
        let serial = token.get(..SERIAL_DIGITS)?;
        u64::from_str_radix(serial, 16).ok().map(Serial)
    }
}

/// How many hex digits of a RefreshToken are its pair's serial.
const SERIAL_DIGITS: usize = 16;

/// What a presented access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// It counts.
    Valid(Principal),
    /// It was this principal's, but expired or was revoked.
    Dead(Principal),
    /// Never issued, or too long ago.
    Unknown,
}

impl Presented {
    pub(super) fn principal(&self) -> Option<&Principal> {
        match self {
            Presented::Valid(principal) | Presented::Dead(principal) => Some(principal),
            Presented::Unknown => None,
        }
    }
}

/// All tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    lifetimes: Lifetimes,
    refresh: Refresh,
    clock: Clock,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// How many pairs were ever issued.
    issued: u64,
    access: HashMap<String, AccessToken>,
    holdings: HashMap<Principal, Holdings>,
}

/// One access token.
#[derive(Debug)]
struct AccessToken {
    principal: Principal,
    expires: Timestamp,
    /// The pair it belongs to, if to any.
    serial: Option<Serial>,
}

/// What one principal holds.
#[derive(Debug, Default)]
struct Holdings {
    instance: Option<InstanceId>,
    /// The newest pair; its RefreshToken counts until `refresh_until`.
    newest: Option<Issued>,
    /// The newest pair that there ever was, revoked or not.
    serial: Option<Serial>,
    refresh_until: Timestamp,
    /// The RefreshToken that `newest` replaced, and until when it may be sent again.
    replaced: Option<(String, Timestamp)>,
    /// The access tokens of this principal in `Tables::access`, oldest first.
    access: VecDeque<String>,
}

impl Tokens {
    pub(super) fn new(lifetimes: Lifetimes, refresh: Refresh, clock: Clock) -> Tokens {
        Tokens {
            lifetimes,
            refresh,
            clock,
            tables: Mutex::default(),
        }
    }

    /// A login: a new pair; everything issued to `principal` before is revoked.
    pub(super) fn log_in(&self, principal: &Principal, instance: Option<InstanceId>) -> Issued {
        self.start(principal, instance, self.lifetimes.after_login)
    }

    /// A registration: like a login, with its own lifetime.
    pub(super) fn register(&self, principal: &Principal, instance: Option<InstanceId>) -> Issued {
        self.start(principal, instance, self.lifetimes.after_registration)
    }

    fn start(
        &self,
        principal: &Principal,
        instance: Option<InstanceId>,
        lifetime: Duration,
    ) -> Issued {
        let now = self.clock.wall();
        let mut tables = self.tables.lock().expect("no holder panics");
        tables.revoke(principal);
        let held = tables.holdings.entry(principal.clone()).or_default();
        held.instance = instance;
        held.refresh_until = now.plus(self.lifetimes.refresh_token);
        tables.issue(principal, now, lifetime)
    }

    /// Rotates the pair, if `access` belongs to somebody and `refresh` is that principal's live
    /// RefreshToken. Within the grace period the replaced one gets the same new pair again.
    pub(super) fn refresh(&self, access: &str, refresh: &str) -> Option<(Principal, Issued)> {
        let now = self.clock.wall();
        let mut tables = self.tables.lock().expect("no holder panics");
        let principal = tables.access.get(access)?.principal.clone();
        let held = tables.holdings.get_mut(&principal)?;
        let newest = held.newest.as_ref()?;
        if let Some((replaced, until)) = &held.replaced
            && replaced == refresh
            && now < *until
        {
            return Some((principal, newest.clone()));
        }
        if newest.pair.refresh_token != refresh || now >= held.refresh_until {
            return None;
        }
        let previous = newest.pair.access_token.clone();
        held.replaced = Some((refresh.to_owned(), now.plus(self.refresh.grace)));
        held.refresh_until = now.plus(self.lifetimes.refresh_token);
        if self.refresh.previous_token == PreviousToken::Revoked
            && let Some(access) = tables.access.get_mut(&previous)
        {
            access.expires = now;
        }
        let issued = tables.issue(&principal, now, self.lifetimes.after_login);
        Some((principal, issued))
    }

    /// An access token of `principal` beside its pair; nothing is revoked.
    pub(super) fn stray(&self, principal: &Principal) -> String {
        let now = self.clock.wall();
        let expires = now.plus(self.lifetimes.after_login);
        let token = jwt::mint(principal, None, now, expires);
        let mut tables = self.tables.lock().expect("no holder panics");
        tables.remember(principal, &token, expires, None);
        token
    }

    /// Whose token this is, and whether it counts.
    pub(super) fn present(&self, access: &str) -> Presented {
        let now = self.clock.wall();
        let tables = self.tables.lock().expect("no holder panics");
        match tables.access.get(access) {
            None => Presented::Unknown,
            Some(access) if now < access.expires => Presented::Valid(access.principal.clone()),
            Some(access) => Presented::Dead(access.principal.clone()),
        }
    }

    /// The pair that an access token belongs to, if it was issued with one and not too long ago.
    pub(super) fn serial_of(&self, access: &str) -> Option<Serial> {
        let tables = self.tables.lock().expect("no holder panics");
        tables.access.get(access)?.serial
    }

    /// Ends the access tokens of `whose`, or of all. Returns how many counted before.
    pub(super) fn expire(&self, whose: Option<&Principal>) -> usize {
        let mut tables = self.tables.lock().expect("no holder panics");
        tables.expire(whose, self.clock.wall())
    }

    /// Ends the RefreshTokens of `whose`, or of all. Returns how many counted before.
    pub(super) fn revoke_refresh_tokens(&self, whose: Option<&Principal>) -> usize {
        let mut tables = self.tables.lock().expect("no holder panics");
        let mut revoked = 0;
        for (_, held) in tables
            .holdings
            .iter_mut()
            .filter(|(principal, _)| whose.is_none_or(|whose| whose == *principal))
        {
            revoked += usize::from(held.newest.take().is_some());
            held.replaced = None;
        }
        revoked
    }
}

impl Tables {
    /// A new pair of `principal`, in the place of the one before.
    fn issue(&mut self, principal: &Principal, now: Timestamp, lifetime: Duration) -> Issued {
        self.issued += 1;
        let serial = Serial(self.issued);
        let held = self.holdings.entry(principal.clone()).or_default();
        let issued = Issued {
            pair: mint_pair(principal, held.instance, serial, now, lifetime),
            birth: Birth {
                serial,
                parent: held.serial.replace(serial),
            },
        };
        held.newest = Some(issued.clone());
        let token = &issued.pair.access_token;
        self.remember(principal, token, now.plus(lifetime), Some(serial));
        issued
    }

    /// Registers an access token; forgets the principal's oldest ones.
    fn remember(
        &mut self,
        principal: &Principal,
        token: &str,
        expires: Timestamp,
        serial: Option<Serial>,
    ) {
        let access = AccessToken {
            principal: principal.clone(),
            expires,
            serial,
        };
        self.access.insert(token.to_owned(), access);
        let held = self.holdings.entry(principal.clone()).or_default();
        held.access.push_back(token.to_owned());
        if held.access.len() > REMEMBERED
            && let Some(oldest) = held.access.pop_front()
        {
            self.access.remove(&oldest);
        }
    }

    /// Ends everything `principal` holds; its tokens stay known as dead ones.
    fn revoke(&mut self, principal: &Principal) {
        let Some(held) = self.holdings.get_mut(principal) else {
            return;
        };
        held.newest = None;
        held.replaced = None;
        for token in &held.access {
            if let Some(access) = self.access.get_mut(token) {
                access.expires = Timestamp::default();
            }
        }
    }

    fn expire(&mut self, whose: Option<&Principal>, now: Timestamp) -> usize {
        let mut expired = 0;
        for access in self.access.values_mut() {
            if now < access.expires && whose.is_none_or(|whose| *whose == access.principal) {
                access.expires = now;
                expired += 1;
            }
        }
        expired
    }
}

fn mint_pair(
    principal: &Principal,
    instance: Option<InstanceId>,
    Serial(serial): Serial,
    now: Timestamp,
    lifetime: Duration,
) -> Pair {
    Pair {
        access_token: jwt::mint(principal, instance, now, now.plus(lifetime)),
        refresh_token: format!(
            "{serial:0SERIAL_DIGITS$x}{}{:016x}",
            random_id().simple(),
            fastrand::u64(..)
        ),
        expires_in: lifetime.as_secs(),
    }
}
