//! When a renewal may call the Auth endpoints, and what its failures mean for others: a principal that
//! failed rests, a host that failed rests, and no more calls are under way than may be.

use super::backoff::own::OwnBackoff;
use super::backoff::{Failure, Permit, Resting, Standing};
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::renewal::flights::{Flight, Probing};
use crate::credentials::renewal::token_endpoint::Turn;

impl Engine {
    /// The right to make one call, once principal and host have rested, if somebody is patient enough.
    pub(crate) async fn permit(
        &self,
        flight: &Flight,
        own: &OwnBackoff,
    ) -> Result<Permit<'_>, Error> {
        if flight.ask.probing == Probing::ByRefresh {
            // It finds out whether the host works, whatever others think of it.
            return self
                .backoff
                .probe()
                .ok_or_else(|| self.endpoint.last_failure());
        }
        while let Some(rest) = own.rest(&flight.principal) {
            if rest.until > flight.patience() {
                return Err(rest.error);
            }
            flight.trouble(rest.error);
            let rested = self.clock.sleep_until(rest.until);
            self.unless_closing(rested).await?;
        }
        if let Some(permit) = self.backoff.pass_now() {
            return Ok(permit);
        }
        if let Error::WaitedTooLong = flight.excuse() {
            flight.trouble(self.endpoint.last_failure());
        }
        let passed = self
            .backoff
            .pass(own.standing(&flight.principal), || flight.patience());
        match self.unless_closing(passed).await? {
            Ok(permit) => Ok(permit),
            Err(Resting) => Err(flight.excuse()),
        }
    }

    /// A call of `flight` was answered, whatever the answer.
    pub(crate) fn call_answered(&self, flight: &Flight, own: &OwnBackoff, permit: Permit<'_>) {
        permit.answered();
        own.answered(&flight.principal);
    }

    /// A call of `flight` failed with `error`: its principal rests, or the host does.
    pub(crate) fn call_failed(
        &self,
        flight: &Flight,
        own: &OwnBackoff,
        permit: Permit<'_>,
        failure: Failure,
        error: &Error,
    ) {
        self.told_of_host(flight, own, permit, failure);
        if failure == Failure::Own {
            own.failed(&flight.principal, error.clone());
        }
    }

    /// What a call that failed says of the host: nothing, if this principal's calls failed before
    /// while others' were answered.
    pub(crate) fn told_of_host(
        &self,
        flight: &Flight,
        own: &OwnBackoff,
        permit: Permit<'_>,
        failure: Failure,
    ) {
        let is_news = match failure {
            Failure::Own => own.standing(&flight.principal) == Standing::Good,
            Failure::Hosts(_) => true,
        };
        if is_news || permit.goes_first() {
            permit.failed(&flight.principal, failure);
        }
    }

    /// As [`Engine::permit`], and a turn among the refreshes that may be under way.
    pub(crate) async fn refresh_permit(
        &self,
        flight: &Flight,
    ) -> Result<(Permit<'_>, Turn<'_>), Error> {
        loop {
            let permit = self.permit(flight, &self.refresh_backoff).await?;
            let turn = self.unless_closing(self.endpoint.turn()).await?;
            // Those whose turn came before may have found the host failing.
            if permit.goes_first() || self.backoff.is_open() {
                return Ok((permit, turn.ok_or(Error::Closing)?));
            }
        }
    }
}
