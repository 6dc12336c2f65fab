//! Principals that somebody else logs in too, a phone app say: each login ends the other's tokens, so
//! that one of ours is made in `contested_backoff`.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::renewal::login::stands;
use crate::credentials::renewal::renewals::Renewal;
use crate::principal::Principal;
use crate::store::{Entry, Note};

/// A pair of ours rejected so soon after a login that replaced another of ours: somebody else logs
/// this principal in too.
const AGAIN_WITHIN: Duration = Duration::from_secs(24 * 3600);

impl Engine {
    /// One login in `contested_backoff` for a principal that somebody else logs in too. Finds out
    /// whether it is one.
    pub(crate) async fn check_contested(
        &self,
        renewal: &Renewal,
        entry: &Entry,
    ) -> Result<(), Error> {
        self.check_known_contested(entry)?;
        let now = self.wall();
        let Some(last) = entry.notes.displaced.filter(|_| self.is_displaced(entry)) else {
            return Ok(());
        };
        let until = last.plus(self.settings.contested_backoff);
        if now.since(last) > AGAIN_WITHIN || now >= until {
            return Ok(());
        }
        tracing::warn!(
            principal = self.log_name(&renewal.principal).as_str(),
            "another program logs this principal in as well; from now on one login per \
             `contested_backoff`: does a second damoov-proxy with another store serve this user, \
             or an app that logs in by \
             itself?"
        );
        self.note(&renewal.principal, Note::ContestedUntil(until))
            .await?;
        self.note_contested(&renewal.principal, entry.epoch, until);
        Err(Error::Contested {
            retry_after: self.clock.to_real(until.since(now)),
        })
    }

    pub(crate) fn check_known_contested(&self, entry: &Entry) -> Result<(), Error> {
        let left = entry
            .notes
            .contested_until
            .map(|until| until.since(self.wall()));
        match left {
            Some(left) if stands(left, self.settings.contested_backoff) => Err(Error::Contested {
                retry_after: self.clock.to_real(left),
            }),
            _ => Ok(()),
        }
    }

    /// Remembers, for the metric, that a principal is contested.
    fn note_contested(&self, principal: &Principal, epoch: u64, until: Timestamp) {
        let mut contested = self.contested();
        contested.insert(principal.clone(), (epoch, until));
    }

    /// A principal whose epoch is another one now was forgotten: nobody contests it.
    pub(crate) fn uncontest(&self, principal: &Principal, epoch: Option<u64>) {
        let mut contested = self.contested();
        if let Some((then, _)) = contested.get(principal)
            && Some(*then) != epoch
        {
            contested.remove(principal);
        }
    }

    /// How many principals are contested now.
    pub(crate) fn count_contested(&self) -> i64 {
        let now = self.wall();
        let mut contested = self.contested();
        contested.retain(|_, (_, until)| *until > now);
        contested.len().try_into().unwrap_or(i64::MAX)
    }

    fn contested(&self) -> MutexGuard<'_, HashMap<Principal, (u64, Timestamp)>> {
        self.contested
            .lock()
            .expect("no code panics under this lock")
    }

    /// Whether a pair that this very run committed was rejected, without a lost answer.
    pub(crate) fn is_displaced(&self, entry: &Entry) -> bool {
        !self.settings.contested_backoff.is_zero()
            && entry.notes.refresh_dead == Some(entry.generation)
            && entry.notes.answer_lost != Some(entry.generation)
            && entry
                .record
                .as_ref()
                .is_some_and(|record| record.run == self.run)
    }
}
