//! What a token store promises, and how one is opened.
//!
//! [`Store`] is the contract; the login budget ([`Budgets`]) and the small rows that processes agree
//! upon ([`GuardRows`]) are traits of their own. Commands that must change nothing open a store as
//! [`ReadOnly`]. [`open`] chooses the engine: no code outside this room names one, except the configuration,
//! which says how [`postgres`] is reached. `sqlite` is the embedded engine, for the processes of one machine;
//! `postgres` is the one that many machines share.
//!
//! Every engine runs the same test suite, `contract`, and counts logins by the same arithmetic,
//! [`windows`]. To add an engine: implement the traits, run the suite (`contract!(YourMedium);`), and
//! add a branch to each function in `store/opening.rs`.
//!
//! A store never calls Damoov and never sees a token in the clear: what it keeps of a pair was sealed
//! before it got here.

#[cfg(test)]
mod actor;
mod budgets;
mod condition;
#[cfg(test)]
pub mod contract;
mod entry;
mod guards;
mod opening;
pub mod postgres;
mod pseudonyms;
mod read_only;
mod sqlite;
mod uses;
pub mod windows;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use self::budgets::{
    Budgets, Class, LoginBudget, LoginWindow, LoginWindows, Slot, SlotId, WindowState,
};
pub use self::condition::{Away, Condition};
pub use self::entry::{
    Change, Commit, Cursor, Entry, Generation, KeyId, Lease, LeaseHolder, LeaseId, Listed, Note,
    Notes, Page, Record, Rejected, Resealed, Restored, RunId, Tombstone, Tombstones, Version,
};
pub use self::guards::{Guard, GuardRows, Guarded};
pub use self::opening::{
    Engine, Opened, Settings, check_place, is_there, make_place, open, view, warnings,
};
pub use self::pseudonyms::{Pseudonym, Pseudonyms};
pub use self::read_only::{Backup, BackupError, ReadOnly};
pub use self::uses::{Day, Uses};
use crate::clock::{Stamp, Timestamp};
use crate::principal::Principal;

/// The store's clock: what is persisted is stamped by it, so that all processes on a store agree.
pub trait StoreClock: Send + Sync {
    /// Now, for what must not move with anybody's wall clock.
    fn stamp(&self) -> Stamp;

    /// Now, for the times of entries and their notes.
    fn now(&self) -> Timestamp {
        self.stamp().wall
    }
}

/// Keeps the pairs, the notes, the leases, the login budgets and the guards of all principals.
///
/// What holds for every method of this trait, of [`Budgets`], of [`GuardRows`] and of [`Uses`]:
///
/// - *Durable* means: survives a kill and a power cut from the moment the call returns `Ok`.
/// - A write that returns [`Error::Away`] may have been done; after any other error it was not. Each write
///   may be repeated with the same arguments, and says what the repetition returns.
/// - A future that is dropped does not undo its call: once polled, a write may be done.
/// - Time is the store's ([`StoreClock`]). Durations are real ones.
/// - Any runtime may call them; none blocks its thread on I/O.
/// - Each may return [`Error::Away`], and a write [`Error::Refused`]. After the store was closed they return
///   [`Error::Closed`].
#[async_trait]
pub trait Store: StoreClock + Budgets + GuardRows + Uses + 'static {
    /// Returns what is known of `principal`: the default entry if nothing is.
    ///
    /// Errors: [`Error::Damaged`] if this entry cannot be understood, [`Error::Unreadable`].
    async fn load(&self, principal: &Principal) -> Result<Entry, Error>;

    /// Takes the lease `id` on `principal` for `ttl`, and then loads its entry, both in one call. If the
    /// lease is granted, the entry is one that was read after that. [`Lease`] has the states. Repeated
    /// while `id` is held it is granted again, and `ttl` counts from the repetition.
    ///
    /// Errors: [`Error::Unwritable`] while a commit could not be made durable, so that no renewal is
    /// started whose pair would be lost. Inside: those of [`Store::load`]; the lease is taken all the
    /// same.
    async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error>;

    /// Lets the lease `id` end `ttl` from now. Returns false if it is not held any more: then somebody else
    /// may renew.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn extend(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<bool, Error>;

    /// Ends the lease `id` if it is held; does nothing otherwise. Takes effect before any later
    /// [`Store::lease`] of this handle, without waiting for it. Best effort: if it fails, the ttl ends the
    /// lease.
    fn release(&self, principal: &Principal, id: LeaseId);

    /// Writes `record` if the entry still has the version `over`; this comparison is the only fence,
    /// regardless of who holds the lease by now: refusing it would throw a good pair away. Clears
    /// [`Notes::refresh_dead`], [`Notes::answer_lost`] and [`Notes::rejected`], and ends `lease`. Durable.
    ///
    /// Repeated after it was done, it returns [`Commit::Committed`] again while this very `record` stands.
    ///
    /// Errors: [`Error::Unwritable`], [`Error::Damaged`] if the entry that stands in the way cannot be
    /// understood.
    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error>;

    /// Remembers one fact. Changes neither generation nor epoch. Durable. A repetition changes nothing
    /// more.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error>;

    /// Drops up to `limit` principals of which nothing is known but a rejected login that no longer
    /// stands: its end lies before `now`, or after `latest`, where only a wrong clock can have set it.
    /// Returns how many were dropped; a repetition drops the next ones. Durable.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn drop_rejected(
        &self,
        now: Timestamp,
        latest: Timestamp,
        limit: usize,
    ) -> Result<usize, Error>;

    /// Drops the pair and the notes and raises the epoch, so that no commit under way brings the pair
    /// back. The generation stays. All that is left is a [`Tombstone`], which does not hold the name.
    /// Returns false if there was nothing to drop, as after a repetition. Durable.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn forget(&self, principal: &Principal) -> Result<bool, Error>;

    /// Raises tombstones of another store to these versions, or makes them; none is lowered. Whose they are
    /// only who has the name can tell: a pair that stands is not touched, [`Store::restore`] drops it. Returns what
    /// became of each, in the same order; after a repetition each is [`Restored::Kept`]. Durable.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn bury(&self, tombstones: Vec<Tombstone>) -> Result<Vec<Restored>, Error>;

    /// Writes whole entries, each if it [outranks](Entry::outranks) the one that stands there. One that holds
    /// nothing but a version of some epoch becomes a tombstone, also where such a one stands under the name, as
    /// earlier versions left it. Generation and epoch are kept; only if that generation is not above the standing
    /// one's the entry gets the one that follows it, so that no process takes it for the pair that it replaces.
    /// Durable. Returns what became of each, in the same order; after a repetition each is [`Restored::Kept`].
    ///
    /// Errors: [`Error::Unwritable`].
    async fn restore(&self, entries: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error>;

    /// Tells of entries that change from now on other than by a renewal, by this process or another, each
    /// within a second: forgotten and restored ones, and with some engines all. A change may be told twice,
    /// but none is left out, unless [`Change::Everything`] says so. One receiver at a time: a new one ends
    /// the stream of the one before it. Closing the store ends the stream.
    fn changes(&self) -> mpsc::UnboundedReceiver<Change>;

    /// Returns up to `limit` principals that hold a pair received before `before` whose RefreshToken is
    /// not known dead, oldest first. Nobody is given them again within `hold`. Leaves out entries that
    /// are damaged.
    ///
    /// Errors: [`Error::Unreadable`], [`Error::Unwritable`].
    async fn claim_due(
        &self,
        before: Timestamp,
        limit: usize,
        hold: Duration,
    ) -> Result<Vec<Principal>, Error>;

    /// Returns up to `limit` entries in the principals' order, those after the place `after`. Leaves out
    /// entries that are damaged. Shows no tombstones: they have no names.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// Replaces each sealed text that is still the one that was read. Nothing else of the record
    /// changes, and [`Store::changes`] says nothing. Returns how many were replaced; a repetition
    /// replaces none. Durable.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error>;

    /// Returns how many records each key is needed for. May read the whole store.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error>;

    /// Returns how many principals hold a pair, or held one a minute ago. Of a large store an engine may
    /// return an estimate that is a twentieth off.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn count(&self) -> Result<u64, Error>;

    /// Returns the canary: a constant that was sealed with the store's key, so that opening it proves
    /// which key that is. `None` if no process has left one yet.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn canary(&self) -> Result<Option<Vec<u8>>, Error>;

    /// Keeps `fresh` if the store has no canary yet; returns the one that stands, as every repetition
    /// does. Durable.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn leave_canary(&self, fresh: Vec<u8>) -> Result<Vec<u8>, Error>;

    /// Puts `fresh` in the place of the canary `stands`, after the seal key was changed. Returns false if
    /// another one stands there. A repetition returns true again. Durable.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn replace_canary(&self, stands: Vec<u8>, fresh: Vec<u8>) -> Result<bool, Error>;

    /// Returns who holds the lease on `principal`; `None` if nobody does. Read now and then by those who
    /// wait for it.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error>;

    /// Whether this machine's files take what must be durable there now; [`Error::Unwritable`] says why
    /// they would not. Cheap enough for every readiness probe.
    fn writable(&self) -> Result<(), Error>;

    /// How the store is. Cheap enough for every request.
    fn condition(&self) -> Condition;
}

/// Why a store is not opened: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no store, and none is to be made.
    #[error(
        "there is no store in {}, and `[store] create` is false: mount the disk that it lies on, or \
         set `create = true` to start with an empty one, which costs every user a login",
        .0.display()
    )]
    Absent(PathBuf),
    /// No server was reached: it may be the next time.
    #[error("the store is away: {0}")]
    Away(String),
    /// The engine refuses what it found. It words the reason itself: what helps depends on the medium.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The medium takes no writes now: full, read-only, I/O error. Reads may still work.
    #[error("the store cannot be written: {0}")]
    Unwritable(String),
    /// The store was not reached, or did not answer in time: a write may have been done. Repeat it.
    #[error("the store is away: {0}")]
    Away(String),
    /// The medium cannot be read now.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
    /// This principal's entry is damaged; others are not concerned.
    #[error("the entry of {0} is damaged")]
    Damaged(Principal),
    /// The store takes no such entry, however often it is asked; others are not concerned.
    #[error("the store takes no such entry: {0}")]
    Refused(String),
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

impl Error {
    /// Whether it concerns one principal alone, and a repetition will not help.
    pub fn is_of_one_entry(&self) -> bool {
        matches!(
            self,
            Error::Damaged(_) | Error::Refused(_) | Error::UnknownKey(_)
        )
    }
}
