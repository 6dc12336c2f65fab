//! Leases, in a database of their own without a single fsync: a power cut ends all leases anyway.
//! A lease holds while its owner lives, on the boot that it was given on, until its ttl ends.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use tokio::time::Instant;

use super::boot_clock::BootClock;
use super::claims;
use super::connections::BUSY_TIMEOUT;
use super::errors::is_damage;
use super::health::Health;
use super::lease_file::LeaseFile;
use super::lease_rows::{self, LeaseRow};
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
    /// By which leases end.
    clock: BootClock,
    /// The leases that this run has not given back yet, as far as it knows: what is written down again if the
    /// file is lost. Which taking of a lease it is stands here alone: no other run asks.
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

impl Leases {
    /// Declares `run` alive and opens the leases. Callers hold the store's opening lock.
    pub(super) fn open(
        directory: &Path,
        run: RunId,
        health: Arc<Health>,
    ) -> io::Result<(Leases, Alive)> {
        let owners = Owners::open(directory)?;
        let clock = BootClock::of_this_boot()?;
        let (file, is_new) = LeaseFile::open(directory)?;
        let others = Owners::any_alive(directory);
        let incomplete_until = (others && is_new).then(|| Instant::now() + COMPLETE_IN);
        for dead in owners.dead() {
            lease_rows::orphan(file.db(), &dead).map_err(io::Error::other)?;
        }
        let alive = owners.enter(run)?;
        let leases = Leases {
            file,
            looked: Instant::now(),
            unopened: Episode::new(),
            health,
            owners,
            owner: run.to_string(),
            clock,
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
                && leases.insert(one)?
            {
                return Ok(vec![Lease::Granted { orphaned: false }]);
            }
            let transaction = Transaction::writing(leases.file.db())?;
            lease_rows::delete(leases.file.db(), &given_back, &leases.owner)?;
            let leased = wanted
                .iter()
                .map(|wanted| leases.take(wanted))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
            Ok(leased)
        });
        let leased = leased?;
        for (wanted, lease) in wanted.iter().zip(&leased) {
            self.remember(wanted, *lease);
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
                return lease_rows::delete(leases.file.db(), &given_back, &leases.owner);
            }
            let transaction = Transaction::writing(leases.file.db())?;
            lease_rows::delete(leases.file.db(), &given_back, &leases.owner)?;
            transaction.commit()
        })
    }

    /// Who holds the lease on `principal` now.
    pub(super) fn holder(&mut self, principal: &Principal) -> io::Result<Option<LeaseHolder>> {
        self.healed(|leases| {
            lease_rows::holder(leases.file.db(), principal, &leases.clock, &leases.owners)
        })
    }

    /// Whose due pairs are claimed now, by any run.
    pub(super) fn claimed(&mut self) -> io::Result<HashSet<Principal>> {
        self.healed(|leases| claims::standing(leases.file.db(), &leases.clock))
    }

    /// Claims those of `due` that no run has claimed, and returns them.
    pub(super) fn claim(
        &mut self,
        due: &[Principal],
        hold: Duration,
    ) -> io::Result<Vec<Principal>> {
        self.healed(|leases| claims::claim(leases.file.db(), &leases.clock, due, hold))
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
        let nobody = params!["", self.owner, self.clock.boot, 0];
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

    /// Keeps in mind what became of a lease that was wanted.
    fn remember(&mut self, wanted: &Wanted, lease: Lease) {
        let held = HeldLease {
            id: wanted.id,
            until: self.clock.after(wanted.ttl),
        };
        match (lease, self.held.get_mut(&wanted.principal)) {
            (Lease::Granted { .. }, Some(stands)) => *stands = held,
            (Lease::Granted { .. }, None) => {
                self.held.insert(wanted.principal.clone(), held);
            }
            // It ran out while nobody here could extend it, and another run has taken it since.
            (Lease::Held { .. }, Some(lost))
                if wanted.wish == Wish::Extend && lost.id == wanted.id =>
            {
                self.held.remove(&wanted.principal);
            }
            (Lease::Held { .. }, _) => {}
        }
    }

    fn take(&self, wanted: &Wanted) -> rusqlite::Result<Lease> {
        let held = self.held.get(&wanted.principal);
        let is_known = held.is_some_and(|held| held.until > self.clock.now());
        if !is_known && !self.is_complete() {
            return Ok(Lease::Held { left: AGAIN });
        }
        let is_same = held.is_some_and(|held| held.id == wanted.id);
        match wanted.wish {
            Wish::Extend if !is_same => Ok(Lease::Held { left: AGAIN }),
            Wish::Take if self.insert(wanted)? => Ok(Lease::Granted { orphaned: false }),
            Wish::Take | Wish::Extend => self.judge(wanted, is_same),
        }
    }

    /// Takes a lease of which there is no row; false if there is one.
    fn insert(&self, wanted: &Wanted) -> rusqlite::Result<bool> {
        let row = self.row(self.clock.after(wanted.ttl));
        lease_rows::insert(self.file.db(), &wanted.principal, &row)
    }

    /// A row of this run.
    fn row(&self, until: i64) -> LeaseRow {
        LeaseRow {
            owner: self.owner.clone(),
            boot: self.clock.boot.clone(),
            until,
        }
    }

    /// Decides about a lease that had a row a moment ago: extends it if it is this run's under the same id, and
    /// takes one that holds no longer.
    fn judge(&self, wanted: &Wanted, is_same: bool) -> rusqlite::Result<Lease> {
        let orphaned = match lease_rows::load(self.file.db(), &wanted.principal)? {
            Some(row) if row.owner == self.owner && is_same => false,
            Some(row) if wanted.wish == Wish::Take && !self.holds(&row) => true,
            // Also if another run took it, and may have given it back.
            Some(_) | None => return Ok(Lease::Held { left: AGAIN }),
        };
        let row = self.row(self.clock.after(wanted.ttl));
        lease_rows::replace(self.file.db(), &wanted.principal, &row)?;
        Ok(Lease::Granted { orphaned })
    }

    /// Whether a lease still holds: its ttl is not over, and its run may be alive.
    fn holds(&self, row: &LeaseRow) -> bool {
        !self.clock.left(&row.boot, row.until).is_zero()
            && (row.owner == self.owner || self.owners.life(&row.owner) != Life::Dead)
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
            lease_rows::write_down_again(self.file.db(), principal, &self.row(held.until))
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // What is left was not given back: the next run that takes such a lease is told that a refresh
        // may have been under way.
        if self.file.is_in_place()
            && let Err(error) = lease_rows::orphan(self.file.db(), &self.owner)
        {
            tracing::debug!(%error, "leases end with their ttl");
        }
    }
}
