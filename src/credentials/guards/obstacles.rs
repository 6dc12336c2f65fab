//! What stands in the way of one principal, as far as the store tells: for a person who asks why.

use std::time::Duration;

use super::shared::SharedMoment;
use super::{breaker, mass_rejection};
use crate::clock::{Clock, Timestamp};
use crate::credentials::Settings;
use crate::credentials::renewal::login::{class, stands};
use crate::credentials::vault::seal::Ring;
use crate::directory::{Account, Directory, Instance};
use crate::principal::Principal;
use crate::store::{Class, Entry, Error, Guard, LoginBudget};

/// Why a login of a principal would not happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No instance is configured that it could log in with.
    InstanceUnknown,
    /// No account of this name is configured.
    AccountUnknown,
    /// Damoov rejected the login with the configured key or password.
    Rejected {
        /// Until it is tried again.
        left: Duration,
    },
    /// Damoov rejected the logins of several users with the same key, one after the other.
    KeyRejected {
        /// Until one of its class is tried again.
        left: Duration,
    },
    /// Somebody else logs it in, too.
    Contested {
        /// Until the next login of this proxy.
        left: Duration,
    },
    /// Damoov rejects the RefreshTokens of many: who holds a pair waits.
    Suspended,
    /// Damoov answered a login with 429.
    Blocked {
        /// Until the block ends.
        left: Duration,
    },
    /// Every slot of the budget is taken.
    OutOfBudget {
        /// Until the next one for a principal of its class.
        left: Duration,
    },
}

/// Who asks, and with what.
pub struct Inquiry<'a> {
    /// The numbers of the engine.
    pub settings: &'a Settings,
    /// The credentials that are configured.
    pub directory: &'a Directory,
    /// The keys of the store.
    pub ring: &'a Ring,
    /// Whose login.
    pub principal: &'a Principal,
    /// What the store says of it.
    pub entry: &'a Entry,
    /// The state of the login budget.
    pub budget: &'a LoginBudget,
    /// The one clock.
    pub clock: Clock,
}

/// All that stands in the way of a login. `guard` reads one of the store's guards by its name.
pub async fn obstacles(
    inquiry: &Inquiry<'_>,
    guard: impl AsyncFn(String) -> Result<Guard, Error>,
) -> Result<Vec<Obstacle>, Error> {
    let Inquiry {
        settings,
        directory,
        ring,
        principal,
        entry,
        budget,
        clock,
    } = *inquiry;
    let class = class(principal, entry);
    let left = |until: Timestamp| until.since(clock.wall());
    let mut obstacles = Vec::new();
    let fingerprint = match principal {
        Principal::Account(name) => {
            let account = directory.account(name);
            account
                .map(|account| account.fingerprint(ring))
                .ok_or(Obstacle::AccountUnknown)
        }
        Principal::User(_) => instance(directory, entry)
            .map(|instance| instance.fingerprint(ring))
            .ok_or(Obstacle::InstanceUnknown),
    };
    match fingerprint {
        Err(unknown) => obstacles.push(unknown),
        Ok(fingerprint) => {
            // With another key it is tried at once.
            let rejected = entry.notes.rejected.filter(|r| r.with == fingerprint);
            if let Some(left) = rejected.map(|rejected| left(rejected.until))
                && stands(left, settings.remember_rejected)
            {
                obstacles.push(Obstacle::Rejected { left });
            }
            let breaker = guard(breaker::row(fingerprint)).await?;
            let now = SharedMoment::now(&clock);
            let every = settings.remember_rejected;
            if let Some(left) = breaker::holds(&breaker, class, &now, every) {
                obstacles.push(Obstacle::KeyRejected { left });
            }
        }
    }
    if let Some(left) = entry.notes.contested_until.map(left)
        && stands(left, settings.contested_backoff)
    {
        obstacles.push(Obstacle::Contested { left });
    }
    let suspension = guard(mass_rejection::ROW.to_owned()).await?;
    if entry.record.is_some() && mass_rejection::suspends(&suspension) {
        obstacles.push(Obstacle::Suspended);
    }
    let next = match class {
        Class::Known => budget.next_known,
        Class::New => budget.next_new,
    };
    match (budget.blocked, next) {
        (Duration::ZERO, Duration::ZERO) => {}
        (Duration::ZERO, left) => obstacles.push(Obstacle::OutOfBudget { left }),
        (left, _) => obstacles.push(Obstacle::Blocked { left }),
    }
    Ok(obstacles)
}

/// The instance that a login without a named one would be made with.
fn instance<'d>(directory: &'d Directory, entry: &Entry) -> Option<&'d Instance> {
    let known = entry.known_instance().and_then(|id| directory.instance(id));
    known.or_else(|| directory.default_instance())
}

impl Instance {
    /// Recognises id and key without keeping them.
    pub(in crate::credentials) fn fingerprint(&self, ring: &Ring) -> [u8; 8] {
        let id = self.id.to_string();
        ring.fingerprint(&[id.as_bytes(), self.key.expose().as_bytes()])
    }
}

impl Account {
    /// Recognises email and password without keeping them.
    pub(in crate::credentials) fn fingerprint(&self, ring: &Ring) -> [u8; 8] {
        ring.fingerprint(&[self.email.as_bytes(), self.password.expose().as_bytes()])
    }
}
