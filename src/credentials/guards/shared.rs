//! A small state that all processes on one store share: a row of the store, which is read, changed and
//! written by compare-and-swap, and what this process last saw of it. Does not know what the state means.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use crate::clock::Stamp;
#[cfg(test)]
use crate::clock::{Boot, Clock, Timestamp};
use crate::store::{Error, Guard, GuardRows, Guarded, StoreClock};

/// How often one change is tried before it is given up; whenever a try is lost, another process has made
/// a change.
const MOST_TRIES: u32 = 100;

/// A row of the store that holds a `T` as JSON. What cannot be read counts as the default.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    name: String,
    seen: watch::Sender<Seen<T>>,
    /// Held for one change: two changes of the same process at once would only overwrite each other.
    turn: Mutex<()>,
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
        let guard = store.guard(&self.name).await?;
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
        let mut stands = store.guard(&self.name).await?;
        for _ in 0..MOST_TRIES {
            let old = self.see(&stands);
            let mut new = T::clone(&old);
            let result = change(&mut new);
            if new == *old {
                return Ok(result);
            }
            let value = serde_json::to_vec(&new).expect("names and numbers always serialise");
            match store.set_guard(&self.name, stands.version, value).await? {
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
        let value = match serde_json::from_slice(&guard.value) {
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
    /// infinitely long ago.
    pub(crate) fn since(&self, earlier: &SharedMoment) -> Duration {
        match (self.0, earlier.0) {
            (Some(now), Some(then)) if then.boot == now.boot || then.wall <= now.wall => {
                then.age(now)
            }
            _ => Duration::MAX,
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
    use super::*;

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
    fn the_default_moment_is_long_over() {
        let now = SharedMoment::at(Clock::real().stamp());
        assert_eq!(now.since(&SharedMoment::default()), Duration::MAX);
    }
}
