//! By what means a pair is renewed, and what refuses a renewal early: before its turn, before a lease is
//! taken, and before a slot of the budget is.

use super::identity::{Identity, Key, class};
use super::renewals::{Probing, Renewal, Reserve};
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::remembered;
use crate::credentials::vault::pair::Pair;
use crate::store::{Class, Entry};

/// By what means a pair is renewed.
#[derive(Debug)]
pub(crate) enum Means {
    /// By a refresh with this pair, which is free.
    Refresh(Pair),
    /// By a login: there is no RefreshToken, or it is dead.
    LogIn,
}

/// The class of the budget that the login of a renewal takes its slot from.
pub(crate) fn class_of(renewal: &Renewal, entry: &Entry) -> Class {
    match renewal.ask.reserve {
        Reserve::Open => class(&renewal.principal, entry),
        Reserve::Closed => Class::New,
    }
}

impl Engine {
    /// By what means the pair in `entry` is renewed. Refuses what could only end in a refused login.
    pub(crate) fn means(&self, renewal: &Renewal, entry: &Entry) -> Result<Means, Error> {
        let guard = &self.guards.mass_rejection;
        if renewal.ask.probing == Probing::No
            && let Some(rejected) = guard.waits_with(&renewal.principal)
        {
            if entry.record.is_some() && rejected == (entry.generation, entry.epoch) {
                return Err(guard.refusal());
            }
            guard.moved_on(&renewal.principal);
        }
        if let Some(pair) = self.refreshable(renewal, entry)? {
            return Ok(Means::Refresh(pair));
        }
        self.check_remembered(entry, self.identity(renewal, entry)?.key)?;
        self.guards.contested.check_known(entry)?;
        Ok(Means::LogIn)
    }

    /// Refuses a principal that waits because logins are suspended, before it takes a turn or a lease.
    /// Reads the store only if the principal waits.
    pub(crate) async fn check_not_waiting(&self, renewal: &Renewal) -> Result<(), Error> {
        let guard = &self.guards.mass_rejection;
        if guard.waits_with(&renewal.principal).is_some() {
            let entry = self.read(renewal).await?;
            self.means(renewal, &entry)?;
        }
        Ok(())
    }

    /// Who logs in, with what.
    pub(crate) fn identity(&self, renewal: &Renewal, entry: &Entry) -> Result<Identity, Error> {
        let (directory, ring) = (&self.current.now().directory, &self.vault.ring);
        Identity::of(
            directory,
            ring,
            &renewal.principal,
            renewal.ask.instance,
            entry,
        )
    }

    /// Refuses a login that was rejected with the same key a while ago.
    pub(crate) fn check_remembered(&self, entry: &Entry, key: Key) -> Result<(), Error> {
        let longest = self.current.now().settings.remember_rejected;
        let now = self.vault.wall();
        match remembered::rejected_for(&entry.notes, key.fingerprint, now, longest) {
            Some(_) => Err(Error::LoginRejected),
            None => Ok(()),
        }
    }

    /// The pair in `entry`, if a refresh with it comes before a login.
    fn refreshable(&self, renewal: &Renewal, entry: &Entry) -> Result<Option<Pair>, Error> {
        // A probe asks again: it may have been the API that was wrong.
        let is_dead = entry.notes.refresh_dead == Some(entry.generation);
        if is_dead && renewal.ask.probing == Probing::No {
            return Ok(None);
        }
        let pair = self.vault.open(&renewal.principal, entry)?;
        Ok(pair.filter(|pair| pair.refresh_token.is_some()))
    }
}
