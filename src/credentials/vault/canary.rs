//! Which key a store belongs to. It keeps the canary, a known text that was sealed with its key: who opens that
//! has the key. Records may need others; the store says which.

use std::fmt;

use super::seal::{self, Ring};
use crate::store::{self, KeyId, Store};

/// What is sealed, and whose it is. No principal displays as this.
const CANARY: &str = "canary";

/// Why a store is not to be used with a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The store was sealed with another key.
    #[error(
        "the store was sealed with another key: configure that one as [store] key or in old_keys"
    )]
    WrongKey,
    /// Records are sealed with keys that are not on the ring.
    #[error(
        "the store holds pairs sealed with keys that are not configured ({}): put those keys back \
         into [store] old_keys, and drop a key only once `damoov-proxy tokens reseal` says that \
         nothing is sealed with it",
        Needed(.0)
    )]
    MissingKeys(Vec<(KeyId, u64)>),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Keys, and how many records each is needed for.
struct Needed<'a>(&'a [(KeyId, u64)]);

/// `1a2b3c4d: 3 pairs, 5e6f7a8b: 1 pair`
impl fmt::Display for Needed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, records)) in self.0.iter().enumerate() {
            let (comma, s) = (
                if place == 0 { "" } else { ", " },
                if *records == 1 { "" } else { "s" },
            );
            write!(f, "{comma}{key}: {records} pair{s}")?;
        }
        Ok(())
    }
}

/// Proves that `ring` holds the key of `store`, and marks a new store as its own. From then on the
/// current key is that of an embedded store; old ones are needed only for records that were not sealed
/// anew since, which [`check_records`] says. A shared store keeps its key until [`take_over`].
pub async fn verify(ring: &Ring, store: &dyn Store) -> Result<(), Unverified> {
    let stands = store.leave_canary(canary(ring)).await?;
    check(ring, &stands)?;
    // Others may not know the current key yet.
    if !store.condition().shared {
        replace(ring, store, stands).await?;
    }
    Ok(())
}

/// Makes the current key that of `store`, once no record needs another. Returns false if somebody made
/// another key the store's meanwhile.
pub async fn take_over(ring: &Ring, store: &dyn Store) -> Result<bool, Unverified> {
    let stands = store.leave_canary(canary(ring)).await?;
    check(ring, &stands)?;
    Ok(replace(ring, store, stands).await?)
}

async fn replace(ring: &Ring, store: &dyn Store, stands: Vec<u8>) -> Result<bool, store::Error> {
    match seal::key_of(&stands) == Some(ring.key_id()) {
        true => Ok(true),
        false => store.replace_canary(stands, canary(ring)).await,
    }
}

/// Proves that `ring` holds the key of the store that keeps this canary. Changes nothing.
pub fn check(ring: &Ring, canary: &[u8]) -> Result<(), Unverified> {
    match ring.open_for(CANARY, CANARY, canary) {
        Ok(_) => Ok(()),
        Err(_) => Err(Unverified::WrongKey),
    }
}

/// Proves that `ring` holds every key that a record needs: `needed` says how many need each.
/// Returns how many need each of its old keys.
pub fn check_records(
    ring: &Ring,
    needed: &[(KeyId, u64)],
) -> Result<Vec<(KeyId, u64)>, Unverified> {
    let missing: Vec<_> = needed
        .iter()
        .filter(|(key, _)| !ring.holds(*key))
        .copied()
        .collect();
    if !missing.is_empty() {
        return Err(Unverified::MissingKeys(missing));
    }
    let records = |key| needed.iter().find(|(needed, _)| *needed == key);
    let old = ring.old_key_ids();
    Ok(old
        .map(|key| (key, records(key).map_or(0, |(_, records)| *records)))
        .collect())
}

fn canary(ring: &Ring) -> Vec<u8> {
    ring.seal_for(CANARY, CANARY, CANARY.as_bytes())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;
    use crate::clock::Clock;
    use crate::secret::Secret;
    use crate::store::contract::{open_in, run};
    use crate::store::{Pseudonyms, RunId};

    fn key(n: u8) -> Secret {
        Secret::new(BASE64_STANDARD.encode([n; 32]))
    }

    fn ring(n: u8) -> Ring {
        Ring::new(&key(n), &[]).unwrap()
    }

    #[tokio::test]
    async fn a_store_is_refused_with_another_key_and_accepted_with_a_rotated_one() {
        let directory = tempfile::tempdir().unwrap();
        let open = |run: RunId| open_in(directory.path(), Pseudonyms::none(), run, Clock::real());
        assert_eq!(verify(&ring(1), &*open(run())).await, Ok(()));
        let other = verify(&ring(2), &*open(run())).await;
        assert_eq!(other, Err(Unverified::WrongKey));
        let rotated = Ring::new(&key(2), &[key(1)]).unwrap();
        assert_eq!(verify(&rotated, &*open(run())).await, Ok(()));
        let without_the_old = Ring::new(&key(2), &[]).unwrap();
        assert_eq!(verify(&without_the_old, &*open(run())).await, Ok(()));
        let former = verify(&ring(1), &*open(run())).await;
        assert_eq!(former, Err(Unverified::WrongKey));
    }
}
