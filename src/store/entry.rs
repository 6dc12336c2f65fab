//! What a store remembers of one principal, and the answers to writes of it.

use std::fmt;
use std::time::Duration;

use super::pseudonyms::Pseudonym;
use crate::clock::Timestamp;
use crate::principal::{InstanceId, Principal};

/// Counts the pairs that a principal ever had: 0 before the first. Never goes down, not even by
/// [`super::Store::forget`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation that a commit on top of this one gets.
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// What a commit compares before it writes: both must still be what its caller read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// The [`Entry::generation`].
    pub generation: Generation,
    /// The [`Entry::epoch`].
    pub epoch: u64,
}

/// One taking of a lease. Its taker makes it up, so that a repeated call is recognised and a late release
/// frees no other lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub uuid::Uuid);

impl LeaseId {
    /// One that nobody used before.
    pub fn fresh() -> LeaseId {
        LeaseId(uuid::Uuid::new_v4())
    }
}

/// One run of one process: it says who committed a record, and who holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub uuid::Uuid);

/// Lower case hex with dashes.
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The name of a key that records are sealed with. Says nothing about the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

/// Lower case hex.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// All that a store remembers of one principal. The default entry: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The generation of the last commit, also when the record was forgotten since.
    pub generation: Generation,
    /// Raised by [`super::Store::forget`]: a commit of the epoch before is superseded.
    pub epoch: u64,
    /// The pair; `None` before the first commit and after a forget.
    pub record: Option<Record>,
    /// What was learnt since the last commit, and what outlives commits.
    pub notes: Notes,
}

impl Entry {
    /// What a commit on top of this entry compares.
    pub fn version(&self) -> Version {
        Version {
            generation: self.generation,
            epoch: self.epoch,
        }
    }

    /// Whether there is nothing but a version. If that has an epoch, it is what is left of a principal that was
    /// forgotten.
    pub fn is_bare(&self) -> bool {
        self.record.is_none() && self.notes == Notes::default()
    }

    /// What stands of a principal that was forgotten, and has this version since.
    pub fn forgotten(version: Version) -> Entry {
        let Version { generation, epoch } = version;
        Entry {
            generation,
            epoch,
            ..Entry::default()
        }
    }

    /// What stands if a tombstone has the version `forgotten`: without a pair nobody was logged in since.
    pub(super) fn beneath(self, forgotten: Version) -> Entry {
        match self.record {
            Some(_) => self,
            None => Entry {
                generation: self.generation.max(forgotten.generation),
                epoch: self.epoch.max(forgotten.epoch),
                ..self
            },
        }
    }

    /// Whether this entry is the truth if the two contradict each other, as after a store lost its
    /// newest writes: the higher epoch, then the pair that was received later, then the higher
    /// generation, then anything over nothing.
    pub fn outranks(&self, other: &Entry) -> bool {
        let rank = |entry: &Entry| {
            let received = entry.record.as_ref().map(|record| record.received);
            let is_known = *entry != Entry::default();
            (entry.epoch, received, entry.generation, is_known)
        };
        rank(self) > rank(other)
    }

    /// Returns the instance that a user is known under: its pair's, until a login there is rejected; or,
    /// without a pair, the one that it was registered in.
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
    /// The instance whose key logged the user in; `None` for an account.
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
    /// When the last login happened that replaced a pair which was rejected for no known reason.
    pub displaced: Option<Timestamp>,
    /// Somebody else logs this principal in: no login before this.
    pub contested_until: Option<Timestamp>,
    /// The token after a renewal was rejected as well: before this no 401 renews.
    pub suppressed_until: Option<Timestamp>,
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

/// One fact to remember, durable when [`super::Store::note`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Sets [`Notes::refresh_dead`], if there is a pair.
    RefreshDead(Generation),
    /// Clears [`Notes::refresh_dead`].
    RefreshAlive,
    /// Sets [`Notes::answer_lost`], if there is a pair.
    AnswerLost(Generation),
    /// Sets [`Notes::rejected`] and ends [`Record::known`].
    Rejected(Rejected),
    /// Sets [`Notes::displaced`].
    Displaced(Timestamp),
    /// Sets [`Notes::contested_until`].
    ContestedUntil(Timestamp),
    /// Sets [`Notes::suppressed_until`].
    SuppressedUntil(Timestamp),
    /// Sets [`Notes::registered_in`], unless there is a pair.
    RegisteredIn(InstanceId),
}

impl Note {
    /// Whether it says something of a pair, and so nothing of who has none.
    pub fn is_of_a_pair(&self) -> bool {
        matches!(
            self,
            Note::RefreshDead(_) | Note::RefreshAlive | Note::AnswerLost(_)
        )
    }
}

/// What [`super::Store::lease`] returns. A lease is a row that says which run may renew a principal, by
/// which taking of it:
///
/// ```text
///              lease(L) by R               commit(L), release(L)
///   no row ──────────────────▶ held as L ────────────────────────▶ no row
///                                │    ▲ │
///                                │    └─┘ lease(L), extend(L): the ttl counts anew
///                   the ttl ends │
///                                ▼
///                            orphaned ──▶ lease(M) by any run: held as M, `orphaned: true`
/// ```
///
/// While it is held as L, `lease(M)` returns `Held`, and `extend(M)`, `release(M)` change nothing. An engine
/// that sees its processes die may end their leases at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The caller holds the principal until the ttl ends, or until a commit or a release.
    Granted {
        /// A former lease ended without a commit or a release: a refresh that its holder had sent may
        /// have been under way, so that the stored RefreshToken may be spent.
        orphaned: bool,
    },
    /// Another lease holds it.
    Held {
        /// It is not worth asking again earlier: real time.
        left: Duration,
    },
}

/// Who holds a lease, for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The process run.
    pub run: RunId,
    /// Since when, by the store's clock; `None` if the engine does not keep it.
    pub since: Option<Timestamp>,
    /// How long it lasts if it is not extended, in real time.
    pub left: Duration,
}

/// What [`super::Store::commit`] returns.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it arrives"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Durable, as this generation.
    Committed(Generation),
    /// Another commit (or a forget) came first; nothing was written. Holds what stands there now.
    Superseded(Entry),
}

/// What became of one entry of a [`super::Store::restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It stands in the store now.
    Written,
    /// What stood there outranks it, or is the same.
    Kept,
}

/// What [`super::Store::changes`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One entry was changed, by this process or another.
    Entry {
        /// Whose.
        principal: Principal,
        /// What stands there now.
        version: Version,
    },
    /// A principal was forgotten, by this process or another.
    Forgotten(Tombstone),
    /// Changes may have been missed: any entry may be another one now.
    Everything,
}

/// Which entries a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Those that hold a pair or a note.
    Known,
    /// Those that hold neither as well: processes of earlier versions leave them of who is forgotten.
    All,
}

/// A place in a listing; only the engine that made it understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

impl Cursor {
    /// The place that was told as this text.
    pub fn told(text: String) -> Cursor {
        Cursor(text)
    }

    /// As it is told to whoever asks for the next page.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the principals' order.
    pub entries: Vec<(Principal, Entry)>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<Cursor>,
}

/// What is left of a principal that was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose, for those who have the key and the name.
    pub pseudonym: Pseudonym,
    /// What a commit on top of it compares.
    pub version: Version,
}

/// A part of all tombstones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// In the order of their pseudonyms.
    pub tombstones: Vec<Tombstone>,
    /// Where the next part begins; `None` if this is the last one.
    pub next: Option<Cursor>,
}
