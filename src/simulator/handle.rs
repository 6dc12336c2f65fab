//! The simulator's controls for the process that it runs in.

use std::sync::Arc;

use crate::principal::{DeviceToken, Principal};

use super::counts::{Count, Counts};
use super::fault::Fault;
use super::journal::{Journal, Tick};
use super::requests::Recorded;
use super::tokens::Pair;
use super::world::World;

/// Steers a running simulator and reads what it saw. Cheap to clone; outlives the simulator.
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<World>);

impl Handle {
    /// All counts.
    pub fn counts(&self) -> Counts {
        self.0.counter.counts()
    }

    /// One principal's counts; an account is named by its email.
    pub fn counts_of(&self, principal: &Principal) -> Count {
        self.0.counter.of(principal)
    }

    /// The requests that were recorded: those with `X-Test-Id`, and all below
    /// `/mobilesdk/stage/echo`. The newest 20,000.
    pub fn requests(&self) -> Vec<Recorded> {
        self.0.requests.list(None)
    }

    /// The recorded requests that carried this `X-Test-Id`.
    pub fn requests_of(&self, test_id: &str) -> Vec<Recorded> {
        self.0.requests.list(Some(test_id))
    }

    /// Keeps a journal from now on, until the simulator ends; a reset leaves it alone.
    pub fn begin_journal(&self) {
        self.0.journal.begin();
    }

    /// The journal as it stands; empty unless one was begun.
    pub fn journal(&self) -> Journal {
        self.0.journal.read(None)
    }

    /// The point at which the journal stands, so that what a test does can be told apart from what
    /// calls did before and after.
    pub fn tick(&self) -> Tick {
        self.0.journal.tick()
    }

    /// Adds a rule behind those in force.
    pub fn add_fault(&self, fault: Fault) {
        self.0.faults.add(fault);
    }

    /// The rules in force.
    pub fn faults(&self) -> Vec<Fault> {
        self.0.faults.list()
    }

    /// Ends all rules.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// Lets the access tokens of `whose`, or of all, expire. Returns how many.
    pub fn expire(&self, whose: Option<&Principal>) -> usize {
        self.0.expire(whose)
    }

    /// Revokes the access and RefreshTokens of `whose`, or of all. Returns how many pairs.
    pub fn revoke(&self, whose: Option<&Principal>) -> usize {
        self.0.revoke(whose)
    }

    /// Revokes the RefreshTokens only. Returns how many.
    pub fn revoke_refresh_tokens(&self, whose: Option<&Principal>) -> usize {
        self.0.revoke_refresh_tokens(whose)
    }

    /// A pair as a login would issue it, revoking what came before, but without a call: neither
    /// counted nor limited. As if a phone app had logged in from elsewhere.
    pub fn issue(&self, principal: &Principal) -> Pair {
        self.0.issue(principal)
    }

    /// Makes a user known as a registration would.
    pub fn register(&self, device: DeviceToken) {
        self.0.users.add(device);
    }

    /// Counts, recorded requests, faults and the login limit start over; tokens stay.
    pub fn reset(&self) {
        self.0.reset();
    }
}
