//! What a token store promises. Engines keep it: [`sqlite`] is the embedded one. The contract's
//! own test-suite, which every engine runs, is `contract`; the arithmetic of the login budget,
//! which all engines share, is [`windows`]. A store never calls Damoov and never sees a token in
//! the clear: what it keeps of a pair is sealed before it gets here.

#[cfg(test)]
pub mod contract;
pub mod sqlite;
pub mod windows;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::principal::{InstanceId, Principal};

/// Counts the pairs that a principal ever had. 0: none yet. Never goes down, not by
/// [`Store::forget`] either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation that a commit on top of this one gets.
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// One run of one process: who committed a record, who holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub uuid::Uuid);

/// Lower case hex with dashes.
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Tells the keys that records are sealed with apart; says nothing about the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

/// Lower case hex.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// All that a store remembers of one principal. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The generation of the last commit, also when the record was forgotten since.
    pub generation: Generation,
    /// Raised by [`Store::forget`].
    pub epoch: u64,
    /// The pair; none before the first commit and after a forget.
    pub record: Option<Record>,
    /// What was learnt since the last commit, and what outlives commits.
    pub notes: Notes,
}

impl Entry {
    /// The instance that a user is known under: its pair's, until a login there is rejected, or the
    /// one that it was registered in.
    pub fn known_instance(&self) -> Option<InstanceId> {
        match &self.record {
            Some(record) => record.instance.filter(|_| record.known),
            None => self.notes.registered_in,
        }
    }
}

/// A committed pair. Its generation is the [`Entry`]'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The instance whose key logged the user in; none for an account.
    pub instance: Option<InstanceId>,
    /// Whether this principal counts as seen before. A commit says yes, a rejected login no.
    pub known: bool,
    /// Tokens and lifetime, sealed.
    pub sealed: Vec<u8>,
    /// The key that opens `sealed`.
    pub key: KeyId,
    /// When the pair was received: the age of its RefreshToken.
    pub received: Timestamp,
    /// When the access token expires.
    pub expires: Timestamp,
    /// The process run that committed it.
    pub run: RunId,
}

/// A record whose text was sealed anew, with another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// Whose.
    pub principal: Principal,
    /// The text that was read.
    pub before: Vec<u8>,
    /// The same content, sealed anew.
    pub sealed: Vec<u8>,
    /// The key that opens it.
    pub key: KeyId,
}

/// Facts about a principal that must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The RefreshToken of this generation was definitely rejected. Cleared by a commit.
    pub refresh_dead: Option<Generation>,
    /// An answer to a refresh of this generation was lost. Cleared by a commit.
    pub answer_lost: Option<Generation>,
    /// A login was rejected. Cleared by a commit.
    pub rejected: Option<Rejected>,
    /// When the last login happened that replaced a rejected pair of the same process run.
    pub displaced: Option<Timestamp>,
    /// Somebody else logs this principal in: no login before this.
    pub contested_until: Option<Timestamp>,
    /// The instance that a user without a pair was registered in, or moved to. Cleared by a commit
    /// and by a rejected login.
    pub registered_in: Option<InstanceId>,
}

/// A rejected login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// No further login with the same credential before this.
    pub until: Timestamp,
    /// A keyed hash of the instance and key (or account and password) that was rejected, so that
    /// a changed key is tried at once.
    pub with: [u8; 8],
}

/// One fact to remember, durable when [`Store::note`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Sets [`Notes::refresh_dead`].
    RefreshDead(Generation),
    /// Clears [`Notes::refresh_dead`].
    RefreshAlive,
    /// Sets [`Notes::answer_lost`].
    AnswerLost(Generation),
    /// Sets [`Notes::rejected`] and ends [`Record::known`].
    Rejected(Rejected),
    /// Sets [`Notes::displaced`].
    Displaced(Timestamp),
    /// Sets [`Notes::contested_until`].
    ContestedUntil(Timestamp),
    /// Sets [`Notes::registered_in`], unless there is a pair.
    RegisteredIn(InstanceId),
}

/// The answer to [`Store::lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// This owner holds the principal until the ttl ends, or [`Store::release`].
    Granted {
        /// A former owner died, or overslept its ttl, without releasing: a refresh of its may
        /// have been under way.
        orphaned: bool,
    },
    /// Another live owner holds it.
    Held,
}

/// The answer to [`Store::commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Durable, as this generation.
    Committed(Generation),
    /// Another commit (or a forget) came first; nothing was written. What stands there now.
    Superseded(Entry),
}

/// A small row that all processes share, such as the count of a guard. The default: never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// How often it was written.
    pub version: u64,
    /// What its writers agreed upon.
    pub value: Vec<u8>,
}

/// The answer to [`Store::set_guard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// Durable, as this version.
    Set(u64),
    /// Another write came first; nothing was written. What stands there now.
    Superseded(Guard),
}

/// A principal whose entry was changed, by this process or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub principal: Principal,
    /// The generation that stands there now.
    pub generation: Generation,
    /// The epoch that stands there now.
    pub epoch: u64,
}

/// How many logins may happen; all windows must allow one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginWindows {
    /// All that name the same group share the slots.
    pub group: String,
    /// At least one.
    pub windows: Vec<LoginWindow>,
    /// Slots of each window that only [`Class::Known`] may take.
    pub reserve: u32,
}

/// At most `logins` in any span of `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginWindow {
    /// At least 1.
    pub logins: u32,
    /// Above zero.
    pub per: Duration,
}

/// Who asks for a login slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A principal seen before: may use the reserve.
    Known,
    /// A principal never seen.
    New,
}

/// One slot of the login budget, named by the one that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub uuid::Uuid);

/// The answer to [`Store::take_login`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// One login may happen now. Durably taken, whatever comes of it.
    Taken,
    /// None is free for this class now.
    Wait {
        /// Until the next one is.
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
    /// Until a known principal gets a slot; zero: now.
    pub next_known: Duration,
    /// Until a principal never seen gets one; zero: now.
    pub next_new: Duration,
    /// Until the block ends; zero: there is none.
    pub blocked: Duration,
    /// Until the windows are whole again; zero: they are.
    pub halved: Duration,
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

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The medium does not take writes now: full, read-only, I/O error. Reads may still work.
    #[error("the store cannot be written: {0}")]
    Unwritable(String),
    /// The medium cannot be read now.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
    /// This principal's entry is damaged; others are not concerned.
    #[error("the entry of {0} is damaged")]
    Damaged(Principal),
    /// A record is sealed with a key that this process lacks: nothing is known of the pair in it, and
    /// nothing may take its place.
    #[error(
        "a record is sealed with the key {0}, which is not configured: put that key back into \
         [store] old_keys"
    )]
    UnknownKey(KeyId),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Keeps the pairs, the notes, the leases and the login budget of all principals.
///
/// Durable means: survives a kill and a power cut from the moment the call returns. Every method
/// may be called from any runtime; none blocks its thread on I/O.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What is known of `principal`; the default entry when nothing is.
    async fn load(&self, principal: &Principal) -> Result<Entry, Error>;

    /// Takes, or extends, this process run's lease on `principal`. A killed owner holds nobody up.
    /// Refused with [`Error::Unwritable`] while a commit could not be made durable.
    async fn lease(&self, principal: &Principal, ttl: Duration) -> Result<Lease, Error>;

    /// [`Store::lease`] and, once that has its answer, [`Store::load`] at one go. Where the lease
    /// was granted, nobody else commits on top of this entry until it ends.
    async fn lease_and_load(
        &self,
        principal: &Principal,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error>;

    /// Gives the lease back, if this run holds it, before any later [`Store::lease`] of this
    /// handle. Does not wait for it. Best effort: the ttl ends it otherwise.
    fn release(&self, principal: &Principal);

    /// Writes `record` if the entry still has generation `expected` and epoch `epoch`. Durable on
    /// return. Clears `refresh_dead`, `answer_lost` and `rejected`.
    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        expected: Generation,
        epoch: u64,
    ) -> Result<Commit, Error>;

    /// Remembers one fact. Durable on return. Changes neither generation nor epoch.
    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error>;

    /// Drops up to `limit` principals of which nothing is known but a rejected login that stands no
    /// more: its end lies before `now`, or after `latest`, as no such end does that was set by a right
    /// clock. Answers how many. Durable.
    async fn drop_rejected(
        &self,
        now: Timestamp,
        latest: Timestamp,
        limit: usize,
    ) -> Result<usize, Error>;

    /// Drops the pair and the notes, raises the epoch. False when there was nothing. Durable.
    async fn forget(&self, principal: &Principal) -> Result<bool, Error>;

    /// Takes the login slot `id` if every window has one for `class`. Repeated with the same id it
    /// takes no other. No step of the wall clock frees a slot. Durable.
    async fn take_login(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error>;

    /// The login of the slot `id` was answered now. Damoov counted it somewhere between the taking
    /// and this, so that the slot counts from now on: else logins that were held up on their way
    /// would meet those of the next window there. Durable.
    async fn end_login(&self, group: &str, id: SlotId) -> Result<(), Error>;

    /// Gives the login slot `id` back: its login was not sent. Free for every process from then on.
    /// Repeated with the same id, or with one that nobody took, it changes nothing. Durable.
    async fn give_login_back(&self, group: &str, id: SlotId) -> Result<(), Error>;

    /// No login of `group` for `blocked`; windows halved for `halved`. Neither is ever shortened by
    /// a later call. Durable.
    async fn block_logins(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error>;

    /// Ends the block of `group`, not the halving; false where there was none. Durable.
    async fn unblock_logins(&self, group: &str) -> Result<bool, Error>;

    /// The state of the budget; takes nothing.
    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error>;

    /// The principals whose entries change from now on, by this process or another, each within a
    /// second. Repeats are possible, gaps are not. One receiver at a time.
    fn changes(&self) -> mpsc::UnboundedReceiver<Change>;

    /// Up to `limit` principals that hold a pair received before `before` whose RefreshToken is
    /// not known dead, oldest first, without the first `skip`.
    async fn due(
        &self,
        before: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Principal>, Error>;

    /// Up to `limit` entries that hold a pair or a note, in the principals' order, after `after`.
    async fn list(
        &self,
        after: Option<&Principal>,
        limit: usize,
    ) -> Result<Vec<(Principal, Entry)>, Error>;

    /// Puts newly sealed texts in the place of those that stand there, where the record is still the
    /// one that was read; nothing else of it changes, and nobody is told. Answers how many were
    /// replaced. Durable.
    async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error>;

    /// How many records each key is needed for.
    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error>;

    /// How many principals hold a pair.
    async fn count(&self) -> Result<u64, Error>;

    /// The guard called `name`; the default one if there is none.
    async fn guard(&self, name: &str) -> Result<Guard, Error>;

    /// Writes `value` if the guard called `name` still has the version `expected`. Durable on
    /// return.
    async fn set_guard(&self, name: &str, expected: u64, value: Vec<u8>) -> Result<Guarded, Error>;

    /// Keeps `fresh` if the store has no canary yet; answers the one that stands. Opening it
    /// proves that the configured seal key is this store's. Durable.
    async fn canary(&self, fresh: Vec<u8>) -> Result<Vec<u8>, Error>;

    /// Puts `fresh` in the place of the canary, after the seal key was changed. Durable.
    async fn replace_canary(&self, fresh: Vec<u8>) -> Result<(), Error>;

    /// Whether writes would be durable now; the reason where not. Cheap: readiness asks often.
    fn writable(&self) -> Result<(), Error>;
}
