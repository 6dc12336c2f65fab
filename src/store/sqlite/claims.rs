//! Which pairs the keeper was given to renew, so that nobody is given them again for a while. Known to this
//! process alone: others on the same files find the lease taken, or the pair renewed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::entries;
use crate::clock::Timestamp;
use crate::principal::Principal;

/// The claims that this process gave out.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Until when each holds. Those that are over are dropped whenever new ones are given out.
    until: Mutex<HashMap<Principal, Instant>>,
}

impl Claims {
    /// Up to `limit` pairs received before `before` that nobody claimed within its hold.
    pub(super) fn take(
        &self,
        db: &Connection,
        before: Timestamp,
        limit: usize,
        hold: Duration,
    ) -> rusqlite::Result<Vec<Principal>> {
        let now = Instant::now();
        let mut claimed = self.until.lock().expect("no code panics under this lock");
        claimed.retain(|_, until| *until > now);
        let due = entries::due(db, before, limit, |one| !claimed.contains_key(one))?;
        claimed.extend(due.iter().map(|one| (one.clone(), now + hold)));
        Ok(due)
    }
}
