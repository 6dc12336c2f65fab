//! Leases, in a database of their own without a single fsync: a power cut ends all leases anyway.
//! A lease holds while its owner lives, on the boot that it was given on, until its ttl ends.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use rustix::time::ClockId;
use tokio::time::Instant;

use super::connections::BUSY_TIMEOUT;
use super::errors::is_damage;
use super::health::Health;
use super::lease_file::LeaseFile;
use super::owners::{Alive, Life, Owners};
use super::transaction::Transaction;
use crate::principal::Principal;
use crate::store::{Lease, LeaseHolder, LeaseId, RunId};
use crate::telemetry::episode::Episode;

/// How often a process that holds leases looks whether it still has the right file open.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A lease of another run is not worth asking for again earlier: its owner may die at any moment, which
/// frees it at once.
const AGAIN: Duration = Duration::from_millis(50);
/// For this long after the file was made anew no lease is given out: every process that holds some
/// has written them down by then.
const COMPLETE_IN: Duration = Duration::from_secs(1);

/// The leases of one process run, and its view of those of others. Its thread is the only one that uses
/// it ([`super::lease_thread`]). The states of a lease are drawn at [`Lease`].
#[derive(Debug)]
pub(super) struct Leases {
    /// The file that the rows are in.
    file: LeaseFile,
    /// When the file was last compared with the one that has its name now. Every use of the file
    /// compares them; [`Leases::look`] does only if none has for [`LOOK_EVERY`].
    looked: Instant,
    /// Lasts while the file cannot be opened again, so that this is logged once.
    unopened: Episode,
    /// Of the store that the leases are for: no lease file is made in a folder that only has its name.
    health: Arc<Health>,
    /// The lock files that say which runs live.
    owners: Owners,
    /// This process run, as it stands in the rows.
    owner: String,
    /// This boot: CLOCK_BOOTTIME of another one means nothing.
    boot: String,
    /// The leases that this run has not given back yet: what is written down again if the file is lost.
    /// Which taking of a lease it is stands here alone: no other run asks.
    held: HashMap<Principal, HeldLease>,
    /// Until when leases of other runs may be missing from the file, because it is new and they have not
    /// written theirs down again; `None` if it was complete from the start.
    incomplete_until: Option<Instant>,
}

/// A lease of this run.
#[derive(Clone, Copy, Debug)]
struct HeldLease {
    id: LeaseId,
    /// When it ends: milliseconds of CLOCK_BOOTTIME.
    until: i64,
}

/// What is done with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is taken, or extended if it is held under this id.
    Take,
    /// It is extended; [`Lease::Held`] if it is not held under this id any more.
    Extend,
}

/// A lease that somebody wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) principal: Principal,
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    pub(super) wish: Wish,
}

/// A row of another, or an earlier, lease.
struct LeaseRow {
    owner: String,
    boot: String,
    until: i64,
}

impl Leases {
    /// Declares `run` alive and opens the leases. Callers hold the store's opening lock.
    pub(super) fn open(
        directory: &Path,
        run: RunId,
        health: Arc<Health>,
    ) -> io::Result<(Leases, Alive)> {
        let owners = Owners::open(directory)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let (file, is_new) = LeaseFile::open(directory)?;
        let others = Owners::any_alive(directory);
        let incomplete_until = (others && is_new).then(|| Instant::now() + COMPLETE_IN);
        let mut void = file
            .db()
            .prepare("UPDATE leases SET until = 0 WHERE owner = ?1")
            .map_err(io::Error::other)?;
        for dead in owners.dead() {
            void.execute([dead]).map_err(io::Error::other)?;
        }
        drop(void);
        let alive = owners.enter(run)?;
        let leases = Leases {
            file,
            looked: Instant::now(),
            unopened: Episode::new(),
            health,
            owners,
            owner: run.to_string(),
            boot: boot.trim().to_owned(),
            held: HashMap::new(),
            incomplete_until,
        };
        Ok((leases, alive))
    }

    /// Whether this run holds any.
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives back those of `given_back` that this run holds, then takes or extends each of `wanted`, in
    /// order; all in one transaction.
    pub(super) fn lease(
        &mut self,
        given_back: &[(Principal, LeaseId)],
        wanted: &[Wanted],
    ) -> io::Result<Vec<Lease>> {
        let given_back = self.no_longer_held(given_back);
        let leased = self.healed(|leases| {
            if let ([], [one]) = (&given_back[..], wanted)
                && one.wish == Wish::Take
                && leases.is_complete()
                // One statement is a transaction by itself.
                && leases.insert(&one.principal, until(one.ttl))?
            {
                return Ok(vec![Lease::Granted { orphaned: false }]);
            }
            let transaction = Transaction::writing(leases.file.db())?;
            leases.delete(&given_back)?;
            let leased = wanted
                .iter()
                .map(|wanted| leases.take(wanted))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
            Ok(leased)
        });
        let leased = leased?;
        for (wanted, lease) in wanted.iter().zip(&leased) {
            if let Lease::Granted { .. } = lease {
                let held = HeldLease {
                    id: wanted.id,
                    until: until(wanted.ttl),
                };
                match self.held.get_mut(&wanted.principal) {
                    Some(stands) => *stands = held,
                    None => drop(self.held.insert(wanted.principal.clone(), held)),
                }
            }
        }
        Ok(leased)
    }

    /// Gives back those of these leases that this run holds.
    pub(super) fn release(&mut self, given_back: &[(Principal, LeaseId)]) -> io::Result<()> {
        let given_back = self.no_longer_held(given_back);
        if given_back.is_empty() {
            return Ok(());
        }
        self.healed(|leases| {
            if given_back.len() == 1 {
                return leases.delete(&given_back);
            }
            let transaction = Transaction::writing(leases.file.db())?;
            leases.delete(&given_back)?;
            transaction.commit()
        })
    }

    /// Who holds the lease on `principal` now.
    pub(super) fn holder(&mut self, principal: &Principal) -> io::Result<Option<LeaseHolder>> {
        self.healed(|leases| {
            let Some(row) = leases.row(principal)? else {
                return Ok(None);
            };
            let left = row.until.saturating_sub(since_boot());
            let run = row.owner.parse().map(RunId).ok();
            let is_held = left > 0
                && row.boot == leases.boot
                && (row.owner == leases.owner || leases.owners.life(&row.owner) != Life::Dead);
            Ok(run.filter(|_| is_held).map(|run| LeaseHolder {
                run,
                since: None,
                left: Duration::from_millis(left.unsigned_abs()),
            }))
        })
    }

    /// Takes a lease on no principal and gives it back, to see whether that works. Does not wait for
    /// other processes.
    pub(super) fn probe(&mut self) -> io::Result<()> {
        self.healed(|leases| {
            leases.file.db().busy_timeout(Duration::ZERO)?;
            let tried = leases.try_write();
            leases.file.db().busy_timeout(BUSY_TIMEOUT)?;
            tried
        })
    }

    fn try_write(&self) -> rusqlite::Result<()> {
        let transaction = Transaction::writing(self.file.db())?;
        let nobody = params!["", self.owner, self.boot, 0];
        self.file.db().execute(
            "INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3, ?4)",
            nobody,
        )?;
        self.file
            .db()
            .execute("DELETE FROM leases WHERE principal = ''", [])?;
        transaction.commit()
    }

    /// To be called now and then while leases are held: writes them down again if the file was
    /// removed or replaced.
    pub(super) fn look(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        match self.healed(|_| Ok(())) {
            Ok(()) => {
                if let Some(over) = self.unopened.worked() {
                    let seconds = over.seconds();
                    tracing::warn!(seconds, "leases.db is open again");
                }
            }
            Err(error) if self.unopened.failed() => {
                tracing::warn!(%error, "leases.db cannot be opened again");
            }
            Err(_) => {}
        }
    }

    /// Drops those of `given_back` that are held under their ids, and returns whose they are. A release that
    /// comes late, when the lease was taken anew, changes nothing.
    fn no_longer_held(&mut self, given_back: &[(Principal, LeaseId)]) -> Vec<Principal> {
        let mut dropped = Vec::new();
        for (principal, id) in given_back {
            if self.held.get(principal).is_some_and(|held| held.id == *id) {
                self.held.remove(principal);
                dropped.push(principal.clone());
            }
        }
        dropped
    }

    fn is_complete(&self) -> bool {
        self.incomplete_until
            .is_none_or(|until| until <= Instant::now())
    }

    fn take(&self, wanted: &Wanted) -> rusqlite::Result<Lease> {
        let Wanted { principal, id, .. } = wanted;
        let held = self.held.get(principal);
        let may_be_missing = !self.is_complete() && held.is_none();
        let is_gone = wanted.wish == Wish::Extend && held.is_none_or(|held| held.id != *id);
        if may_be_missing || is_gone {
            return Ok(Lease::Held { left: AGAIN });
        }
        match wanted.wish == Wish::Take && self.insert(principal, until(wanted.ttl))? {
            true => Ok(Lease::Granted { orphaned: false }),
            false => self.judge(wanted),
        }
    }

    /// Takes a lease of which there is no row, as of nearly every one; false if there is one.
    fn insert(&self, principal: &Principal, until: i64) -> rusqlite::Result<bool> {
        let rows = self
            .file
            .db()
            .prepare_cached(
                "INSERT INTO leases (principal, owner, boot, until) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![principal, self.owner, self.boot, until])?;
        Ok(rows == 1)
    }

    fn delete(&self, given_back: &[Principal]) -> rusqlite::Result<()> {
        let mut statement = self
            .file
            .db()
            .prepare_cached("DELETE FROM leases WHERE principal = ?1 AND owner = ?2")?;
        for principal in given_back {
            statement.execute(params![principal, self.owner])?;
        }
        Ok(())
    }

    fn row(&self, principal: &Principal) -> rusqlite::Result<Option<LeaseRow>> {
        let mut statement = self
            .file
            .db()
            .prepare_cached("SELECT owner, boot, until FROM leases WHERE principal = ?1")?;
        let row = statement.query_row([principal], |row| {
            Ok(LeaseRow {
                owner: row.get(0)?,
                boot: row.get(1)?,
                until: row.get(2)?,
            })
        });
        row.optional()
    }

    /// Decides about a row that is there: takes it if its lease no longer holds, or is held under the same id.
    fn judge(&self, wanted: &Wanted) -> rusqlite::Result<Lease> {
        let Wanted { principal, id, .. } = wanted;
        let until = until(wanted.ttl);
        let Some(held) = self.row(principal)? else {
            // An extended one that another run took, and gave back.
            return Ok(Lease::Held { left: AGAIN });
        };
        let is_own = held.owner == self.owner;
        let is_same = is_own && self.held.get(principal).is_some_and(|held| held.id == *id);
        let orphaned = if is_same {
            false
        } else if wanted.wish == Wish::Extend {
            return Ok(Lease::Held { left: AGAIN });
        } else if held.boot != self.boot || held.until <= since_boot() {
            true
        } else if is_own {
            return Ok(Lease::Held { left: AGAIN });
        } else {
            match self.owners.life(&held.owner) {
                Life::Alive | Life::Unknown => return Ok(Lease::Held { left: AGAIN }),
                Life::Dead => true,
            }
        };
        self.file
            .db()
            .prepare_cached(
                "UPDATE leases SET owner = ?2, boot = ?3, until = ?4 WHERE principal = ?1",
            )?
            .execute(params![principal, self.owner, self.boot, until])?;
        Ok(Lease::Granted { orphaned })
    }

    /// Does `work`; opens the file again before that if it was damaged or replaced.
    fn healed<T>(&mut self, work: impl Fn(&mut Leases) -> rusqlite::Result<T>) -> io::Result<T> {
        self.looked = Instant::now();
        if !self.file.is_in_place() {
            self.reopen("it, or its log, was removed or replaced")?;
        }
        match work(self) {
            Err(error) if is_damage(&error) => {
                self.reopen(&error.to_string())?;
                work(self).map_err(io::Error::other)
            }
            done => done.map_err(io::Error::other),
        }
    }

    /// Opens the file that is there now, and writes down in it what this run holds.
    fn reopen(&mut self, why: &str) -> io::Result<()> {
        // Another folder may have this one's name now: nothing is made in it.
        self.health.in_place().map_err(io::Error::other)?;
        tracing::warn!(%why, "leases.db is being opened again");
        let _opening = self.file.reopen()?;
        self.incomplete_until = Some(Instant::now() + COMPLETE_IN);
        for (principal, held) in &self.held {
            self.insert(principal, held.until)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // What is left was not given back: the next run that takes such a lease is told that a refresh
        // may have been under way.
        let void = "UPDATE leases SET until = 0 WHERE owner = ?1";
        if self.file.is_in_place()
            && let Err(error) = self.file.db().execute(void, [&self.owner])
        {
            tracing::debug!(%error, "leases end with their ttl");
        }
    }
}

/// When a lease of `ttl` ends that is given now.
fn until(ttl: Duration) -> i64 {
    since_boot().saturating_add(ttl.as_millis().try_into().unwrap_or(i64::MAX))
}

/// Milliseconds since the machine booted, suspended ones too.
fn since_boot() -> i64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}
