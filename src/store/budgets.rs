//! The login budgets of a store, one a group: how many logins may happen in which time, and until when
//! none may. The arithmetic that all engines share is [`super::windows`].

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::clock::Clock;

/// Keeps the login budget of every group, across restarts and for all processes on the store.
///
/// What [`super::Store`] says of all its methods holds here, too. Times go in and come out as durations of
/// real time, however fast the clock of a simulation runs: the clock is the store's, and no step of a wall
/// clock frees a slot. Every write is durable.
/// Errors of all writes: [`Error::Unwritable`]; of [`Budgets::login_budget`]: [`Error::Unreadable`]; of all:
/// [`Error::Away`].
///
/// ```text
///            take_login()             end_login()                  its window passes
///   free ─────────────────▶ taken ──────────────────▶ counted ──────────────────────▶ free
///     ▲                       │  counts from the take    counts from the end
///     └───────────────────────┘
///         give_login_back()
/// ```
#[async_trait]
pub trait Budgets: Send + Sync {
    /// Takes the login slot `id` if every window has one for `class`. Repeated with the same id, it
    /// returns [`Slot::Taken`] and takes no other.
    async fn take_login(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error>;

    /// Says that the login of the slot `id` was answered. The slot counts from now on: Damoov counted
    /// the login somewhere between the taking and its answer, and logins that were held up on their way
    /// must not meet those of the next window there. A repetition counts it from the repetition; an id
    /// that nobody took changes nothing.
    async fn end_login(&self, group: &str, id: SlotId) -> Result<(), Error>;

    /// Gives the login slot `id` back, because its login was not sent: it is free for every process
    /// from then on. A repetition, and an id that nobody took, change nothing.
    async fn give_login_back(&self, group: &str, id: SlotId) -> Result<(), Error>;

    /// Allows no login of `group` for `blocked`, and halves its windows for `halved`. No later call
    /// shortens either; a repetition counts from the repetition.
    async fn block_logins(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error>;

    /// Ends the block of `group`, not the halving. Returns false if there was no block, as after a
    /// repetition.
    async fn unblock_logins(&self, group: &str) -> Result<bool, Error>;

    /// Returns the state of the budget; takes nothing.
    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error>;
}

/// How many logins may happen; all windows must allow one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginWindows {
    /// All processes that name the same group share the slots.
    pub group: String,
    /// At least one.
    pub windows: Vec<LoginWindow>,
    /// Slots of each window that only [`Class::Known`] may take.
    pub reserve: u32,
}

impl LoginWindows {
    /// These windows, which are meant by `clock`, in real time, as a store counts.
    pub fn in_real_time(&self, clock: Clock) -> LoginWindows {
        let in_real_time = |window: &LoginWindow| LoginWindow {
            per: clock.to_real(window.per),
            ..*window
        };
        LoginWindows {
            group: self.group.clone(),
            windows: self.windows.iter().map(in_real_time).collect(),
            reserve: self.reserve,
        }
    }
}

/// At most `logins` in any span of `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginWindow {
    /// At least 1.
    pub logins: u32,
    /// Above zero.
    pub per: Duration,
}

/// For whom a login slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A principal seen before: may use the reserve.
    Known,
    /// A principal never seen.
    New,
}

/// One slot of a login budget. Its taker makes the id up, so that a repeated take is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub uuid::Uuid);

/// What [`Budgets::take_login`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// One login may happen now. Durably taken, whatever comes of it.
    Taken,
    /// No slot is free for this class now.
    Wait {
        /// How long until the next one is.
        left: Duration,
        /// Whether a block stands in the way, rather than the windows.
        blocked: bool,
    },
}

/// The state of a group's login budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginBudget {
    /// Slots that a known principal could take now, one after the other.
    pub remaining: u32,
    /// One for each configured window, in that order.
    pub windows: Vec<WindowState>,
    /// Slots of each window that only [`Class::Known`] may take.
    pub reserve: u32,
    /// How long until a known principal gets a slot; zero: now.
    pub next_known: Duration,
    /// How long until a principal never seen gets one; zero: now.
    pub next_new: Duration,
    /// How long the block still lasts; zero: there is none.
    pub blocked: Duration,
    /// How long the windows stay halved; zero: they are not.
    pub halved: Duration,
}

impl LoginBudget {
    /// This state, which is in real time, as it is meant by `clock`.
    pub fn meant_by(mut self, clock: Clock) -> LoginBudget {
        for window in &mut self.windows {
            window.window.per = clock.from_real(window.window.per);
        }
        for span in [
            &mut self.next_known,
            &mut self.next_new,
            &mut self.blocked,
            &mut self.halved,
        ] {
            *span = clock.from_real(*span);
        }
        self
    }
}

/// The state of one window of a login budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowState {
    /// As configured.
    pub window: LoginWindow,
    /// The logins that it allows now: half of the configured ones while the windows are halved.
    pub limit: u32,
    /// The slots taken in the time that it spans.
    pub used: u32,
}
