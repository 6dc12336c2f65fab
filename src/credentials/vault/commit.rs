//! New pairs: durable first, then in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::Vault;
use super::credentials::{Credentials, SCHEME};
use super::hold::Hold;
use super::pair::Pair;
use crate::credentials::Error;
use crate::credentials::closing::Closing;
use crate::metrics::StoreOperation;
use crate::principal::{InstanceId, Principal};
use crate::store::{self, Commit, Entry, Generation, Record};

/// While a commit cannot be made durable it is tried again this often.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// A pair that is to be made durable.
#[derive(Clone, Copy)]
pub(crate) struct NewPair<'a> {
    /// Whose.
    pub(crate) principal: &'a Principal,
    /// The entry that it replaces the pair of.
    pub(crate) entry: &'a Entry,
    /// The instance that it was issued under; `None` for an account.
    pub(crate) instance: Option<InstanceId>,
    /// The lease that ends with it; `None` if there is none, or if the renewal goes on.
    pub(crate) lease: Option<&'a Hold>,
}

/// What came of making a pair durable.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it arrives"
)]
pub(crate) enum Committed {
    /// It is durable and published. `None` if its token may not be used, because a 401 came back
    /// for it.
    Durable(Option<Arc<Credentials>>),
    /// Another process committed first; nothing was written. What is in the store now.
    Superseded(Entry),
}

impl Vault {
    /// Makes `pair` durable and publishes it. Returns the credentials that are in the store then: those of
    /// another process, if that one committed first.
    pub(crate) async fn commit(
        &self,
        new: NewPair<'_>,
        pair: &Pair,
        on_error: impl Fn(Error),
    ) -> Result<Option<Arc<Credentials>>, Error> {
        let committed = self.make_durable(new, pair, on_error).await?;
        self.published(new.principal, committed)
    }

    /// As [`Vault::commit`], for the pair of a login. It replaces a pair that was adopted meanwhile, too:
    /// that one is a registration's, which the login has revoked.
    pub(crate) async fn commit_login(
        &self,
        new: NewPair<'_>,
        pair: Pair,
        on_error: impl Fn(Error),
    ) -> Result<Option<Arc<Credentials>>, Error> {
        let NewPair {
            principal,
            entry,
            lease,
            ..
        } = new;
        let pair = pair.replacing(self.open(principal, entry)?.as_ref());
        let committed = self.make_durable(new, &pair, &on_error).await?;
        // When it was named, there may have been no pair to remember the day of.
        self.note_named(principal);
        match committed {
            // While this process holds the lease, no other one renews.
            Committed::Superseded(now)
                if now.record.as_ref().is_some_and(|record| {
                    record.run == self.run
                        || lease.is_some_and(|hold| hold.outlasts(Duration::ZERO))
                }) =>
            {
                let pair = pair.replacing(self.open(principal, &now)?.as_ref());
                let new = NewPair { entry: &now, ..new };
                self.commit(new, &pair, on_error).await
            }
            committed => self.published(principal, committed),
        }
    }

    /// The credentials that are in the store after a commit.
    fn published(
        &self,
        principal: &Principal,
        committed: Committed,
    ) -> Result<Option<Arc<Credentials>>, Error> {
        match committed {
            Committed::Durable(credentials) => Ok(credentials),
            Committed::Superseded(now) => {
                let pair = self.open(principal, &now)?;
                Ok(pair.and_then(|pair| self.publish_entry(principal, &now, &pair)))
            }
        }
    }

    /// Makes `pair` durable and publishes it. While the medium fails it tells `on_error` and tries
    /// again, until the process ends: the old pair is worth nothing any more.
    pub(crate) async fn make_durable(
        &self,
        new: NewPair<'_>,
        pair: &Pair,
        on_error: impl Fn(Error),
    ) -> Result<Committed, Error> {
        let NewPair {
            principal,
            entry,
            instance,
            lease,
        } = new;
        if let Some(stands) = &entry.record {
            self.check_key(stands)?;
        }
        let record = Record {
            instance,
            known: true,
            sealed: pair.seal(&self.ring, principal),
            key: self.ring.key_id(),
            received: pair.received,
            expires: pair.expires(),
            run: self.run,
        };
        let as_of = self.cache.moved();
        loop {
            let committed = self
                .store
                .commit(
                    principal,
                    record.clone(),
                    entry.version(),
                    lease.map(Hold::id),
                )
                .await;
            let error = match self.counted(StoreOperation::Commit, committed) {
                Ok(Commit::Committed(generation)) => {
                    self.saved();
                    if let Some(hold) = lease {
                        hold.end();
                    }
                    return self.publish_new(new, generation, pair, as_of);
                }
                Ok(Commit::Superseded(now)) => return Ok(Committed::Superseded(now)),
                Err(error @ store::Error::Closed) => {
                    self.pairs_lost.fetch_add(1, Ordering::Relaxed);
                    return Err(error.into());
                }
                Err(error) => error,
            };
            on_error(error.clone().into());
            self.before_next_try(principal, error).await?;
        }
    }

    /// The entry that a pair which was received is to be committed over. While the store is away it is
    /// read again and again, until the process ends.
    pub(crate) async fn load_patiently(&self, principal: &Principal) -> Result<Entry, Error> {
        loop {
            let error = match self.load(principal).await {
                Err(Error::StoreUnavailable(error @ store::Error::Away(_))) => error,
                ended => return ended,
            };
            self.before_next_try(principal, error).await?;
        }
    }

    /// A pair of `principal` could not be made durable, because of `error`. Returns when it is time to try
    /// again.
    ///
    /// # Errors
    ///
    /// `error`, if that was the last attempt: the pair is lost.
    async fn before_next_try(
        &self,
        principal: &Principal,
        error: store::Error,
    ) -> Result<(), Error> {
        self.not_saved(principal, &error);
        let mut closing = self.closing.clone();
        if closing.has_reached(Closing::LastAttempt) {
            self.pairs_lost.fetch_add(1, Ordering::Relaxed);
            return Err(error.into());
        }
        tokio::select! {
            () = self.clock.sleep(COMMIT_AGAIN) => {}
            () = closing.reaches(Closing::LastAttempt) => {}
        }
        Ok(())
    }

    /// A pair was made durable.
    fn saved(&self) {
        if let Some(over) = self.unsaved.worked() {
            let (seconds, tries) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, tries, "new pairs can be made durable again");
        }
    }

    /// A pair of `principal` could not be made durable.
    fn not_saved(&self, principal: &Principal, error: &store::Error) {
        let principal = self.log_name(principal);
        let name = principal.as_str();
        if self.unsaved.failed() {
            tracing::error!(
                principal = name,
                %error,
                "a new pair cannot be made durable; it is kept and tried again, like others that follow"
            );
        }
        tracing::debug!(principal = name, %error, "a new pair cannot be made durable");
    }

    /// Publishes a pair that was just committed.
    fn publish_new(
        &self,
        new: NewPair<'_>,
        generation: Generation,
        pair: &Pair,
        as_of: u32,
    ) -> Result<Committed, Error> {
        // A token that cannot be used even now is not worth asking for again.
        let mut credentials = self
            .credentials(new.principal, generation, pair)
            .ok_or(Error::BadResponse)?;
        credentials.epoch = new.entry.epoch;
        credentials.instance = new.instance;
        credentials.renewed = Some(self.clock.now());
        credentials.confirmed = AtomicU32::new(as_of);
        Ok(Committed::Durable(self.publish(credentials)))
    }

    /// Publishes the pair in `entry`. Returns `None` if its token may not be used.
    pub(crate) fn publish_entry(
        &self,
        principal: &Principal,
        entry: &Entry,
        pair: &Pair,
    ) -> Option<Arc<Credentials>> {
        let record = entry.record.as_ref()?;
        let mut credentials = self.credentials(principal, entry.generation, pair)?;
        credentials.epoch = entry.epoch;
        credentials.instance = record.instance.filter(|_| record.known);
        self.publish(credentials)
    }

    /// Puts the token in memory. Returns `None` if it may not be used, because a 401 came back for it.
    fn publish(&self, credentials: Credentials) -> Option<Arc<Credentials>> {
        let credentials = Arc::new(credentials);
        self.cache.publish(&credentials).then_some(credentials)
    }

    /// The token of a pair, ready to be attached; `None` if it has expired or fits into no header.
    fn credentials(
        &self,
        principal: &Principal,
        generation: Generation,
        pair: &Pair,
    ) -> Option<Credentials> {
        let age = self.wall().since(pair.received);
        let left = pair
            .lifetime
            .checked_sub(age)
            .filter(|left| !left.is_zero())?;
        let bearer = [SCHEME, pair.access_token.expose()].concat();
        let mut authorization = HeaderValue::try_from(bearer).ok()?;
        authorization.set_sensitive(true);
        let now = self.clock.now();
        // Up to a twentieth early, so that what was issued together is not renewed together.
        let share = self.current.now().settings.ahead * (1.0 - fastrand::f64() / 20.0);
        let mut credentials = Credentials::new(principal.clone(), authorization, generation);
        credentials.log_hash = self.ring.log_hash(principal);
        credentials.expires_in_form = pair.expires_in_form;
        credentials.stale = now.plus(pair.lifetime.mul_f64(share).saturating_sub(age));
        credentials.expires = now.plus(left);
        Some(credentials)
    }
}
