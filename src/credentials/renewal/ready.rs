//! What a renewal that can only log in gets before it takes the lease: everything that the budget and the
//! other guards may refuse. So a user whom they refuse costs the store no write.

use super::identity::Key;
use super::leased::Found;
use super::means::class_of;
use super::renewals::Renewal;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::backoff::Permit;
use crate::credentials::guards::seeker::Seeker;
use crate::store::{Class, Entry, SlotId};

/// A login that may be sent once the lease is taken. If it is not, it is handed to
/// [`Engine::not_needed`].
#[must_use = "the slot is taken"]
pub(crate) struct Ready<'a> {
    /// As it stood when the guards were asked: what they said holds for this one only.
    entry: Entry,
    key: Key,
    class: Class,
    slot: SlotId,
    permit: Permit<'a>,
}

impl Engine {
    /// Everything that a login for the pair in `entry` needs but the lease. Returns `None` if it is not to be
    /// sent any more: another pair stands, or no caller waits for it.
    pub(super) async fn get_ready(
        &self,
        renewal: &Renewal,
        entry: Entry,
    ) -> Result<Option<Ready<'_>>, Error> {
        if renewal.is_deserted() || !self.outlast_doubt_of_a_pair(renewal, &entry).await? {
            return Ok(None);
        }
        let found = Found::new(entry);
        let class = class_of(renewal, found.entry());
        let key = self.may_log_in(renewal, &found, class).await?;
        let ready = loop {
            match self.slot_and_permit(renewal, class).await {
                Ok(Some((slot, Some(permit)))) => break Ok(Some((slot, permit))),
                Ok(Some((slot, None))) => self.guards.budget.give_back(slot).await,
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        match ready {
            Ok(Some((slot, permit))) => Ok(Some(Ready {
                entry: found.entry().clone(),
                key,
                class,
                slot,
                permit,
            })),
            none => {
                self.give_breaker_back(key, class).await;
                let none = none.map(|_| None);
                none.map_err(|error| self.refused_in_line(renewal, error))
            }
        }
    }

    /// What was taken for a login with `key` for the pair in `entry`. If it was taken for another one, it is
    /// given back.
    pub(super) async fn ready_for<'a>(
        &self,
        entry: &Entry,
        key: Key,
        ready: &mut Option<Ready<'a>>,
    ) -> Option<(SlotId, Permit<'a>)> {
        let ready = ready.take()?;
        if (&ready.entry, ready.key) == (entry, key) {
            return Some((ready.slot, ready.permit));
        }
        self.not_needed(ready).await;
        None
    }

    /// The login is not sent: what was taken for it is free again.
    pub(super) async fn not_needed(&self, ready: Ready<'_>) {
        let Ready {
            key, class, slot, ..
        } = ready;
        self.guards.budget.give_back(slot).await;
        self.give_breaker_back(key, class).await;
    }
}

#[cfg(test)]
mod tests;
