//! When a renewal may call the Auth endpoints, and what its failures mean for others: a principal that
//! failed rests, a host that failed rests, and no more calls are under way than may be.

use super::renewals::{Probing, Renewal};
use super::token_endpoint::Turn;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::backoff::own::OwnBackoff;
use crate::credentials::guards::backoff::{Failure, Permit, Resting, Standing};
use crate::credentials::guards::seeker::Seeker;

impl Engine {
    /// The right to make one call, once principal and host have rested. Fails if nobody is patient for
    /// long enough.
    pub(crate) async fn permit(
        &self,
        renewal: &Renewal,
        own: &OwnBackoff,
    ) -> Result<Permit<'_>, Error> {
        let host = &self.guards.backoff;
        if renewal.ask.probing == Probing::ByRefresh {
            // It finds out whether the host works, whatever others think of it.
            return host.probe().ok_or_else(|| self.endpoint.last_failure());
        }
        while let Some(rest) = own.rest(&renewal.principal) {
            if rest.until > renewal.patience() {
                return Err(rest.error);
            }
            renewal.set_last_error(rest.error);
            let rested = self.clock.sleep_until(rest.until);
            self.closing().unless_closing(rested).await?;
        }
        if let Some(permit) = host.pass_now() {
            return Ok(permit);
        }
        if let Error::WaitedTooLong = renewal.last_error() {
            renewal.set_last_error(self.endpoint.last_failure());
        }
        let passed = host.pass(own.standing(&renewal.principal), || renewal.patience());
        match self.closing().unless_closing(passed).await? {
            Ok(permit) => Ok(permit),
            Err(Resting) => Err(renewal.last_error()),
        }
    }

    /// As [`Engine::permit`], and a turn among the refreshes that may be under way.
    pub(crate) async fn refresh_permit(
        &self,
        renewal: &Renewal,
    ) -> Result<(Permit<'_>, Turn<'_>), Error> {
        loop {
            let own = &self.guards.refresh_backoff;
            let permit = self.permit(renewal, own).await?;
            let turn = self.closing().unless_closing(self.endpoint.turn()).await?;
            // Those whose turn came before may have found the host failing.
            if permit.goes_first() || self.guards.backoff.is_open() {
                return Ok((permit, turn.ok_or(Error::Closing)?));
            }
        }
    }
}

/// A call of `renewal` was answered, whatever the answer.
pub(crate) fn call_answered(renewal: &Renewal, own: &OwnBackoff, permit: Permit<'_>) {
    permit.answered();
    own.answered(&renewal.principal);
}

/// A call of `renewal` failed with `error`: its principal rests, or the host does.
pub(crate) fn call_failed(
    renewal: &Renewal,
    own: &OwnBackoff,
    permit: Permit<'_>,
    failure: Failure,
    error: &Error,
) {
    note_host_failure(renewal, own, permit, failure);
    if failure == Failure::Own {
        own.failed(&renewal.principal, error.clone());
    }
}

/// Tells the host's back-off of a call that failed, unless that says nothing of the host: this
/// principal's calls failed before, while others' were answered.
pub(crate) fn note_host_failure(
    renewal: &Renewal,
    own: &OwnBackoff,
    permit: Permit<'_>,
    failure: Failure,
) {
    let is_news = match failure {
        Failure::Own => own.standing(&renewal.principal) == Standing::Good,
        Failure::Hosts(_) => true,
    };
    if is_news || permit.goes_first() {
        permit.failed(&renewal.principal, failure);
    }
}
