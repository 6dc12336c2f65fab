//! Whether a pair that is offered takes the place of the stored one, and how it does: beside a
//! running proxy, whose own commits are never overwritten unseen.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::offer::Offer;
use super::{Target, count_as_used};
use crate::cli::opening::OpenStore;
use crate::credentials::Pair;
use crate::credentials::seal::{Ring, Unopened};
use crate::damoov::jwt::Claims;
use crate::principal::Principal;
use crate::store::{self, Commit, Entry, Lease, LeaseId, Record};

/// A lease that a running proxy holds for a renewal is waited for this long, asked for this often.
const LEASE_WAIT: Duration = Duration::from_secs(30);
const LEASE_AGAIN: Duration = Duration::from_millis(100);
/// The lease of one import.
const LEASE: Duration = Duration::from_secs(15);
/// How often a pair is compared anew with one that was committed meanwhile. Under the lease only
/// the tokens of a registration are.
const COMPARISONS: u32 = 10;

/// Adopts pairs into a store.
pub(super) struct Adopter<'a> {
    pub(super) into: Target<'a>,
    /// Also in the place of newer ones.
    pub(super) overwrite: bool,
}

/// What is done with a pair that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It takes the place of what is stored, if anything is.
    Import,
    /// The stored one stays.
    Keep(Why),
}

/// Why the stored pair stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is the one that is offered.
    Same,
    /// It was issued later, or in the place of the one that is offered.
    Newer,
    /// One of both does not say when it was issued.
    Undated,
}

impl Why {
    /// Whether this needs no line in the output.
    pub(super) fn is_usual(self) -> bool {
        self != Why::Undated
    }
}

/// Completes "the stored pair stays: …".
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Same => "it is the same pair",
            Why::Newer => "it is newer",
            Why::Undated => {
                "an AccessToken does not say when it was issued (--overwrite replaces the stored one)"
            }
        })
    }
}

/// Why a pair was neither adopted nor found older.
pub(super) enum NotAdopted {
    /// Something about this principal; a sentence.
    Line(String),
    /// The store fails, for this one as for all others.
    Store(store::Error),
}

impl From<store::Error> for NotAdopted {
    fn from(error: store::Error) -> NotAdopted {
        match error {
            error if error.is_of_one_entry() => NotAdopted::Line(error.to_string()),
            error => NotAdopted::Store(error),
        }
    }
}

impl Adopter<'_> {
    /// Decides, and commits the pair if that is the decision. Durable on return.
    pub(super) async fn adopt(&self, offer: &Offer) -> Result<Decision, NotAdopted> {
        let principal = &offer.principal;
        match self.into {
            Target::DryRun(None) => Ok(Decision::Import),
            Target::DryRun(Some(view)) => {
                let entry = view.store.load(principal).await?;
                Ok(self.decide(&view.ring, offer, &entry)?.0)
            }
            Target::Store(open) => {
                let id = LeaseId::fresh();
                let adopted = match leased(open, principal, id).await {
                    Ok(entry) => self.commit(open, offer, entry, id).await,
                    Err(error) => Err(error),
                };
                open.store.release(principal, id);
                let adopted = adopted?;
                count_as_used(open, [principal]).await?;
                Ok(adopted)
            }
        }
    }

    async fn commit(
        &self,
        open: &OpenStore,
        offer: &Offer,
        mut entry: Entry,
        lease: LeaseId,
    ) -> Result<Decision, NotAdopted> {
        let OpenStore { store, ring, run } = open;
        for _ in 0..COMPARISONS {
            let (decision, stored) = self.decide(ring, offer, &entry)?;
            if decision != Decision::Import {
                return Ok(decision);
            }
            let pair = offer.pair.clone().replacing(stored.as_ref());
            let record = Record {
                instance: offer.instance,
                known: true,
                sealed: pair.seal(ring, &offer.principal),
                key: ring.key_id(),
                received: pair.received,
                expires: pair.expires(),
                run: *run,
            };
            let committed = store
                .commit(&offer.principal, record, entry.version(), Some(lease))
                .await?;
            match committed {
                Commit::Committed(_) => return Ok(Decision::Import),
                Commit::Superseded(now) => entry = now,
            }
        }
        Err(NotAdopted::Line(format!(
            "{} was changed by another process again and again; import it again",
            offer.principal
        )))
    }

    /// The decision, and the pair that stands in `entry`.
    fn decide(
        &self,
        ring: &Ring,
        offer: &Offer,
        entry: &Entry,
    ) -> Result<(Decision, Option<Pair>), NotAdopted> {
        let Some(record) = &entry.record else {
            return Ok((Decision::Import, None));
        };
        let stored = match Pair::of_record(ring, &offer.principal, record) {
            Ok(pair) => Some(pair),
            Err(Unopened::UnknownKey) => {
                return Err(NotAdopted::Line(format!(
                    "the stored pair is sealed with the key {}, which is not configured",
                    record.key
                )));
            }
            // A damaged record is worth nothing.
            Err(Unopened::Malformed | Unopened::Forged) => None,
        };
        let decision = match &stored {
            None => Decision::Import,
            Some(stored) => {
                let is_dead = entry.notes.refresh_dead == Some(entry.generation);
                decide(&offer.pair, stored, is_dead, self.overwrite)
            }
        };
        Ok((decision, stored))
    }
}

/// The entry, under a lease: no renewal of its pair is under way.
async fn leased(open: &OpenStore, principal: &Principal, id: LeaseId) -> Result<Entry, NotAdopted> {
    let started = Instant::now();
    while started.elapsed() < LEASE_WAIT {
        let (lease, entry) = open.store.lease(principal, id, LEASE).await?;
        match lease {
            Lease::Granted { .. } => return Ok(entry?),
            Lease::Held { left } => tokio::time::sleep(left.min(LEASE_AGAIN)).await,
        }
    }
    Err(NotAdopted::Line(format!(
        "a running proxy has been renewing {principal} for {} seconds; import it again",
        LEASE_WAIT.as_secs()
    )))
}

/// Whether `offered` takes the place of `stored`, whose RefreshToken may be known dead.
fn decide(offered: &Pair, stored: &Pair, is_dead: bool, overwrite: bool) -> Decision {
    let same_refresh_token = match (&offered.refresh_token, &stored.refresh_token) {
        (Some(offered), Some(stored)) => offered.expose() == stored.expose(),
        (offered, stored) => offered.is_none() && stored.is_none(),
    };
    let same_jwt = offered.access_token.expose() == stored.access_token.expose();
    if same_refresh_token && (same_jwt || is_dead) {
        return Decision::Keep(Why::Same);
    }
    if overwrite || is_dead {
        return Decision::Import;
    }
    let issued = |pair: &Pair| Claims::read(pair.access_token.expose()).issued;
    match (issued(offered), issued(stored)) {
        (Some(offered), Some(stored)) if offered < stored => Decision::Keep(Why::Newer),
        // Even if the stored one replaced it: an older pair may have been written over it.
        (Some(offered), Some(stored)) if offered > stored => Decision::Import,
        // `iat` counts seconds: what the stored pair replaced may have been issued in the same one.
        _ if stored.replaced(offered) => Decision::Keep(Why::Newer),
        (Some(_), Some(_)) => Decision::Import,
        (None, _) | (_, None) => Decision::Keep(Why::Undated),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::clock::Timestamp;
    use crate::secret::Secret;

    /// A pair of a JWT with this `iat`, told apart by `serial`.
    fn pair(issued: Option<i64>, serial: u32) -> Pair {
        let payload = match issued {
            Some(issued) => format!(r#"{{"iat":{issued},"jti":"{serial}"}}"#),
            None => format!(r#"{{"jti":"{serial}"}}"#),
        };
        let jwt = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        Pair::imported(
            &Principal::Account("a".into()),
            Secret::new(jwt),
            Secret::new(format!("refresh {serial}")),
            Timestamp::from_millis(1_000_000),
        )
        .unwrap()
    }

    fn decided(offered: &Pair, stored: &Pair) -> Decision {
        decide(offered, stored, false, false)
    }

    #[test]
    fn the_pair_that_was_issued_later_stays_or_comes() {
        let (old, new) = (pair(Some(100), 1), pair(Some(101), 2));
        assert_eq!(decided(&new, &old), Decision::Import);
        assert_eq!(decided(&old, &new), Decision::Keep(Why::Newer));
        assert_eq!(decided(&old, &old), Decision::Keep(Why::Same));
    }

    #[test]
    fn within_one_second_what_the_stored_pair_replaced_is_older() {
        let (first, second) = (pair(Some(100), 1), pair(Some(100), 2));
        let second = second.replacing(Some(&first));
        assert_eq!(decided(&first, &second), Decision::Keep(Why::Newer));
        assert_eq!(decided(&second, &first), Decision::Import);
    }

    #[test]
    fn a_newer_pair_comes_back_after_an_older_one_was_written_over_it() {
        let (old, new) = (pair(Some(100), 1), pair(Some(101), 2));
        let old = old.replacing(Some(&new));
        assert_eq!(decided(&new, &old), Decision::Import);
    }

    #[test]
    fn a_pair_that_does_not_say_when_it_was_issued_replaces_none() {
        for (offered, stored) in [(None, Some(1)), (Some(1), None), (None, None)] {
            let decision = decided(&pair(offered, 1), &pair(stored, 2));
            assert_eq!(decision, Decision::Keep(Why::Undated));
        }
    }

    #[test]
    fn a_dead_pair_gives_way_to_any_but_itself() {
        let stored = pair(Some(100), 1);
        let mut other_jwt = pair(Some(200), 2);
        other_jwt.refresh_token = stored.refresh_token.clone();
        for same in [&stored, &other_jwt] {
            for overwrite in [false, true] {
                let decision = decide(same, &stored, true, overwrite);
                assert_eq!(decision, Decision::Keep(Why::Same));
            }
        }
        for other in [pair(Some(50), 3), pair(None, 4)] {
            assert_eq!(decide(&other, &stored, true, false), Decision::Import);
        }
    }

    #[test]
    fn overwriting_takes_the_place_of_newer_ones() {
        let (old, new) = (pair(Some(100), 1), pair(Some(101), 2));
        assert_eq!(decide(&old, &new, false, true), Decision::Import);
        assert_eq!(decide(&pair(None, 3), &new, false, true), Decision::Import);
    }
}
