//! A small state that all processes on one store share: a row of the store, which is read, changed and
//! written by compare-and-swap, and what this process last saw of it. Does not know what the state means.
//!
//! A row is written again if the answer to its writing was lost, and a store takes the same row twice for
//! the same write. So each write says by a random number that it is its own: of two processes that want to
//! write the same state at once, one is told that the other came first.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use crate::clock::Stamp;
#[cfg(test)]
use crate::clock::{Boot, Clock, Timestamp};
use crate::credentials::vault::repeated::repeated;
use crate::store::{Error, Guard, GuardRows, Guarded, StoreClock};

/// How often one change is tried before it is given up; whenever a try is lost, another process has made
/// a change.
const MOST_TRIES: u32 = 100;

/// Two readings of a server's clock by different processes may differ by this much, in milliseconds.
const CLOCKS_DIFFER: i64 = 60_000;

/// A row of the store that holds a `T` as JSON. What cannot be read counts as the default.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    name: String,
    seen: watch::Sender<Seen<T>>,
    /// Held for one change: two changes of the same process at once would only overwrite each other.
    turn: Mutex<()>,
}

/// The row, as it is written.
#[derive(Serialize, Deserialize)]
struct Row<T> {
    #[serde(flatten)]
    value: T,
    /// Of this write alone.
    #[serde(default)]
    nonce: u64,
}

/// Reads what a row says.
pub(crate) fn read<T: DeserializeOwned>(row: &Guard) -> Result<T, serde_json::Error> {
    serde_json::from_slice(&row.value).map(|row: Row<T>| row.value)
}

/// What was last seen of the row.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    version: u64,
    pub(crate) value: Arc<T>,
}

impl<T> Shared<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned,
{
    /// The row called `name`, unread.
    pub(crate) fn new(name: impl Into<String>) -> Shared<T> {
        Shared {
            name: name.into(),
            seen: watch::Sender::new(Seen {
                version: 0,
                value: Arc::default(),
            }),
            turn: Mutex::new(()),
        }
    }

    /// What this process last saw; may be a second old.
    pub(crate) fn last_seen(&self) -> Arc<T> {
        self.seen.borrow().value.clone()
    }

    /// Follows the row as this process sees it.
    pub(crate) fn watch(&self) -> watch::Receiver<Seen<T>> {
        self.seen.subscribe()
    }

    /// Reads the row.
    pub(crate) async fn load(&self, store: &dyn GuardRows) -> Result<Arc<T>, Error> {
        let guard = repeated(|| store.guard(&self.name)).await?;
        Ok(self.see(&guard))
    }

    /// Reads the row, changes it by `change`, and writes it if that made a difference. Starts again if
    /// another process wrote meanwhile. Durable when it returns.
    pub(crate) async fn update<R>(
        &self,
        store: &dyn GuardRows,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<R, Error> {
        let _turn = self.turn.lock().await;
        let mut stands = repeated(|| store.guard(&self.name)).await?;
        for _ in 0..MOST_TRIES {
            let old = self.see(&stands);
            let mut new = T::clone(&old);
            let result = change(&mut new);
            if new == *old {
                return Ok(result);
            }
            let row = Row {
                value: &new,
                nonce: fastrand::u64(..),
            };
            let value = serde_json::to_vec(&row).expect("names and numbers always serialise");
            let write = || store.set_guard(&self.name, stands.version, value.clone());
            match repeated(write).await? {
                Guarded::Set(version) => {
                    self.publish(version, new);
                    return Ok(result);
                }
                Guarded::Superseded(now) => stands = now,
            }
        }
        Err(Error::Unwritable(
            "other processes write the same row all the time".to_owned(),
        ))
    }

    fn see(&self, guard: &Guard) -> Arc<T> {
        let seen = self.seen.borrow().clone();
        if guard.version == seen.version {
            return seen.value;
        }
        let value = match read(guard) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(row = %self.name, %error, "a row of the store cannot be read; it starts over");
                T::default()
            }
        };
        self.publish(guard.version, value)
    }

    /// Remembers it, unless a newer one was seen.
    fn publish(&self, version: u64, value: T) -> Arc<T> {
        let value = Arc::new(value);
        self.seen.send_if_modified(|seen| {
            let newer = version > seen.version;
            if newer {
                *seen = Seen {
                    version,
                    value: value.clone(),
                };
            }
            newer
        });
        value
    }
}

/// A moment that every process on the store understands, across restarts. The default is infinitely
/// long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SharedMoment(Option<Stamp>);

impl SharedMoment {
    /// Now, by the clock of the store that the moment is kept in.
    pub(crate) fn now(clock: &(impl StoreClock + ?Sized)) -> SharedMoment {
        SharedMoment::at(clock.stamp())
    }

    /// The moment of this stamp.
    pub(crate) fn at(stamp: Stamp) -> SharedMoment {
        SharedMoment(Some(stamp))
    }

    /// How long after `earlier` this moment is. If `earlier` is of another boot, the wall clock alone
    /// tells; if it seems to be in the future then, that clock was set back, and `earlier` counts as
    /// infinitely long ago. So it does within a boot if it seems to be far in the future: then the clock of
    /// a server counts, and another one has taken over.
    pub(crate) fn since(&self, earlier: &SharedMoment) -> Duration {
        let (Some(now), Some(then)) = (self.0, earlier.0) else {
            return Duration::MAX;
        };
        let is_set_back = match then.boot == now.boot {
            true => then.since_boot.saturating_sub(now.since_boot) > CLOCKS_DIFFER,
            false => then.wall > now.wall,
        };
        match is_set_back {
            true => Duration::MAX,
            false => then.age(now),
        }
    }

    /// One of a boot, for tests.
    #[cfg(test)]
    pub(crate) fn of_boot(boot: u64, seconds: i64) -> SharedMoment {
        SharedMoment(Some(Stamp {
            boot: Boot(boot),
            since_boot: seconds * 1000,
            wall: Timestamp::from_millis(seconds * 1000),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::contract::{open_in, pseudonyms, run};

    #[test]
    fn moments_of_one_boot_ignore_the_wall_clock() {
        let earlier = SharedMoment::of_boot(1, 100);
        let mut later = Clock::real().stamp();
        (later.boot, later.since_boot) = (Boot(1), 103_000);
        later.wall = Timestamp::from_millis(-1);
        let set_back = SharedMoment(Some(later));
        assert_eq!(set_back.since(&earlier), Duration::from_secs(3));
        assert_eq!(earlier.since(&set_back), Duration::ZERO);
        later.boot = Boot(2);
        let of_another = SharedMoment(Some(later));
        assert_eq!(of_another.since(&earlier), Duration::MAX);
    }

    #[test]
    fn a_moment_far_in_the_future_is_of_a_clock_that_was_set_back() {
        let now = SharedMoment::of_boot(0, 1_000);
        let differs = SharedMoment::of_boot(0, 1_002);
        assert_eq!(now.since(&differs), Duration::ZERO);
        let set_back = SharedMoment::of_boot(0, 4_600);
        assert_eq!(now.since(&set_back), Duration::MAX);
    }

    /// What processes count together.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Count {
        of: u32,
    }

    #[tokio::test]
    async fn of_two_that_write_the_same_at_once_each_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_in(folder.path(), pseudonyms(), run(), Clock::real());
        let processes: Vec<_> = (0..4).map(|_| Shared::<Count>::new("count")).collect();
        for round in 0..50_u32 {
            let counts = processes.iter().map(|process| {
                process.update(&*store, |count| {
                    count.of += 1;
                    count.of
                })
            });
            let counted = futures_util::future::try_join_all(counts).await.unwrap();
            let all: BTreeSet<_> = counted.into_iter().collect();
            assert_eq!(all, BTreeSet::from_iter(round * 4 + 1..=round * 4 + 4));
        }
    }

    #[test]
    fn a_row_without_a_nonce_is_read_and_a_nonce_disturbs_no_reader() {
        let row = |value: &str| Guard {
            version: 1,
            value: value.into(),
        };
        assert_eq!(read::<Count>(&row(r#"{"of":3}"#)).unwrap().of, 3);
        let new = r#"{"of":3,"nonce":18446744073709551615}"#;
        assert_eq!(read::<Count>(&row(new)).unwrap().of, 3);
        assert_eq!(serde_json::from_str::<Count>(new).unwrap().of, 3);
    }

    #[test]
    fn the_default_moment_is_long_over() {
        let now = SharedMoment::at(Clock::real().stamp());
        assert_eq!(now.since(&SharedMoment::default()), Duration::MAX);
    }
}
