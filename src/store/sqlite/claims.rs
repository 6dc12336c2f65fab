//! The statements on claims: which due pairs a keeper was given, so that no process on the store is given them
//! again for a while. They lie in `leases.db`: what is lost with that file is looked at once more, and still
//! renewed by one process only.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::boot_clock::BootClock;
use super::transaction::Transaction;
use crate::principal::Principal;

/// A process of an earlier version knows nothing of it, and may go on beside this one.
pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS claims (
         principal TEXT PRIMARY KEY,
         boot TEXT NOT NULL,
         until INTEGER NOT NULL -- milliseconds of CLOCK_BOOTTIME
     ) STRICT, WITHOUT ROWID";

/// Whose pairs are claimed now.
pub(super) fn standing(db: &Connection, clock: &BootClock) -> rusqlite::Result<HashSet<Principal>> {
    let mut statement =
        db.prepare_cached("SELECT principal FROM claims WHERE boot = ?1 AND until > ?2")?;
    let claims = statement.query_map(params![clock.boot, clock.now()], |row| row.get(0))?;
    claims.collect()
}

/// Claims those of `due` that nobody has claimed, and returns them.
pub(super) fn claim(
    db: &Connection,
    clock: &BootClock,
    due: &[Principal],
    hold: Duration,
) -> rusqlite::Result<Vec<Principal>> {
    let transaction = Transaction::writing(db)?;
    db.prepare_cached("DELETE FROM claims WHERE boot <> ?1 OR until <= ?2")?
        .execute(params![clock.boot, clock.now()])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO claims (principal, boot, until) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    let (mut claimed, until) = (Vec::new(), clock.after(hold));
    for principal in due {
        if insert.execute(params![principal, clock.boot, until])? == 1 {
            claimed.push(principal.clone());
        }
    }
    drop(insert);
    transaction.commit()?;
    Ok(claimed)
}
