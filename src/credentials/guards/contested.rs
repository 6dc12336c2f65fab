//! Principals that something else logs in too, such as a phone app. Each login ends the other's tokens,
//! so that this proxy makes one login in `contested_backoff` for such a principal.
//!
//! ```text
//!                     a pair is rejected, for no known reason
//!   alone ─────────────────────────────────────────────────────────────────────▶ displaced
//!     ▲                                                                              │ a login, which
//!     │  24 h without a second one                                                   ▼ is noted
//!     ├──────────────────────────────────────────────────────────────────── displaced before
//!     │                                                                              │ displaced again
//!     │  `contested_backoff` after the first                                         ▼
//!     └─────────────────────────────────────────────────────────────────────────  contested: no login
//! ```
//!
//! A rejection shows that only where the pair is surely the newest one that this proxy was given. On a
//! store that other machines share, any process may have committed it: the store keeps what it
//! acknowledged. On a store of one machine, which may be a backup that was put back, this very run must
//! have committed it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::remembered::holds;
use crate::clock::{Clock, Timestamp};
use crate::credentials::Error;
use crate::credentials::settings::Current;
use crate::credentials::vault::Vault;
use crate::principal::Principal;
use crate::store::{Entry, Note, Store};

/// A principal that is displaced again within this time of a login that followed a displacement is
/// contested.
const AGAIN_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// The guard against contests.
pub(crate) struct Contested {
    /// Which principals are contested, with the epoch of their entry, until when. Only counted: the note
    /// in the store is what holds logins back.
    known: Mutex<HashMap<Principal, (u64, Timestamp)>>,
    /// Its clock is the notes'.
    store: Arc<dyn Store>,
    current: Current,
    clock: Clock,
}

impl Contested {
    pub(crate) fn new(current: Current, store: Arc<dyn Store>, clock: Clock) -> Contested {
        Contested {
            known: Mutex::default(),
            store,
            current,
            clock,
        }
    }

    /// Whether `principal`, whose pair stands in `entry`, may log in: not if it is known to be
    /// contested, nor if it is `displaced` and so found to be.
    pub(crate) async fn check(
        &self,
        vault: &Vault,
        principal: &Principal,
        entry: &Entry,
        displaced: bool,
    ) -> Result<(), Error> {
        self.check_known(entry)?;
        let now = self.store.now();
        let Some(last) = entry.notes.displaced.filter(|_| displaced) else {
            return Ok(());
        };
        let until = last.plus(self.backoff());
        if now.since(last) > AGAIN_WITHIN || now >= until {
            return Ok(());
        }
        tracing::warn!(
            principal = vault.log_name(principal).as_str(),
            "another program logs this principal in as well; from now on one login per \
             `contested_backoff`: does a second damoov-proxy with another store serve this user, \
             or an app that logs in by itself?"
        );
        vault.note(principal, Note::ContestedUntil(until)).await?;
        self.note_contested(principal, entry.epoch, until);
        Err(self.refusal(until.since(now)))
    }

    /// Whether the principal of `entry` may log in, as far as its notes tell.
    pub(crate) fn check_known(&self, entry: &Entry) -> Result<(), Error> {
        match self.left(entry) {
            Some(left) => Err(self.refusal(left)),
            None => Ok(()),
        }
    }

    fn left(&self, entry: &Entry) -> Option<Duration> {
        left(entry, self.store.now(), self.backoff())
    }

    /// Whether a rejection of the pair in `entry`, for no known reason, shows that something else logs its
    /// principal in.
    pub(crate) fn would_show(&self, vault: &Vault, entry: &Entry) -> bool {
        let record = entry.record.as_ref();
        let is_newest =
            record.is_some_and(|record| record.run == vault.run || self.store.condition().shared);
        is_newest && !self.backoff().is_zero()
    }

    fn note_contested(&self, principal: &Principal, epoch: u64, until: Timestamp) {
        self.lock().insert(principal.clone(), (epoch, until));
    }

    /// Counts `principal` no longer if its epoch is another one now: it was forgotten.
    pub(crate) fn follow(&self, principal: &Principal, epoch: Option<u64>) {
        let mut known = self.lock();
        if let Some((then, _)) = known.get(principal)
            && Some(*then) != epoch
        {
            known.remove(principal);
        }
    }

    /// Those that are counted.
    pub(crate) fn principals(&self) -> Vec<Principal> {
        self.lock().keys().cloned().collect()
    }

    /// How many principals are contested now.
    pub(crate) fn count(&self) -> i64 {
        let now = self.store.now();
        let mut known = self.lock();
        known.retain(|_, (_, until)| *until > now);
        known.len().try_into().unwrap_or(i64::MAX)
    }

    fn refusal(&self, left: Duration) -> Error {
        Error::Contested {
            retry_after: self.clock.to_real(left),
        }
    }

    fn backoff(&self) -> Duration {
        self.current.now().settings.contested_backoff
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, (u64, Timestamp)>> {
        self.known.lock().expect("no code panics under this lock")
    }
}

/// How long the principal of `entry` is still contested; `None` if it is not.
pub(crate) fn left(entry: &Entry, now: Timestamp, contested_backoff: Duration) -> Option<Duration> {
    let left = entry.notes.contested_until?.since(now);
    holds(left, contested_backoff).then_some(left)
}
