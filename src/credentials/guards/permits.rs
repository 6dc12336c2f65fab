//! When a renewal may call the Auth endpoints, and what its failures mean for others: a principal that
//! failed rests, a host that failed rests, and no more calls are under way than may be.

use super::backoff::own::OwnBackoff;
use super::backoff::{Failure, Permit, Resting, Standing};
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::renewal::renewals::{Probing, Renewal};
use crate::credentials::renewal::token_endpoint::Turn;

impl Engine {
    /// The right to make one call, once principal and host have rested, if somebody is patient enough.
    pub(crate) async fn permit(
        &self,
        renewal: &Renewal,
        own: &OwnBackoff,
    ) -> Result<Permit<'_>, Error> {
        if renewal.ask.probing == Probing::ByRefresh {
            // It finds out whether the host works, whatever others think of it.
            return self
                .backoff
                .probe()
                .ok_or_else(|| self.endpoint.last_failure());
        }
        while let Some(rest) = own.rest(&renewal.principal) {
            if rest.until > renewal.patience() {
                return Err(rest.error);
            }
            renewal.set_last_error(rest.error);
            let rested = self.clock.sleep_until(rest.until);
            self.unless_closing(rested).await?;
        }
        if let Some(permit) = self.backoff.pass_now() {
            return Ok(permit);
        }
        if let Error::WaitedTooLong = renewal.last_error() {
            renewal.set_last_error(self.endpoint.last_failure());
        }
        let passed = self
            .backoff
            .pass(own.standing(&renewal.principal), || renewal.patience());
        match self.unless_closing(passed).await? {
            Ok(permit) => Ok(permit),
            Err(Resting) => Err(renewal.last_error()),
        }
    }

    /// A call of `renewal` was answered, whatever the answer.
    pub(crate) fn call_answered(&self, renewal: &Renewal, own: &OwnBackoff, permit: Permit<'_>) {
        permit.answered();
        own.answered(&renewal.principal);
    }

    /// A call of `renewal` failed with `error`: its principal rests, or the host does.
    pub(crate) fn call_failed(
        &self,
        renewal: &Renewal,
        own: &OwnBackoff,
        permit: Permit<'_>,
        failure: Failure,
        error: &Error,
    ) {
        self.note_host_failure(renewal, own, permit, failure);
        if failure == Failure::Own {
            own.failed(&renewal.principal, error.clone());
        }
    }

    /// What a call that failed says of the host: nothing, if this principal's calls failed before
    /// while others' were answered.
    pub(crate) fn note_host_failure(
        &self,
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

    /// As [`Engine::permit`], and a turn among the refreshes that may be under way.
    pub(crate) async fn refresh_permit(
        &self,
        renewal: &Renewal,
    ) -> Result<(Permit<'_>, Turn<'_>), Error> {
        loop {
            let permit = self.permit(renewal, &self.refresh_backoff).await?;
            let turn = self.unless_closing(self.endpoint.turn()).await?;
            // Those whose turn came before may have found the host failing.
            if permit.goes_first() || self.backoff.is_open() {
                return Ok((permit, turn.ok_or(Error::Closing)?));
            }
        }
    }
}
