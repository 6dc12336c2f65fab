//! The one grant: a refresh, which is free. What an answer says about the RefreshToken, and what no
//! answer does not say.

use super::renewals::{Outcome, Probing, Renewal};
use super::token_endpoint::Reply;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::mass_rejection::{How, Verdict};
use crate::credentials::vault::pair::Pair;
use crate::damoov::auth::{self, Answer};
use crate::metrics::{Grant, RenewalResult};
use crate::principal::Principal;
use crate::store::{Entry, Note};

/// Calls that fail in a way that says nothing about the tokens, per renewal.
const TRANSIENT_TRIES: u32 = 3;
/// Calls whose answer is lost, per renewal.
const LOST_TRIES: u32 = 2;

/// What a rejection comes to.
enum Judged {
    /// The pair is not to be refreshed again.
    Dead,
    /// The same pair once more.
    AskAgain,
}

/// What came of a refresh that did not fail.
pub(crate) enum Refreshed {
    Ended(Outcome),
    /// The RefreshToken was definitely rejected.
    Dead,
}

impl Engine {
    /// Redeems the RefreshToken. Leaves in `entry.notes` what it learnt. What seldom happens is boxed:
    /// many renewals run at once, and each has room for all that it may ever do.
    pub(crate) async fn refresh(
        &self,
        renewal: &Renewal,
        entry: &mut Entry,
        mut pair: Pair,
    ) -> Result<Refreshed, Error> {
        let principal = renewal.principal.clone();
        let instance = entry.record.as_ref().and_then(|record| record.instance);
        let own = &self.refresh_backoff;
        let (mut transient, mut lost) = (0, 0);
        let mut asked_again = false;
        loop {
            let Some(refresh_token) = &pair.refresh_token else {
                return Ok(Refreshed::Dead);
            };
            let (permit, turn) = self.refresh_permit(renewal).await?;
            let started = self.clock.now();
            let reply = self
                .endpoint
                .refresh(auth::refresh(&pair.access_token, refresh_token), turn)
                .await;
            let count = |result| {
                self.count(
                    renewal,
                    Grant::Refresh,
                    result,
                    self.clock.now().since(started),
                );
            };
            let error = match reply {
                Reply::Answered(Answer::Granted(grant)) if self.is_of(&principal, &grant) => {
                    self.call_answered(renewal, own, permit);
                    let whole = grant.access_token.is_some();
                    let next = Pair::from_grant(grant, Some(&pair), self.wall())
                        .ok_or(Error::BadResponse)?
                        .replacing(Some(&pair));
                    count(if whole {
                        RenewalResult::Ok
                    } else {
                        RenewalResult::Failed
                    });
                    let committed = self.commit(renewal, entry, instance, &next).await;
                    if whole {
                        self.mass_rejection_may_end(renewal, entry).await;
                        return Ok(Refreshed::Ended(committed));
                    }
                    match committed {
                        // The rotated RefreshToken is durable; the token is an expired one.
                        Err(Error::BadResponse) => {}
                        overtaken_or_failed => {
                            return Ok(Refreshed::Ended(overtaken_or_failed));
                        }
                    }
                    *entry = self.load(&principal).await?;
                    pair = next;
                    lost += 1;
                    Error::BadResponse
                }
                Reply::Answered(Answer::Rejected) => {
                    self.call_answered(renewal, own, permit);
                    count(RenewalResult::Rejected);
                    if Box::pin(self.is_overtaken(&principal, entry)).await? {
                        return Ok(Refreshed::Ended(Ok(None)));
                    }
                    match Box::pin(self.judge(renewal, entry, asked_again)).await? {
                        Judged::Dead => return Ok(Refreshed::Dead),
                        Judged::AskAgain => asked_again = true,
                    }
                    continue;
                }
                Reply::Answered(Answer::Limited { .. } | Answer::Unavailable { .. })
                | Reply::NotSent(_) => {
                    count(match &reply {
                        Reply::Answered(Answer::Limited { .. }) => RenewalResult::Limited,
                        _ => RenewalResult::Failed,
                    });
                    transient += 1;
                    let error = reply.error();
                    self.call_failed(renewal, own, permit, reply.failure(), &error);
                    error
                }
                Reply::Answered(Answer::Granted(_) | Answer::Unreadable(_)) | Reply::Lost(_) => {
                    count(RenewalResult::Failed);
                    lost += 1;
                    self.note_host_failure(renewal, own, permit, reply.failure());
                    Box::pin(self.note_lost(&principal, entry)).await;
                    reply.error()
                }
            };
            renewal.set_last_error(error.clone());
            if lost >= LOST_TRIES {
                own.failed(&principal, error.clone());
                return Err(error);
            }
            if transient >= TRANSIENT_TRIES {
                return Err(error);
            }
        }
    }

    /// What a definite rejection of the RefreshToken means. While others of its age may have been
    /// replaced by newer ones, it waits for one of those to be refreshed.
    async fn judge(
        &self,
        renewal: &Renewal,
        entry: &mut Entry,
        again: bool,
    ) -> Result<Judged, Error> {
        let principal = &renewal.principal;
        let mut how = match renewal.ask.probing {
            _ if entry.notes.answer_lost == Some(entry.generation) => How::Explained,
            Probing::ByRefresh => How::AsWitness,
            _ if again => How::Again,
            Probing::No | Probing::ByLogin => How::Plainly,
        };
        loop {
            match self.mass_rejection.rejected(principal, entry, how).await? {
                Verdict::Dead | Verdict::Outlived => {
                    entry.notes.refresh_dead = Some(entry.generation);
                    self.note(principal, Note::RefreshDead(entry.generation))
                        .await?;
                }
                Verdict::Broken(all) => self.withdraw(&all).await?,
                Verdict::StillBroken => {}
                Verdict::Unsure(since) => {
                    let confirmed = self.mass_rejection.confirmed(since);
                    if self.unless_closing(confirmed).await?? {
                        return Ok(Judged::AskAgain);
                    }
                    how = How::Plainly;
                    continue;
                }
            }
            return Ok(Judged::Dead);
        }
    }

    /// A refresh succeeded of the pair in `entry`: whatever looked like a mass rejection is over.
    async fn mass_rejection_may_end(&self, renewal: &Renewal, entry: &Entry) {
        let Some(record) = &entry.record else {
            return;
        };
        let probe = renewal.ask.probing != Probing::No;
        let guard = &self.mass_rejection;
        let told = guard.refreshed(&renewal.principal, record.received, probe);
        if let Err(error) = told.await {
            tracing::warn!(%error, "a refresh that succeeded could not be counted");
        }
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
}
