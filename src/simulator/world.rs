//! All that one simulated Damoov knows. Holds no socket, and does not know which calls there are.

use crate::clock::Clock;
use crate::principal::Principal;

use super::counts::Counter;
use super::fault::Faults;
use super::journal::{Called, Writer};
use super::login_limit::Limiter;
use super::requests::Requests;
use super::settings::{ExpiresIn, LivePace, Refresh, Registration, Settings};
use super::tokens::{Pair, Tokens};
use super::users::Users;

/// One simulated Damoov. Every connection shares it; what changes has its lock inside.
#[derive(Debug)]
pub(super) struct World {
    /// By which tokens age and logins are limited; may be a scaled one.
    pub(super) clock: Clock,
    /// Who may log in.
    pub(super) users: Users,
    /// What was issued, and what of it still counts.
    pub(super) tokens: Tokens,
    /// Makes logins scarce.
    pub(super) limiter: Limiter,
    /// What is to go wrong.
    pub(super) faults: Faults,
    /// What was asked, for tests to assert on.
    pub(super) counter: Counter,
    /// What every call presented and was issued, if a test wants to know.
    pub(super) journal: Writer,
    /// What arrived, of requests that ask to be recorded.
    pub(super) requests: Requests,
    /// How a refresh behaves.
    pub(super) refresh: Refresh,
    /// How a registration behaves.
    pub(super) registration: Registration,
    /// How `ExpiresIn` is written.
    pub(super) expires_in: ExpiresIn,
    /// How often live tracking sends what.
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
            journal: Writer::new(settings.clock),
            requests: Requests::default(),
            refresh: settings.refresh,
            registration: settings.registration,
            expires_in: settings.expires_in,
            live: settings.live,
        }
    }

    /// Issues a pair to `principal` without a call, and without counting one.
    pub(super) fn issue(&self, principal: &Principal) -> Pair {
        let instance = match principal {
            Principal::User(device) => {
                self.users.add(*device);
                self.users.instance_of(*device)
            }
            Principal::Account(_) => None,
        };
        let issued = self.tokens.log_in(principal, instance);
        self.journal
            .command(Called::Issue, Some(principal), Some(issued.birth));
        issued.pair
    }

    /// Ends the access tokens of `whose`, or of all. Returns how many counted before.
    pub(super) fn expire(&self, whose: Option<&Principal>) -> usize {
        self.journal.command(Called::Expire, whose, None);
        self.tokens.expire(whose)
    }

    /// Ends both tokens of `whose`, or of all. Returns how many pairs counted before.
    pub(super) fn revoke(&self, whose: Option<&Principal>) -> usize {
        self.expire(whose);
        self.revoke_refresh_tokens(whose)
    }

    /// Ends the RefreshTokens of `whose`, or of all. Returns how many counted before.
    pub(super) fn revoke_refresh_tokens(&self, whose: Option<&Principal>) -> usize {
        self.journal.command(Called::Revoke, whose, None);
        self.tokens.revoke_refresh_tokens(whose)
    }

    /// Counts, recorded requests, faults and the login limit start over; tokens stay.
    pub(super) fn reset(&self) {
        self.counter.reset();
        self.requests.clear();
        self.faults.clear();
        self.limiter.reset();
    }
}
