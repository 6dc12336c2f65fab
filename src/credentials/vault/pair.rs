//! A pair of tokens between the API and the seal: how long it lives, how it is written into a
//! record. The one place where both tokens are in the clear together.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::seal::{Ring, Unopened, key_of};
use crate::clock::Timestamp;
use crate::damoov::auth::{ExpiresInForm, Grant};
use crate::damoov::jwt::Claims;
use crate::principal::Principal;
use crate::secret::Secret;
use crate::store::Record;

/// A JWT and the RefreshToken that renews it.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The JWT, expired or not: a refresh wants it too.
    pub access_token: Secret,
    /// `None` if the API gave none.
    pub refresh_token: Option<Secret>,
    /// When the JWT was received, on the wall clock of that moment.
    pub received: Timestamp,
    /// How long the JWT lives from then on.
    pub lifetime: Duration,
    /// How the API wrote `ExpiresIn` for the JWT.
    pub expires_in_form: ExpiresInForm,
    /// The JWT that this one replaced, if there was one.
    pub previous: Option<JwtHash>,
}

/// The SHA-256 of a JWT that is no longer kept: enough to recognise it. A JWT is signed, so that it
/// cannot be guessed from its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JwtHash([u8; 32]);

impl JwtHash {
    /// Of this JWT.
    pub(crate) fn of(jwt: &str) -> JwtHash {
        JwtHash(Sha256::digest(jwt).into())
    }
}

/// Whether `jwt` is `current` or the one before it, in constant time.
pub(crate) fn is_either(jwt: &str, current: &str, previous: Option<&JwtHash>) -> bool {
    bool::from(current.as_bytes().ct_eq(jwt.as_bytes()))
        || previous.is_some_and(|previous| previous.0.ct_eq(&JwtHash::of(jwt).0).into())
}

/// Why a pair that was issued elsewhere is not adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotImported {
    /// There is no JWT.
    #[error("AccessToken is empty")]
    Empty,
    /// The JWT names another user.
    #[error("AccessToken is another user's")]
    Foreign,
}

/// The shortest lifetime that is believed; a shorter one would renew in a loop.
const SHORTEST: Duration = Duration::from_secs(30);
/// The longest lifetime that is believed.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Assumed if neither `ExpiresIn` nor the claims say (damoov/API.md, "Lifetimes").
const UNSTATED: Duration = Duration::from_secs(43_200);

/// The kind of sealed record, part of what the seal binds.
const KIND: &str = "pair";

/// As it stands under the seal.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    #[serde(rename = "a", borrow)]
    access_token: Cow<'a, str>,
    #[serde(rename = "r", borrow)]
    refresh_token: Option<Cow<'a, str>>,
    #[serde(rename = "t")]
    received_millis: i64,
    #[serde(rename = "l")]
    lifetime_millis: u64,
    // Older records have neither of these two.
    #[serde(rename = "f", default)]
    expires_in_form: ExpiresInForm,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    previous: Option<JwtHash>,
}

impl Pair {
    /// The pair that `grant` makes, received just now. If the grant carries no RefreshToken, that of
    /// `previous` is kept; if it carries no JWT, that of `previous` is kept, as one that has expired.
    /// Returns `None` if there is no JWT at all.
    pub fn from_grant(grant: Grant, previous: Option<&Pair>, received: Timestamp) -> Option<Pair> {
        let refresh_token = grant
            .refresh_token
            .or_else(|| previous.and_then(|pair| pair.refresh_token.clone()));
        let (access_token, lifetime, expires_in_form) = match grant.access_token {
            Some(token) => {
                let lifetime = lifetime(grant.expires_in, Claims::read(token.expose()).lifetime());
                (token, lifetime, grant.expires_in_form)
            }
            None => {
                let Pair {
                    access_token,
                    expires_in_form,
                    ..
                } = previous?;
                (access_token.clone(), Duration::ZERO, *expires_in_form)
            }
        };
        Some(Pair {
            access_token,
            refresh_token,
            received,
            lifetime,
            expires_in_form,
            previous: None,
        })
    }

    /// This pair, which takes the place of `before` and still recognises its JWT.
    pub fn replacing(mut self, before: Option<&Pair>) -> Pair {
        self.previous = match before {
            // Nobody guesses here: it need not take constant time.
            Some(before) if before.access_token.expose() == self.access_token.expose() => {
                before.previous
            }
            before => before.map(|before| JwtHash::of(before.access_token.expose())),
        };
        self
    }

    /// Whether this pair took the place of `other`.
    pub fn replaced(&self, other: &Pair) -> bool {
        // Nobody guesses here: it need not take constant time.
        self.previous == Some(JwtHash::of(other.access_token.expose()))
    }

    /// A pair of `principal` that was issued elsewhere, at the time that its JWT says, or else at `now`.
    /// It lives until `exp`.
    ///
    /// # Errors
    ///
    /// `NotImported` if the JWT is empty or another user's.
    pub fn imported(
        principal: &Principal,
        access_token: Secret,
        refresh_token: Secret,
        now: Timestamp,
    ) -> Result<Pair, NotImported> {
        if access_token.expose().is_empty() {
            return Err(NotImported::Empty);
        }
        let claims = Claims::read(access_token.expose());
        let is_of = |named| matches!(principal, Principal::User(user) if *user == named);
        if claims.device_token.is_some_and(|named| !is_of(named)) {
            return Err(NotImported::Foreign);
        }
        let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        // Not in the future, even if the clocks differ.
        let received = claims.issued.map_or(now, |issued| moment(issued).min(now));
        let lifetime = match claims.expires {
            Some(expires) => moment(expires).since(received).min(LONGEST),
            None => UNSTATED,
        };
        Ok(Pair {
            access_token,
            refresh_token: Some(refresh_token),
            received,
            lifetime,
            expires_in_form: ExpiresInForm::default(),
            previous: None,
        })
    }

    /// When the JWT expires.
    pub fn expires(&self) -> Timestamp {
        self.received.plus(self.lifetime)
    }

    /// Seals the pair for `principal`'s record.
    pub fn seal(&self, ring: &Ring, principal: &Principal) -> Vec<u8> {
        let sealed = Sealed {
            access_token: self.access_token.expose().into(),
            refresh_token: self
                .refresh_token
                .as_ref()
                .map(|token| token.expose().into()),
            received_millis: self.received.as_millis(),
            lifetime_millis: u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX),
            expires_in_form: self.expires_in_form,
            previous: self.previous,
        };
        let clear = serde_json::to_vec(&sealed).expect("strings and numbers always serialise");
        ring.seal(principal, KIND, &Zeroizing::new(clear))
    }

    /// Opens the pair of a record.
    ///
    /// # Errors
    ///
    /// [`Unopened::UnknownKey`]: the pair is as good as any, but its key is not on the ring. Anything
    /// else: it is damaged, and worth nothing.
    pub fn of_record(
        ring: &Ring,
        principal: &Principal,
        record: &Record,
    ) -> Result<Pair, Unopened> {
        match Pair::open(ring, principal, &record.sealed) {
            // This record was never sealed with that key.
            Err(Unopened::UnknownKey) if key_of(&record.sealed) != Some(record.key) => {
                Err(Unopened::Forged)
            }
            opened => opened,
        }
    }

    /// Opens what [`Pair::seal`] made for the same principal.
    ///
    /// # Errors
    ///
    /// [`Unopened`]: it is damaged, or its key is not on the ring.
    pub fn open(ring: &Ring, principal: &Principal, sealed: &[u8]) -> Result<Pair, Unopened> {
        let clear = ring.open(principal, KIND, sealed)?;
        let sealed: Sealed<'_> = serde_json::from_slice(&clear).map_err(|_| Unopened::Malformed)?;
        Ok(Pair {
            access_token: Secret::from(&*sealed.access_token),
            refresh_token: sealed.refresh_token.as_deref().map(Secret::from),
            received: Timestamp::from_millis(sealed.received_millis),
            lifetime: Duration::from_millis(sealed.lifetime_millis),
            expires_in_form: sealed.expires_in_form,
            previous: sealed.previous,
        })
    }
}

/// min(`ExpiresIn`, `exp − iat`) in seconds, within what is believed.
fn lifetime(expires_in: Option<i64>, claimed: Option<i64>) -> Duration {
    match expires_in.into_iter().chain(claimed).min() {
        Some(seconds) => {
            Duration::from_secs(seconds.try_into().unwrap_or(0)).clamp(SHORTEST, LONGEST)
        }
        None => UNSTATED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn grant(access: Option<&str>, refresh: Option<&str>, expires_in: Option<i64>) -> Grant {
        Grant {
            device_token: None,
            access_token: access.map(Secret::from),
            refresh_token: refresh.map(Secret::from),
            expires_in,
            expires_in_form: ExpiresInForm::Number,
        }
    }

    #[test]
    fn the_shorter_of_both_lifetimes_counts_within_limits() {
        for (expires_in, claimed, seconds) in [
            (Some(86400), Some(43200), 43200),
            (Some(600), Some(43200), 600),
            (None, Some(43200), 43200),
            (Some(600), None, 600),
            (None, None, 43200),
            (Some(0), Some(43200), 30),
            (Some(-5), None, 30),
            (Some(i64::MAX), Some(i64::MAX), 30 * 24 * 3600),
            (Some(i64::MIN), Some(1), 30),
        ] {
            assert_eq!(
                lifetime(expires_in, claimed).as_secs(),
                seconds,
                "{expires_in:?} {claimed:?}"
            );
        }
    }

    #[test]
    fn a_grant_without_a_refresh_token_keeps_the_old_one() {
        let now = Timestamp::from_millis(5);
        let old = Pair::from_grant(grant(Some("a"), Some("r"), None), None, now).unwrap();
        let new = Pair::from_grant(grant(Some("b"), None, None), Some(&old), now).unwrap();
        assert_eq!(new.access_token.expose(), "b");
        assert_eq!(new.refresh_token.unwrap().expose(), "r");
    }

    fn pair(jwt: &str) -> Pair {
        let now = Timestamp::from_millis(5);
        Pair::from_grant(grant(Some(jwt), Some("r"), None), None, now).unwrap()
    }

    #[test]
    fn a_pair_recognises_its_jwt_and_the_one_before_it() {
        let third = pair("c").replacing(Some(&pair("b").replacing(Some(&pair("a")))));
        for (jwt, is_known) in [("c", true), ("b", true), ("a", false), ("", false)] {
            let known = is_either(jwt, third.access_token.expose(), third.previous.as_ref());
            assert_eq!(known, is_known, "{jwt}");
        }
        // A RefreshToken that rotated alone: the JWT is the same, and so is the one before it.
        assert_eq!(
            third.clone().replacing(Some(&third)).previous,
            third.previous
        );
        assert_eq!(pair("a").replacing(None).previous, None);
    }

    #[test]
    fn what_a_record_says_besides_the_tokens_survives_the_seal() {
        let ring = Ring::new(&Secret::from(KEY), &[]).unwrap();
        let owner = Principal::Account("a".into());
        let mut written = pair("b").replacing(Some(&pair("a")));
        written.expires_in_form = ExpiresInForm::Text;
        let read = Pair::open(&ring, &owner, &written.seal(&ring, &owner)).unwrap();
        assert_eq!(read.expires_in_form, ExpiresInForm::Text);
        assert!(read.previous.is_some());
        assert_eq!(read.previous, written.previous);
    }

    #[test]
    fn a_record_without_form_and_previous_jwt_is_read() {
        let ring = Ring::new(&Secret::from(KEY), &[]).unwrap();
        let owner = Principal::Account("a".into());
        let sealed = ring.seal(&owner, KIND, br#"{"a":"jwt","r":"r","t":7,"l":1000}"#);
        let read = Pair::open(&ring, &owner, &sealed).unwrap();
        assert_eq!((read.access_token.expose(), read.previous), ("jwt", None));
        assert_eq!(read.expires_in_form, ExpiresInForm::Number);
    }

    #[test]
    fn a_rotated_refresh_token_is_kept_without_an_access_token() {
        let now = Timestamp::from_millis(5);
        let old = Pair::from_grant(grant(Some("a"), Some("r"), None), None, now).unwrap();
        let new = Pair::from_grant(grant(None, Some("s"), None), Some(&old), now).unwrap();
        assert_eq!((new.access_token.expose(), new.expires()), ("a", now));
        assert_eq!(new.refresh_token.unwrap().expose(), "s");
    }
}
