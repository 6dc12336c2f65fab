//! The statements on leases: which run holds which principal, on which boot of the machine, until when. Which
//! taking of a lease it is stands in the memory of its run alone: no other run asks.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::boot_clock::BootClock;
use super::connections::connect;
use super::owners::{Life, Owners};
use super::private_copy::{self, PrivateCopy};
use crate::principal::Principal;
use crate::store::{LeaseHolder, RunId};

pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS leases (
         principal TEXT PRIMARY KEY,
         owner TEXT NOT NULL,
         boot TEXT NOT NULL,
         until INTEGER NOT NULL -- milliseconds of CLOCK_BOOTTIME
     ) STRICT, WITHOUT ROWID";

/// A lease as all runs see it.
#[derive(Debug)]
pub(super) struct LeaseRow {
    pub(super) owner: String,
    pub(super) boot: String,
    pub(super) until: i64,
}

/// The row of a lease, if there is one.
pub(super) fn load(db: &Connection, principal: &Principal) -> rusqlite::Result<Option<LeaseRow>> {
    db.prepare_cached("SELECT owner, boot, until FROM leases WHERE principal = ?1")?
        .query_row([principal], |row| {
            Ok(LeaseRow {
                owner: row.get(0)?,
                boot: row.get(1)?,
                until: row.get(2)?,
            })
        })
        .optional()
}

/// Writes the row of a lease of which there is none, as of nearly every one; false if there is one.
pub(super) fn insert(
    db: &Connection,
    principal: &Principal,
    lease: &LeaseRow,
) -> rusqlite::Result<bool> {
    let LeaseRow { owner, boot, until } = lease;
    let rows = db
        .prepare_cached(
            "INSERT INTO leases (principal, owner, boot, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![principal, owner, boot, until])?;
    Ok(rows == 1)
}

/// Puts a lease in the place of the one that stands.
pub(super) fn replace(
    db: &Connection,
    principal: &Principal,
    lease: &LeaseRow,
) -> rusqlite::Result<()> {
    let LeaseRow { owner, boot, until } = lease;
    db.prepare_cached("UPDATE leases SET owner = ?2, boot = ?3, until = ?4 WHERE principal = ?1")?
        .execute(params![principal, owner, boot, until])?;
    Ok(())
}

/// Writes a lease of this boot down again in a new file. Two runs may remember one of the same principal: the
/// one that ends later is the one that holds.
pub(super) fn write_down_again(
    db: &Connection,
    principal: &Principal,
    lease: &LeaseRow,
) -> rusqlite::Result<()> {
    let LeaseRow { owner, boot, until } = lease;
    db.prepare_cached(
        "INSERT INTO leases (principal, owner, boot, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET owner = excluded.owner, until = excluded.until
         WHERE excluded.until > until",
    )?
    .execute(params![principal, owner, boot, until])?;
    Ok(())
}

/// Ends leases of `owner`: nobody has to clear up behind it.
pub(super) fn delete(
    db: &Connection,
    principals: &[Principal],
    owner: &str,
) -> rusqlite::Result<()> {
    let mut statement =
        db.prepare_cached("DELETE FROM leases WHERE principal = ?1 AND owner = ?2")?;
    for principal in principals {
        statement.execute(params![principal, owner])?;
    }
    Ok(())
}

/// Ends the leases that `owner` did not give back: the next run that takes one is told that it is orphaned.
pub(super) fn orphan(db: &Connection, owner: &str) -> rusqlite::Result<()> {
    db.execute("UPDATE leases SET until = 0 WHERE owner = ?1", [owner])?;
    Ok(())
}

/// Who holds the lease on `principal` now.
pub(super) fn holder(
    db: &Connection,
    principal: &Principal,
    clock: &BootClock,
    owners: &Owners,
) -> rusqlite::Result<Option<LeaseHolder>> {
    let Some(row) = load(db, principal)? else {
        return Ok(None);
    };
    let left = clock.left(&row.boot, row.until);
    let holds = !left.is_zero() && owners.life(&row.owner) != Life::Dead;
    let run = row.owner.parse().map(RunId).ok();
    Ok(run.filter(|_| holds).map(|run| LeaseHolder {
        run,
        since: None,
        left,
    }))
}

/// The same of a store that is only looked at: nothing is changed in its folder.
pub(super) fn holder_in(
    directory: &Path,
    principal: &Principal,
) -> io::Result<Option<LeaseHolder>> {
    // The leases of the dead are void.
    if !Owners::any_alive(directory) {
        return Ok(None);
    }
    // A reader beside a writer would change the index of its log.
    let copy = PrivateCopy::of(directory, private_copy::LEASES)?;
    let db = connect(&copy.path.join("leases.db"), "OFF").map_err(io::Error::other)?;
    let clock = BootClock::of_this_boot()?;
    holder(&db, principal, &clock, &Owners::beside(directory)).map_err(io::Error::other)
}
