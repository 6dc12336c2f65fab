//! Whom callers named on which day, until the store knows it. A look-up that finds credentials compares two
//! numbers; only the first one of a user on a day does more. It is noted before anything may fail, and is not
//! lost if credentials are dropped from memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::Vault;
use super::credentials::Credentials;
use crate::principal::Principal;
use crate::store::{self, Day};

/// Users that were named, and that the store does not know of yet.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// By the store's clock, as of a moment ago.
    today: AtomicI32,
    /// Each with the day on which it was named last.
    users: Mutex<HashMap<Principal, Day>>,
    /// Whether there were more than find room here.
    overflowed: AtomicBool,
}

/// Users that are kept at most. So many wait only while the store is away.
const MOST: usize = 1_000_000;
/// Users that are written in one call.
const AT_ONCE: usize = 500;

impl Named {
    /// It is `today` from now on.
    pub(crate) fn begin(&self, Day(today): Day) {
        self.today.store(today, Ordering::Relaxed);
    }

    /// A caller names the principal of `found`.
    #[inline]
    pub(super) fn note_found(&self, found: &Credentials) {
        let today = self.today.load(Ordering::Relaxed);
        if found.named_on.load(Ordering::Relaxed) != today {
            found.named_on.store(today, Ordering::Relaxed);
            self.note(&found.principal);
        }
    }

    /// A caller names `principal`.
    #[cold]
    pub(super) fn note(&self, principal: &Principal) {
        if !principal.is_user() {
            return;
        }
        let today = Day(self.today.load(Ordering::Relaxed));
        let mut users = self.users();
        if users.len() >= MOST && !users.contains_key(principal) {
            self.overflowed.store(true, Ordering::Relaxed);
            return;
        }
        users.insert(principal.clone(), today);
    }

    /// As if there were too many.
    #[cfg(test)]
    pub(crate) fn overflow(&self) {
        self.overflowed.store(true, Ordering::Relaxed);
    }

    /// Some of those that the store does not know of.
    fn some(&self) -> Vec<(Principal, Day)> {
        let users = self.users();
        let some = users.iter().take(AT_ONCE);
        some.map(|(user, day)| (user.clone(), *day)).collect()
    }

    /// The store knows of these, unless they were named on another day meanwhile.
    fn are_written(&self, written: &[(Principal, Day)]) {
        let mut users = self.users();
        for (user, day) in written {
            if users.get(user) == Some(day) {
                users.remove(user);
            }
        }
        if users.is_empty() {
            users.shrink_to_fit();
        }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Principal, Day>> {
        self.users.lock().expect("no code panics under this lock")
    }
}

impl Vault {
    /// `principal` counts as named: it got a pair that no refresh brought, or its pair is wanted.
    pub(crate) fn note_named(&self, principal: &Principal) {
        self.cache.named.note(principal);
    }

    /// The day that it is by the store's clock. What is named from now on is named on it.
    pub(crate) fn begin_day(&self) -> Day {
        let today = Day::of(self.wall());
        self.cache.named.begin(today);
        today
    }

    /// Lets the store know who was named. If it cannot be told, they are kept for the next time.
    pub(crate) async fn write_named(&self) -> Result<(), store::Error> {
        let named = &self.cache.named;
        loop {
            let some = named.some();
            if some.is_empty() {
                return Ok(());
            }
            self.store.mark_used(some.clone()).await?;
            named.are_written(&some);
        }
    }

    /// How many the store does not know of yet.
    pub(crate) fn named_unwritten(&self) -> usize {
        self.cache.named.users().len()
    }

    /// Whether users were named of whom nothing is kept.
    pub(crate) fn has_lost_names(&self) -> bool {
        self.cache.named.overflowed.load(Ordering::Relaxed)
    }

    /// The counting has begun anew since.
    pub(crate) fn lost_names_are_counted(&self) {
        self.cache.named.overflowed.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{account, credentials_of, user};

    #[test]
    fn a_user_is_noted_once_a_day_and_until_the_store_knows_that_day() {
        let named = Named::default();
        let found = credentials_of(user(1), 1);
        for day in [7, 8] {
            named.begin(Day(day));
            for _ in 0..2 {
                named.note_found(&found);
                named.note_found(&credentials_of(account(), 1));
            }
            let some = named.some();
            assert_eq!(some, [(user(1), Day(day))]);
            if day == 7 {
                named.are_written(&some);
                named.note_found(&found);
                assert_eq!(named.some(), [], "it is known");
            }
        }
        // It was written as of the day before.
        named.are_written(&[(user(1), Day(7))]);
        assert_eq!(named.some(), [(user(1), Day(8))]);
    }
}
