//! What every renewal works with: the store, the seal, the Auth endpoints, the guards. And what both
//! grants share: reading an entry, committing a pair, publishing a token, patience with the host.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::guards::backoff::Backoff;
use super::guards::backoff::own::OwnBackoff;
use super::guards::breaker::Breakers;
use super::guards::budget::Budget;
use super::guards::mass_rejection::MassRejection;
use super::guards::pace::Pace;
use super::guards::password_limit::PasswordLimit;
use super::renewal::renewals::{Outcome, Renewal, Renewals};
use super::renewal::token_endpoint::TokenEndpoint;
use super::vault::cache::{Cache, Credentials, SCHEME, UNTRIED};
use super::vault::counted::{Ended, StoreCondition, counted};
use super::vault::pair::Pair;
use super::vault::seal::Ring;
use super::vault::stored::StoredCount;
use super::{Error, Settings};
use crate::clock::{Clock, Timestamp};
use crate::damoov::auth;
use crate::damoov::jwt::Claims;
use crate::directory::Directory;
use crate::metrics::{Grant, GrantLabel, Metrics, RenewalLabels, RenewalResult, StoreOperation};
use crate::principal::{InstanceId, Principal};
use crate::store::{self, Commit, Entry, Generation, KeyId, Note, Record, RunId, Store};
use crate::telemetry::LogName;
use crate::telemetry::episode::Episode;

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closing {
    /// It goes on.
    NotYet,
    /// What waits for something gives up; pairs that were received are stored.
    Begun,
    /// A pair that cannot be stored now is lost.
    LastAttempt,
}

/// While a commit cannot be made durable it is tried again this often.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Engine {
    pub(super) settings: Settings,
    /// Who can be logged in, with what.
    pub(super) directory: Arc<Directory>,
    pub(super) store: Arc<dyn Store>,
    pub(super) ring: Ring,
    pub(super) run: RunId,
    pub(super) endpoint: TokenEndpoint,
    pub(super) cache: Cache,
    pub(super) renewals: Arc<Renewals>,
    pub(super) budget: Budget,
    pub(super) pace: Pace,
    /// The host's.
    pub(super) backoff: Backoff,
    /// Each principal's own, of its refreshes and of its logins.
    pub(super) refresh_backoff: OwnBackoff,
    pub(super) login_backoff: OwnBackoff,
    pub(super) mass_rejection: MassRejection,
    pub(super) breakers: Breakers,
    pub(super) password_limit: PasswordLimit,
    /// Who is contested, with its epoch, until when: only for the metric.
    pub(super) contested: Mutex<HashMap<Principal, (u64, Timestamp)>>,
    /// Keys that records need and the ring lacks, each told once.
    pub(super) unknown_keys: Mutex<HashSet<KeyId>>,
    /// What is told of the store.
    pub(super) store_condition: StoreCondition,
    /// New pairs that exist in memory alone.
    pub(super) unsaved: Episode,
    pub(super) stored_count: StoredCount,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// Where renewals run: no caller's runtime.
    pub(super) runtime: Handle,
    /// Once it has begun no renewal may wait for anything but its own calls.
    pub(super) closing: watch::Sender<Closing>,
    /// Pairs that were received and could not be stored before the end.
    pub(super) pairs_lost: AtomicU64,
}

/// What came of making a pair durable.
pub(super) enum Committed {
    /// It is, and it is published. `None` if its token may not be used, because a 401 came back
    /// for it.
    Durable(Option<Arc<Credentials>>),
    /// Somebody else was first; nothing was written. What stands there now.
    Superseded(Entry),
}

impl Engine {
    /// The entry of `principal`, freshly read.
    pub(super) async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let loaded = self.store.load(principal).await;
        Ok(self.counted(StoreOperation::Load, loaded)?)
    }

    /// Makes `pair`, which replaces that of `entry`, durable and publishes it. Where somebody else
    /// was first, what they committed.
    pub(super) async fn commit(
        &self,
        renewal: &Renewal,
        entry: &Entry,
        instance: Option<InstanceId>,
        pair: &Pair,
    ) -> Outcome {
        let principal = &renewal.principal;
        let on_error = |error| renewal.set_last_error(error);
        let committed = self.make_durable(principal, entry, instance, pair, on_error);
        self.stands(principal, committed.await?)
    }

    /// As [`Engine::commit`], for the pair of a login: over one that this run has adopted
    /// meanwhile, too. That one is a registration's, which the login has revoked.
    pub(super) async fn commit_login(
        &self,
        renewal: &Renewal,
        entry: &Entry,
        instance: Option<InstanceId>,
        pair: Pair,
    ) -> Outcome {
        let principal = &renewal.principal;
        let on_error = |error| renewal.set_last_error(error);
        let pair = pair.replacing(self.open(principal, entry)?.as_ref());
        let committed = self.make_durable(principal, entry, instance, &pair, on_error);
        match committed.await? {
            Committed::Superseded(now)
                if now.record.as_ref().is_some_and(|r| r.run == self.run) =>
            {
                let pair = pair.replacing(self.open(principal, &now)?.as_ref());
                self.commit(renewal, &now, instance, &pair).await
            }
            committed => self.stands(principal, committed),
        }
    }

    /// The token that stands there now, published.
    fn stands(&self, principal: &Principal, committed: Committed) -> Outcome {
        match committed {
            Committed::Durable(credentials) => Ok(credentials),
            Committed::Superseded(now) => {
                let pair = self.open(principal, &now)?;
                Ok(pair.and_then(|pair| self.publish_entry(principal, &now, &pair)))
            }
        }
    }

    /// Makes `pair`, which replaces that of `entry`, durable and publishes it. Where the medium fails, says so to
    /// `on_error` and tries until it does not, or the process ends: the old pair is worth nothing
    /// any more.
    pub(super) async fn make_durable(
        &self,
        principal: &Principal,
        entry: &Entry,
        instance: Option<InstanceId>,
        pair: &Pair,
        on_error: impl Fn(Error),
    ) -> Result<Committed, Error> {
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
        let mut closing = self.closing.subscribe();
        loop {
            let committed = self
                .store
                .commit(principal, record.clone(), entry.generation, entry.epoch)
                .await;
            let error = match self.counted(StoreOperation::Commit, committed) {
                Ok(Commit::Committed(generation)) => {
                    if let Some(over) = self.unsaved.worked() {
                        let (seconds, tries) = (over.seconds(), over.hurt);
                        tracing::warn!(seconds, tries, "new pairs can be made durable again");
                    }
                    // A token that cannot be used even now is not worth asking for again.
                    let mut credentials = self
                        .credentials(principal, generation, pair)
                        .ok_or(Error::BadResponse)?;
                    credentials.epoch = entry.epoch;
                    credentials.instance = instance;
                    credentials.renewed = Some(self.clock.now());
                    return Ok(Committed::Durable(self.publish(credentials)));
                }
                Ok(Commit::Superseded(now)) => return Ok(Committed::Superseded(now)),
                Err(error @ store::Error::Closed) => {
                    self.pairs_lost.fetch_add(1, Ordering::Relaxed);
                    return Err(error.into());
                }
                Err(error) => error,
            };
            let principal_name = self.log_name(principal);
            let name = principal_name.as_str();
            if self.unsaved.failed() {
                tracing::error!(
                    principal = name,
                    %error,
                    "a new pair cannot be made durable; it is kept and tried again, like others that follow"
                );
            }
            tracing::debug!(principal = name, %error, "a new pair cannot be made durable");
            on_error(error.clone().into());
            if *closing.borrow_and_update() == Closing::LastAttempt {
                self.pairs_lost.fetch_add(1, Ordering::Relaxed);
                return Err(error.into());
            }
            tokio::select! {
                () = self.clock.sleep(COMMIT_AGAIN) => {}
                _ = closing.wait_for(|closing| *closing == Closing::LastAttempt) => {}
            }
        }
    }

    /// Publishes the pair that stands in `entry`, if its token may be used.
    pub(super) fn publish_entry(
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

    /// Puts the token in memory; `None` if it may not be used, because a 401 came back for it.
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
        let now = self.clock.now();
        let age = self.clock.wall().since(pair.received);
        let left = pair
            .lifetime
            .checked_sub(age)
            .filter(|left| !left.is_zero())?;
        let bearer = [SCHEME, pair.access_token.expose()].concat();
        let mut authorization = HeaderValue::try_from(bearer).ok()?;
        authorization.set_sensitive(true);
        // Up to a twentieth early, so that what was issued together is not renewed together.
        let share = self.settings.ahead * (1.0 - fastrand::f64() / 20.0);
        Some(Credentials {
            principal: principal.clone(),
            authorization,
            log_hash: self.ring.log_hash(principal),
            generation,
            epoch: 0,
            instance: None,
            expires_in_form: pair.expires_in_form,
            previous: OnceLock::new(),
            renewed: None,
            stale: now.plus(pair.lifetime.mul_f64(share).saturating_sub(age)),
            expires: now.plus(left),
            rejected: AtomicBool::new(false),
            used: AtomicBool::new(false),
            asked_for: AtomicBool::new(false),
            not_ahead_before: AtomicU64::new(0),
            replay: AtomicU64::new(UNTRIED),
        })
    }

    /// Runs `work` on the background runtime to its end, even if its caller hangs up; a shutdown
    /// waits for it.
    pub(super) fn spawn_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let under_way = self.renewals.under_way();
        self.runtime.spawn(async move {
            let _under_way = under_way;
            work.await
        })
    }

    /// Waits for `this`, unless the process closes.
    pub(super) async fn unless_closing<T>(
        &self,
        this: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            done = this => Ok(done),
            _ = closing.wait_for(|closing| *closing > Closing::NotYet) => Err(Error::Closing),
        }
    }

    /// Counts a call to the store by how it ended.
    pub(super) fn counted<T: Ended>(
        &self,
        operation: StoreOperation,
        ended: Result<T, store::Error>,
    ) -> Result<T, store::Error> {
        self.store_condition.note(operation, &ended);
        counted(&self.metrics, operation, ended)
    }

    /// Whether the answer to a login, or to a registration, has all that a pair needs: an access
    /// token, and no other user's.
    pub(super) fn is_whole(&self, principal: &Principal, grant: &auth::Grant) -> bool {
        grant.access_token.is_some() && self.is_of(principal, grant)
    }

    /// A's token is never attached to B: neither the answer nor the JWT names another user, and no
    /// user's JWT is an account's. An answer in which neither names anybody is that of the request
    /// all the same: each has a connection to itself while it is under way, and the connection of a
    /// request that was given up is closed. That much is believed, and warned of once.
    pub(super) fn is_of(&self, principal: &Principal, grant: &auth::Grant) -> bool {
        let claimed = grant
            .access_token
            .as_ref()
            .and_then(|token| Claims::read(token.expose()).device_token);
        let is_foreign = match principal {
            Principal::User(user) => {
                let mut named = grant.device_token.into_iter().chain(claimed);
                named.any(|named| named != *user)
            }
            Principal::Account(_) => claimed.is_some(),
        };
        if is_foreign {
            tracing::error!(
                principal = self.log_name(principal).as_str(),
                "Damoov answered with another user's token; it is not used"
            );
        } else if principal.is_user() && grant.device_token.or(claimed).is_none() {
            warn_of_nobody();
        }
        !is_foreign
    }

    /// Remembers a fact durably.
    pub(super) async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        let noted = self.store.note(principal, note).await;
        Ok(self.counted(StoreOperation::Note, noted)?)
    }

    /// Counts a grant that ended.
    pub(super) fn count(
        &self,
        renewal: &Renewal,
        grant: Grant,
        result: RenewalResult,
        took: Duration,
    ) {
        let trigger = renewal.ask.trigger;
        self.metrics
            .renewals
            .get_or_create(&RenewalLabels {
                grant,
                trigger,
                result,
            })
            .inc();
        let took = self.clock.to_real(took);
        self.metrics
            .renewal_duration
            .get_or_create(&GrantLabel { grant })
            .observe(took);
    }

    /// A keyed hash of the principal, for logs.
    pub(super) fn log_name(&self, principal: &Principal) -> LogName {
        self.ring.log_name(principal)
    }

    /// Now on the wall clock, for what is persisted.
    pub(super) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }
}
/// Once a process: the API has answered like this from its first login on, or changed its dialect.
fn warn_of_nobody() {
    static WARNING: Once = Once::new();
    WARNING.call_once(|| {
        tracing::warn!(
            "Damoov's answer to a login or refresh names no user, neither beside its JWT nor \
             inside it; the tokens are assumed to belong to the user that they were requested for"
        );
    });
}
