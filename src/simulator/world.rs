//! All that one simulated Damoov knows. Holds no socket, and does not know who asks.

use crate::clock::Clock;
use crate::principal::Principal;

use super::counts::Counter;
use super::fault::Faults;
use super::login_limit::Limiter;
use super::requests::Requests;
use super::settings::{ExpiresIn, LivePace, Refresh, Registration, Settings};
use super::tokens::{Pair, Tokens};
use super::users::Users;

/// One simulated Damoov.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) users: Users,
    pub(super) tokens: Tokens,
    pub(super) limiter: Limiter,
    pub(super) faults: Faults,
    pub(super) counter: Counter,
    pub(super) requests: Requests,
    pub(super) refresh: Refresh,
    pub(super) registration: Registration,
    pub(super) expires_in: ExpiresIn,
    pub(super) live: LivePace,
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        World {
            clock: settings.clock,
            users: Users::new(
                settings.instances,
                settings.accounts,
                settings.known_users,
                settings.rejected_users,
            ),
            tokens: Tokens::new(settings.lifetimes, settings.refresh, settings.clock),
            limiter: Limiter::new(settings.login_limit, settings.clock),
            faults: Faults::default(),
            counter: Counter::default(),
            requests: Requests::default(),
            refresh: settings.refresh,
            registration: settings.registration,
            expires_in: settings.expires_in,
            live: settings.live,
        }
    }

    /// A pair for `principal` out of nothing: no call, no count.
    pub(super) fn issue(&self, principal: &Principal) -> Pair {
        let instance = match principal {
            Principal::User(device) => {
                self.users.add(*device);
                self.users.instance_of(*device)
            }
            Principal::Account(_) => None,
        };
        self.tokens.log_in(principal, instance)
    }

    /// Counts, recorded requests, faults and the login limit start over; tokens stay.
    pub(super) fn reset(&self) {
        self.counter.reset();
        self.requests.clear();
        self.faults.clear();
        self.limiter.reset();
    }
}
