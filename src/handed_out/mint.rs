//! How a token of the proxy's own is made, and read again: an access token has the shape of a JWT,
//! a RefreshToken is opaque to callers; what counts in both is a MAC. Pure.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::credentials::seal::TokenKeys;
use crate::principal::Principal;

/// `{"alg":"HS256","typ":"JWT","kid":"damoov-proxy"}`, which tells our tokens from real ones.
pub(super) const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImRhbW9vdi1wcm94eSJ9";
/// An access token names its principal for this long after its `exp`.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long a RefreshToken is valid.
const REFRESH_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Makes and reads tokens.
pub(super) struct Mint {
    keys: TokenKeys,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) principal: Principal,
    /// Of the principal's entry when the token was made.
    pub(super) epoch: u64,
}

/// What an access token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) holder: Holder,
    expires: Timestamp,
}

/// What a RefreshToken says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refresh {
    pub(super) holder: Holder,
    issued: Timestamp,
}

/// A holder as it stands in a token.
#[derive(Serialize, Deserialize)]
struct Bound<'a> {
    #[serde(rename = "p", borrow)]
    principal: Cow<'a, str>,
    #[serde(rename = "e")]
    epoch: u64,
    #[serde(rename = "c", borrow)]
    caller: Cow<'a, str>,
}

/// What a MAC is for: one kind of token never passes for the other.
#[derive(Clone, Copy)]
enum Kind {
    Access,
    Refresh,
}

/// Whether this claims to be an access token of ours; real ones do not.
pub(super) fn is_ours(bearer: &str) -> bool {
    let rest = bearer.strip_prefix(HEADER);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

impl Mint {
    pub(super) fn new(keys: TokenKeys) -> Mint {
        Mint { keys }
    }

    /// An access token with these claims, except for the times, which are those of the store's clock.
    pub(super) fn access(
        &self,
        caller: &str,
        holder: &Holder,
        mut claims: Map<String, Value>,
        issued: Timestamp,
        life: Duration,
    ) -> String {
        let expires = issued.plus(life);
        for (claim, at) in [("iat", issued), ("nbf", issued), ("exp", expires)] {
            claims.insert(claim.to_owned(), seconds(at).into());
        }
        let bound = serde_json::to_value(Bound::of(caller, holder));
        claims.insert(
            "damoov-proxy".to_owned(),
            bound.expect("texts and numbers always serialise"),
        );
        self.signed(Kind::Access, format!("{HEADER}.{}", encoded(&claims)))
    }

    /// A RefreshToken.
    pub(super) fn refresh(&self, caller: &str, holder: &Holder, issued: Timestamp) -> String {
        let payload = (Bound::of(caller, holder), seconds(issued));
        self.signed(Kind::Refresh, encoded(&payload))
    }

    /// Reads an access token of `caller`'s; `None` if it is forged, or another caller's.
    pub(super) fn read_access(&self, caller: &str, token: &str) -> Option<Access> {
        #[derive(Deserialize)]
        struct Claims<'a> {
            #[serde(rename = "damoov-proxy", borrow)]
            bound: Bound<'a>,
            exp: i64,
        }
        let payload = self.checked(Kind::Access, token)?.split_once('.')?.1;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let Claims { bound, exp } = serde_json::from_slice(&payload).ok()?;
        Some(Access {
            holder: bound.holder(caller)?,
            expires: moment(exp),
        })
    }

    /// Reads a RefreshToken of `caller`'s; `None` if it is forged, or another caller's.
    pub(super) fn read_refresh(&self, caller: &str, token: &str) -> Option<Refresh> {
        let payload = self.checked(Kind::Refresh, token)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let (bound, issued): (Bound<'_>, i64) = serde_json::from_slice(&payload).ok()?;
        Some(Refresh {
            holder: bound.holder(caller)?,
            issued: moment(issued),
        })
    }

    fn signed(&self, kind: Kind, text: String) -> String {
        let mac = self.keys.mac(&[kind.name(), text.as_bytes()]);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// What was signed, if it was.
    fn checked<'t>(&self, kind: Kind, token: &'t str) -> Option<&'t str> {
        let (text, mac) = token.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let parts = [kind.name(), text.as_bytes()];
        self.keys.verify(&parts, &mac).then_some(text)
    }
}

impl Access {
    /// Whether it still names its holder.
    pub(super) fn names_at(&self, now: Timestamp) -> bool {
        now <= self.expires.plus(GRACE)
    }
}

impl Refresh {
    /// Whether it still renews.
    pub(super) fn renews_at(&self, now: Timestamp) -> bool {
        now <= self.issued.plus(REFRESH_LIFE)
    }
}

impl<'a> Bound<'a> {
    fn of(caller: &'a str, holder: &Holder) -> Bound<'a> {
        Bound {
            principal: holder.principal.to_string().into(),
            epoch: holder.epoch,
            caller: caller.into(),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::seal::Ring;
    use crate::secret::Secret;
    use base64::engine::general_purpose::STANDARD;

    const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn key(byte: u8) -> Secret {
        Secret::new(STANDARD.encode([byte; 32]))
    }

    fn mint(current: u8, old: &[u8]) -> Mint {
        let old: Vec<_> = old.iter().copied().map(key).collect();
        Mint::new(Ring::new(&key(current), &old).unwrap().token_keys())
    }

    fn holder() -> Holder {
        Holder {
            principal: Principal::Account("reporting".into()),
            epoch: 7,
        }
    }

    fn access(mint: &Mint) -> String {
        let claims = Map::from_iter([("IsAdmin".to_owned(), "True".into())]);
        mint.access("billing", &holder(), claims, NOW, HOUR)
    }

    #[test]
    fn a_token_is_read_as_it_was_made_by_the_caller_that_it_was_made_for() {
        let mint = mint(1, &[]);
        let token = access(&mint);
        let read = mint.read_access("billing", &token).unwrap();
        assert_eq!(read.holder, holder());
        assert_eq!(mint.read_access("other", &token), None);
        let token = mint.refresh("billing", &holder(), NOW);
        let read = mint.read_refresh("billing", &token).unwrap();
        assert_eq!(read.holder, holder());
        assert_eq!(mint.read_refresh("other", &token), None);
    }

    #[test]
    fn an_access_token_has_the_shape_of_a_jwt_and_its_claims() {
        let token = access(&mint(1, &[]));
        let part = |index| -> Value {
            let part = token.split('.').nth(index).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(token.split('.').count(), 3);
        let header = serde_json::json!({"alg": "HS256", "typ": "JWT", "kid": "damoov-proxy"});
        assert_eq!(part(0), header);
        assert!(is_ours(&token));
        assert_eq!(part(1)["IsAdmin"], "True");
        assert_eq!(part(1)["iat"], NOW.as_millis() / 1000);
        assert_eq!(part(1)["exp"], NOW.as_millis() / 1000 + 3600);
    }

    #[test]
    fn tokens_end_a_day_past_their_exp_and_after_ninety_days() {
        let mint = mint(1, &[]);
        let token = mint.read_access("billing", &access(&mint)).unwrap();
        let end = NOW.plus(HOUR + DAY);
        assert!(token.names_at(end));
        assert!(!token.names_at(end.plus(Duration::from_secs(1))));
        let token = mint.refresh("billing", &holder(), NOW);
        let token = mint.read_refresh("billing", &token).unwrap();
        let end = NOW.plus(90 * DAY);
        assert!(token.renews_at(end));
        assert!(!token.renews_at(end.plus(Duration::from_secs(1))));
    }

    #[test]
    fn another_key_makes_other_tokens_and_an_old_key_still_reads() {
        let former = mint(1, &[]);
        let token = access(&former);
        assert!(mint(2, &[1]).read_access("billing", &token).is_some());
        assert_eq!(mint(2, &[]).read_access("billing", &token), None);
        let newer = access(&mint(2, &[1]));
        assert_eq!(former.read_access("billing", &newer), None);
    }

    #[test]
    fn one_kind_of_token_never_passes_for_the_other() {
        let mint = mint(1, &[]);
        let refresh = mint.refresh("billing", &holder(), NOW);
        assert_eq!(mint.read_access("billing", &refresh), None);
        assert_eq!(mint.read_refresh("billing", &access(&mint)), None);
    }

    proptest::proptest! {
        /// Whatever is changed, left out or made up.
        #[test]
        fn nothing_but_what_was_made_is_read(
            at in 0..10_000_usize, byte in 0..=127_u8, made_up in "\\PC{0,40}(\\.\\PC{0,40}){0,3}",
        ) {
            let mint = mint(1, &[]);
            let token = access(&mint);
            let mut forged = token.clone().into_bytes();
            let at = at % forged.len();
            forged[at] = byte;
            let forged = String::from_utf8(forged).unwrap();
            let read = mint.read_access("billing", &forged);
            proptest::prop_assert_eq!(read.is_some(), forged == token);
            proptest::prop_assert!(mint.read_access("billing", &token[..at]).is_none());
            proptest::prop_assert!(mint.read_access("billing", &made_up).is_none());
            proptest::prop_assert!(mint.read_refresh("billing", &made_up).is_none());
        }
    }
}
