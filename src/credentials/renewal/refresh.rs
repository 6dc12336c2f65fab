//! The one grant: a refresh, which is free. What an answer says about the RefreshToken, and what no
//! answer leaves open.

use std::time::Duration;

use super::leased::Leased;
use super::permits::{call_answered, call_failed, note_host_failure};
use super::renewals::{Outcome, Probing, Renewal};
use super::token_endpoint::Reply;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::backoff::Permit;
use crate::credentials::guards::mass_rejection::{How, Verdict};
use crate::credentials::vault::commit::NewPair;
use crate::credentials::vault::pair::Pair;
use crate::damoov::auth::{self, Answer, Grant};
use crate::metrics::{self, RenewalResult};
use crate::principal::Principal;
use crate::store::Note;

/// Calls that fail in a way that says nothing about the tokens, per renewal.
const TRANSIENT_TRIES: u32 = 3;
/// Calls whose answer is lost, per renewal.
const LOST_TRIES: u32 = 2;

/// What came of a refresh that did not fail.
pub(crate) enum Refreshed {
    /// The renewal is over.
    Ended(Outcome),
    /// The RefreshToken was definitely rejected: only a login helps.
    Dead,
}

/// What a rejection comes to.
enum Judged {
    /// Another process renews in this one's place: the renewal is over.
    Overtaken,
    /// The pair is not to be refreshed again.
    Dead,
    /// The same pair once more: a newer one was seen to refresh.
    AskAgain,
    /// The same pair once more: the store was in doubt, so that this rejection says nothing.
    InDoubt,
}

/// What became of a refresh that was to be sent.
enum Sent<'a> {
    /// There is no RefreshToken.
    WithoutRefreshToken,
    /// It was not sent: the lease is lost.
    Overtaken,
    /// It was, or it was tried. The permit is to be told how it ended.
    Ended(Permit<'a>, Reply, Duration),
}

/// What a grant comes to.
enum Granted {
    /// The renewal is over.
    Ended(Outcome),
    /// It brought a RefreshToken alone. This pair, which is durable, is to be refreshed at once: its
    /// JWT is the one before.
    WithoutJwt(Pair),
}

impl Engine {
    /// Redeems the RefreshToken of `pair`, the one in `leased`. What happens seldom is boxed: many renewals
    /// run at once, and each takes the memory for everything that it may ever do.
    pub(crate) async fn refresh(
        &self,
        renewal: &Renewal,
        leased: &mut Leased,
        mut pair: Pair,
    ) -> Result<Refreshed, Error> {
        let own = &self.guards.refresh_backoff;
        let (mut transient, mut lost, mut asked_again) = (0, 0, false);
        loop {
            let (permit, reply, took) = match self.redeem(renewal, leased, &pair).await? {
                Sent::Ended(permit, reply, took) => (permit, reply, took),
                Sent::WithoutRefreshToken => return Ok(Refreshed::Dead),
                Sent::Overtaken => return Ok(Refreshed::Ended(Ok(None))),
            };
            let count = |result| self.count(renewal, metrics::Grant::Refresh, result, took);
            let error = match reply {
                Reply::Answered(Answer::Granted(grant))
                    if self.vault.is_of(&renewal.principal, &grant) =>
                {
                    call_answered(renewal, own, permit);
                    match self.granted(renewal, leased, &pair, grant, took).await? {
                        Granted::Ended(outcome) => return Ok(Refreshed::Ended(outcome)),
                        Granted::WithoutJwt(next) => pair = next,
                    }
                    lost += 1;
                    Error::BadResponse
                }
                Reply::Answered(Answer::Rejected) => {
                    call_answered(renewal, own, permit);
                    count(RenewalResult::Rejected);
                    match Box::pin(self.rejected(renewal, leased, asked_again)).await? {
                        Judged::AskAgain => asked_again = true,
                        Judged::InDoubt => {}
                        Judged::Overtaken => return Ok(Refreshed::Ended(Ok(None))),
                        Judged::Dead => return Ok(Refreshed::Dead),
                    }
                    continue;
                }
                Reply::Answered(Answer::Limited { .. } | Answer::Unavailable { .. })
                | Reply::NotSent(_) => {
                    count(result_of_failure(&reply));
                    call_failed(renewal, own, permit, reply.failure(), &reply.error());
                    transient += 1;
                    reply.error()
                }
                Reply::Withheld => {
                    transient += 1;
                    reply.error()
                }
                Reply::Answered(Answer::Granted(_) | Answer::Unreadable(_)) | Reply::Lost(_) => {
                    count(RenewalResult::Failed);
                    note_host_failure(renewal, own, permit, reply.failure());
                    Box::pin(self.note_lost(&renewal.principal, leased)).await;
                    lost += 1;
                    reply.error()
                }
            };
            renewal.set_last_error(error.clone());
            if lost >= LOST_TRIES {
                own.failed(&renewal.principal, error.clone());
                return Err(error);
            }
            if transient >= TRANSIENT_TRIES {
                return Err(error);
            }
        }
    }

    /// Calls the API as soon as that is allowed, unless the lease is lost by then.
    async fn redeem(
        &self,
        renewal: &Renewal,
        leased: &Leased,
        pair: &Pair,
    ) -> Result<Sent<'_>, Error> {
        let Some(refresh_token) = &pair.refresh_token else {
            return Ok(Sent::WithoutRefreshToken);
        };
        let (permit, turn) = self.refresh_permit(renewal).await?;
        let hold = leased.hold();
        if !self.may_call(&renewal.principal, hold).await? {
            return Ok(Sent::Overtaken);
        }
        let call = auth::refresh(&pair.access_token, refresh_token);
        let started = self.clock.now();
        let calling = self.endpoint.refresh(call, turn, self.call_timeout(), hold);
        let reply = calling.await;
        let took = self.clock.now().since(started);
        Ok(Sent::Ended(permit, reply, took))
    }

    /// A refresh of `pair` was granted: commits what it brought.
    async fn granted(
        &self,
        renewal: &Renewal,
        leased: &mut Leased,
        pair: &Pair,
        grant: Grant,
        took: Duration,
    ) -> Result<Granted, Error> {
        let whole = grant.access_token.is_some();
        let next = Pair::from_grant(grant, Some(pair), self.vault.wall())
            .ok_or(Error::BadResponse)?
            .replacing(Some(pair));
        let result = match whole {
            true => RenewalResult::Ok,
            false => RenewalResult::Failed,
        };
        self.count(renewal, metrics::Grant::Refresh, result, took);
        let entry = leased.entry();
        let new = NewPair {
            principal: &renewal.principal,
            entry,
            instance: entry.record.as_ref().and_then(|record| record.instance),
            lease: whole.then(|| leased.hold()),
        };
        let on_error = |error| renewal.set_last_error(error);
        let committed = self.vault.commit(new, &next, on_error).await;
        if whole {
            self.mass_rejection_may_end(renewal, leased).await;
            return Ok(Granted::Ended(committed));
        }
        match committed {
            // The rotated RefreshToken is durable; the token is an expired one.
            Err(Error::BadResponse) => {}
            overtaken_or_failed => return Ok(Granted::Ended(overtaken_or_failed)),
        }
        leased.replace(self.read(renewal).await?);
        Ok(Granted::WithoutJwt(next))
    }

    /// The RefreshToken was definitely rejected. If it may be only too old, this waits until a newer one is
    /// seen to refresh.
    async fn rejected(
        &self,
        renewal: &Renewal,
        leased: &mut Leased,
        again: bool,
    ) -> Result<Judged, Error> {
        let principal = &renewal.principal;
        if self
            .is_overtaken(renewal, leased.hold(), leased.entry())
            .await?
        {
            return Ok(Judged::Overtaken);
        }
        if self.vault.is_in_doubt() {
            return Ok(match self.outlast_doubt(renewal, leased.entry()).await? {
                true => Judged::InDoubt,
                false => Judged::Overtaken,
            });
        }
        let mut how = match renewal.ask.probing {
            _ if leased.found().answer_was_lost() => How::Explained,
            Probing::ByRefresh => How::AsWitness,
            _ if again => How::Again,
            Probing::No | Probing::ByLogin => How::Plainly,
        };
        let guard = &self.guards.mass_rejection;
        loop {
            match guard.rejected(principal, leased.entry(), how).await? {
                Verdict::Dead | Verdict::Outlived => {
                    leased.learn_refresh_dead();
                    let note = Note::RefreshDead(leased.entry().generation);
                    self.vault.note(principal, note).await?;
                }
                Verdict::Broken(all) => self.withdraw(&all).await?,
                Verdict::StillBroken => {}
                Verdict::Unsure(since) => {
                    let confirmed = guard.confirmed(since);
                    if self.closing().unless_closing(confirmed).await?? {
                        return Ok(Judged::AskAgain);
                    }
                    how = How::Plainly;
                    continue;
                }
            }
            return Ok(Judged::Dead);
        }
    }

    /// A refresh succeeded of the pair in `leased`: whatever looked like a mass rejection is over.
    async fn mass_rejection_may_end(&self, renewal: &Renewal, leased: &Leased) {
        let Some(record) = &leased.entry().record else {
            return;
        };
        let probe = renewal.ask.probing != Probing::No;
        let guard = &self.guards.mass_rejection;
        let counted = guard.refreshed(&renewal.principal, record.received, probe);
        if let Err(error) = counted.await {
            tracing::warn!(%error, "a refresh that succeeded could not be counted");
        }
    }

    /// The answer to a refresh of the pair in `leased` was lost, to this process or to one that died. Notes it
    /// unless it stands in the store.
    pub(super) async fn note_lost(&self, principal: &Principal, leased: &mut Leased) {
        leased.learn_answer_lost();
        if leased.is_lost_answer_noted() {
            return;
        }
        let note = Note::AnswerLost(leased.entry().generation);
        match self.vault.note(principal, note).await {
            Ok(()) => leased.note_lost_answer(),
            Err(error) => tracing::warn!(%error, "a lost answer could not be noted"),
        }
    }
}

fn result_of_failure(reply: &Reply) -> RenewalResult {
    match reply {
        Reply::Answered(Answer::Limited { .. }) => RenewalResult::Limited,
        _ => RenewalResult::Failed,
    }
}
