//! The guards of a store: small named rows by which all processes agree, such as the count of rejected
//! refreshes. What a row means is its writers' business.

use async_trait::async_trait;

use super::{Error, StoreClock};

/// Keeps one small row for each name, written by compare-and-swap:
///
/// ```text
///   never written ──set(expected 0)──▶ version 1 ──set(expected 1)──▶ version 2 ─▶ …
///    (version 0)                           │
///                                          └─set(any other)──▶ `Superseded`: nothing is written
/// ```
///
/// What [`super::Store`] says of all its methods holds here, too.
#[async_trait]
pub trait GuardRows: StoreClock {
    /// Returns the guard called `name`: the default one if it was never written.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn guard(&self, name: &str) -> Result<Guard, Error>;

    /// Writes `value` if the guard called `name` still has the version `expected`. Durable. Repeated
    /// after it was done, it returns [`Guarded::Set`] again, as long as `value` stands.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn set_guard(&self, name: &str, expected: u64, value: Vec<u8>) -> Result<Guarded, Error>;
}

/// A small row that all processes share. The default: never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// How often it was written.
    pub version: u64,
    /// What its writers agreed upon; its meaning is theirs.
    pub value: Vec<u8>,
}

/// What [`GuardRows::set_guard`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// Durable, as this version.
    Set(u64),
    /// Another write came first; nothing was written. Holds what stands there now.
    Superseded(Guard),
}
