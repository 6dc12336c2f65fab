//! One renewal, top to bottom: adopt what is there, else lease, refresh, or log in. Runs in a task
//! of its own; nothing that callers do cancels it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::flights::{Flight, Outcome};
use super::mass_rejection::Verdict;
use super::pair::Pair;
use super::token_endpoint::{Loss, Reply};
use super::{Credentials, Error};
use crate::damoov::auth::{self, Answer, Grant};
use crate::damoov::jwt::Claims;
use crate::metrics::{
    Grant as GrantLabelValue, GrantLabel, RenewalLabels, RenewalResult, StoreOperation, Trigger,
};
use crate::principal::Principal;
use crate::store::{Entry, Lease, Note};

/// How long a lease lasts without a heartbeat, in real time.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is extended.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often a lease that another process holds is asked for again, in real time.
const LEASE_AGAIN: Duration = Duration::from_millis(50);
/// Calls that fail in a way that says nothing about the tokens, per renewal.
const TRANSIENT_TRIES: u32 = 3;
/// Calls whose answer is lost, per renewal.
const LOST_TRIES: u32 = 2;

/// What came of a refresh that did not fail.
enum Refreshed {
    Landed(Outcome),
    /// The RefreshToken was definitely rejected.
    Dead,
}

/// Who holds the lease.
enum Turn {
    Ours {
        orphaned: bool,
    },
    /// Another process renewed meanwhile.
    Adopted(Arc<Credentials>),
}

impl Engine {
    /// Flies `flight` to its outcome.
    pub(super) async fn fly(&self, flight: &Flight) -> Outcome {
        let entry = self.load(&flight.principal).await?;
        self.check_instance(flight, &entry)?;
        if let Some(found) = self.adopt(flight, &entry) {
            return Ok(Some(found));
        }
        self.check_refused(flight, &entry)?;
        if matches!(
            flight.ask.trigger,
            Trigger::Ahead | Trigger::Keep | Trigger::Rejected
        ) {
            self.unless_closing(self.pace.turn(&flight.needed)).await?;
        }
        let orphaned = match self.unless_closing(self.lease(flight)).await?? {
            Some(Turn::Ours { orphaned }) => orphaned,
            Some(Turn::Adopted(found)) => return Ok(Some(found)),
            None => return Ok(None),
        };
        let outcome = tokio::select! {
            outcome = self.renew(flight, orphaned) => outcome,
            never = self.heartbeat(&flight.principal) => match never {},
        };
        self.store.release(&flight.principal);
        outcome
    }

    /// Renews under the lease.
    async fn renew(&self, flight: &Flight, orphaned: bool) -> Outcome {
        let mut entry = self.load(&flight.principal).await?;
        if let Some(found) = self.adopt(flight, &entry) {
            return Ok(Some(found));
        }
        if orphaned {
            entry.notes.answer_lost = Some(entry.generation);
        }
        let pair = self.open(&flight.principal, &entry);
        let is_dead = entry.notes.refresh_dead == Some(entry.generation);
        if let Some(pair) = pair.filter(|_| !is_dead)
            && pair.refresh_token.is_some()
        {
            match self.refresh(flight, &mut entry, pair).await? {
                Refreshed::Landed(outcome) => return outcome,
                Refreshed::Dead => {}
            }
        }
        if !flight.needed.is_raised() && flight.ask.trigger != Trigger::Asked {
            return Ok(None);
        }
        self.log_in(flight, &entry).await
    }

    /// The token that stands in the entry, where it is what the flight wants.
    fn adopt(&self, flight: &Flight, entry: &Entry) -> Option<Arc<Credentials>> {
        let generation = entry.generation;
        if flight.ask.newer_than.is_some_and(|old| generation <= old)
            || !self.cache.may_use(&flight.principal, generation)
            || entry.record.as_ref()?.expires <= self.wall()
        {
            return None;
        }
        let pair = self.open(&flight.principal, entry)?;
        self.publish_entry(&flight.principal, entry, &pair)
    }

    /// A user known under another instance than the one named is an error, not a login.
    fn check_instance(&self, flight: &Flight, entry: &Entry) -> Result<(), Error> {
        let known = entry.record.as_ref().filter(|record| record.known);
        match (
            flight.ask.instance,
            known.and_then(|record| record.instance),
        ) {
            (Some(asked), Some(known)) if asked != known => Err(Error::InstanceMismatch),
            _ => Ok(()),
        }
    }

    /// Takes the lease, or adopts what its holder commits, or gives up when nobody waits.
    async fn lease(&self, flight: &Flight) -> Result<Option<Turn>, Error> {
        loop {
            let leased = self.store.lease(&flight.principal, LEASE).await;
            match self.counted(StoreOperation::Lease, leased)? {
                Lease::Granted { orphaned } => return Ok(Some(Turn::Ours { orphaned })),
                Lease::Held if self.clock.now() >= flight.patience() => return Ok(None),
                Lease::Held => tokio::time::sleep(LEASE_AGAIN).await,
            }
            if let Some(found) = self.adopt(flight, &self.load(&flight.principal).await?) {
                return Ok(Some(Turn::Adopted(found)));
            }
        }
    }

    async fn heartbeat(&self, principal: &Principal) -> Infallible {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            // A lease that is lost all the same only costs: the commit finds itself superseded.
            let _ = self.store.lease(principal, LEASE).await;
        }
    }

    /// Whether another process renews, or renewed, in this one's place: a process that was stopped,
    /// or a machine that slept, for longer than a lease wakes up with a pair that is no longer
    /// the newest. A login of its would revoke the other one's.
    pub(super) async fn is_overtaken(
        &self,
        principal: &Principal,
        entry: &Entry,
    ) -> Result<bool, Error> {
        let leased = self.store.lease(principal, LEASE).await;
        if self.counted(StoreOperation::Lease, leased)? == Lease::Held {
            return Ok(true);
        }
        let now = self.load(principal).await?;
        Ok((now.generation, now.epoch) != (entry.generation, entry.epoch))
    }

    /// Redeems the RefreshToken. Leaves in `entry.notes` what it learnt.
    async fn refresh(
        &self,
        flight: &Flight,
        entry: &mut Entry,
        mut pair: Pair,
    ) -> Result<Refreshed, Error> {
        let principal = flight.principal.clone();
        let instance = entry.record.as_ref().and_then(|record| record.instance);
        let (mut transient, mut lost) = (0, 0);
        loop {
            self.patient_with_host(flight).await?;
            let Some(refresh_token) = &pair.refresh_token else {
                return Ok(Refreshed::Dead);
            };
            let started = self.clock.now();
            let reply = self
                .endpoint
                .refresh(auth::refresh(&pair.access_token, refresh_token))
                .await;
            let count = |result| {
                self.count(
                    flight,
                    GrantLabelValue::Refresh,
                    result,
                    self.clock.now().since(started),
                );
            };
            let error = match reply {
                Reply::Answered(Answer::Granted(grant)) if self.is_of(&principal, &grant) => {
                    self.backoff.succeeded();
                    let whole = grant.access_token.is_some();
                    let Some(next) = Pair::from_grant(grant, Some(&pair), self.wall()) else {
                        return Err(Error::BadResponse);
                    };
                    count(if whole {
                        RenewalResult::Ok
                    } else {
                        RenewalResult::Failed
                    });
                    if whole {
                        let landed = self.commit(flight, entry, instance, &next).await;
                        self.mass_rejection_may_end();
                        return Ok(Refreshed::Landed(landed));
                    }
                    match self.commit(flight, entry, instance, &next).await {
                        // The rotated RefreshToken is durable; the token is an expired one.
                        Err(Error::BadResponse) => {}
                        overtaken_or_failed => {
                            return Ok(Refreshed::Landed(overtaken_or_failed));
                        }
                    }
                    *entry = self.load(&principal).await?;
                    pair = next;
                    lost += 1;
                    Error::BadResponse
                }
                Reply::Answered(Answer::Rejected) => {
                    self.backoff.succeeded();
                    count(RenewalResult::Rejected);
                    if self.is_overtaken(&principal, entry).await? {
                        return Ok(Refreshed::Landed(Ok(None)));
                    }
                    return self.dead(flight, entry).await;
                }
                Reply::Answered(Answer::Limited { retry_after }) => {
                    count(RenewalResult::Limited);
                    self.backoff.failed(retry_after);
                    transient += 1;
                    Error::Unreachable
                }
                Reply::Answered(Answer::Unavailable) | Reply::NotSent => {
                    count(RenewalResult::Failed);
                    self.backoff.failed(None);
                    transient += 1;
                    Error::Unreachable
                }
                Reply::Answered(Answer::Granted(_) | Answer::Unreadable) | Reply::Lost(_) => {
                    count(RenewalResult::Failed);
                    lost += 1;
                    self.note_lost(&principal, entry).await;
                    loss_error(&reply)
                }
            };
            flight.trouble(error.clone());
            if lost >= LOST_TRIES {
                self.backoff.failed(None);
                return Err(error);
            }
            if transient >= TRANSIENT_TRIES {
                return Err(error);
            }
        }
    }

    /// What a definite rejection of the RefreshToken means.
    async fn dead(&self, flight: &Flight, entry: &mut Entry) -> Result<Refreshed, Error> {
        let principal = &flight.principal;
        let counted = entry.notes.answer_lost != Some(entry.generation);
        match self.mass_rejection.rejected(principal, counted) {
            Verdict::Dead => {
                entry.notes.refresh_dead = Some(entry.generation);
                self.note(principal, Note::RefreshDead(entry.generation))
                    .await?;
            }
            Verdict::Broken(all) => {
                self.metrics.logins_suspended.set(1);
                tracing::error!(
                    "Damoov rejects the RefreshTokens of {} principals in a row: logins of those \
                     who hold one are suspended, one is probed a minute",
                    all.len()
                );
                for principal in &all {
                    self.note(principal, Note::RefreshAlive).await?;
                }
            }
            Verdict::StillBroken => {}
        }
        Ok(Refreshed::Dead)
    }

    /// A refresh succeeded: whatever looked like a mass rejection is over.
    fn mass_rejection_may_end(&self) {
        if self.mass_rejection.refreshed() {
            self.metrics.logins_suspended.set(0);
            tracing::warn!("Damoov accepts RefreshTokens again: logins are no longer suspended");
        }
    }

    /// Waits out the host's back-off, if somebody is patient enough.
    pub(super) async fn patient_with_host(&self, flight: &Flight) -> Result<(), Error> {
        let until = self.backoff.until();
        if until <= self.clock.now() {
            return Ok(());
        }
        if until > flight.patience() {
            return Err(match flight.excuse() {
                Error::WaitedTooLong => Error::Unreachable,
                trouble => trouble,
            });
        }
        self.unless_closing(self.clock.sleep_until(until)).await
    }

    /// A's token is never attached to B: neither the answer nor the JWT names another user.
    pub(super) fn is_of(&self, principal: &Principal, grant: &Grant) -> bool {
        let Principal::User(user) = principal else {
            return true;
        };
        let claimed = grant
            .access_token
            .as_ref()
            .and_then(|token| Claims::read(token.expose()).device_token);
        let foreign = grant
            .device_token
            .into_iter()
            .chain(claimed)
            .any(|named| named != *user);
        if foreign {
            tracing::error!(
                principal = self.log_name(principal),
                "Damoov answered with another user's token; it is not used"
            );
        }
        !foreign
    }

    async fn note_lost(&self, principal: &Principal, entry: &mut Entry) {
        if entry.notes.answer_lost == Some(entry.generation) {
            return;
        }
        entry.notes.answer_lost = Some(entry.generation);
        if let Err(error) = self
            .note(principal, Note::AnswerLost(entry.generation))
            .await
        {
            tracing::warn!(%error, "a lost answer could not be noted");
        }
    }

    /// Remembers a fact durably.
    pub(super) async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        let noted = self.store.note(principal, note).await;
        Ok(self.counted(StoreOperation::Note, noted)?)
    }

    /// Counts a grant that ended.
    pub(super) fn count(
        &self,
        flight: &Flight,
        grant: GrantLabelValue,
        result: RenewalResult,
        took: Duration,
    ) {
        let trigger = flight.ask.trigger;
        self.metrics
            .renewals
            .get_or_create(&RenewalLabels {
                grant,
                trigger,
                result,
            })
            .inc();
        let took = self.clock.to_real(took).as_secs_f64();
        self.metrics
            .renewal_duration
            .get_or_create(&GrantLabel { grant })
            .observe(took);
    }
}

/// What callers are told when an answer was lost.
pub(super) fn loss_error(reply: &Reply) -> Error {
    match reply {
        Reply::Lost(Loss::TimedOut) => Error::Timeout,
        Reply::Lost(Loss::Cut) | Reply::NotSent => Error::Unreachable,
        Reply::Lost(Loss::TooLong) | Reply::Answered(_) => Error::BadResponse,
    }
}
