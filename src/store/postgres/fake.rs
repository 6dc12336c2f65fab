//! A server in memory, for tests of what stands between the store and its server.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::database::Database;
use crate::principal::Principal;
use crate::store::{
    Commit, Day, Entry, Error, Lease, LeaseId, Note, Notes, Record, Restored, Version,
};

/// What happens to writes. Reads and leases work, except if it is [`Writes::Nothing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// They are done and acknowledged.
    Work,
    /// They wait for the next change of this, and are done then.
    Wait,
    /// They are done, and the answers are lost.
    LoseAnswers,
    /// They fail, and nothing is done.
    Fail,
    /// Commits and restores are not taken, whatever is tried; all else is done.
    Refuse,
    /// The server is away: reads and leases fail as well.
    Nothing,
}

pub(super) struct Fake {
    entries: Mutex<HashMap<Principal, Entry>>,
    writes: watch::Sender<Writes>,
    /// How many commits were asked for.
    commits: watch::Sender<u64>,
}

impl Fake {
    pub(super) fn new(writes: Writes) -> Fake {
        Fake {
            entries: Mutex::default(),
            writes: watch::channel(writes).0,
            commits: watch::channel(0).0,
        }
    }

    pub(super) fn set(&self, writes: Writes) {
        self.writes.send_replace(writes);
    }

    /// What stands there, whatever the state is.
    pub(super) fn stands(&self, principal: &Principal) -> Entry {
        let entries = self.entries.lock().unwrap();
        entries.get(principal).cloned().unwrap_or_default()
    }

    /// All that stands there.
    pub(super) fn all(&self) -> HashMap<Principal, Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// Another server takes its place, which has only this.
    pub(super) fn go_back_to(&self, entries: HashMap<Principal, Entry>) {
        *self.entries.lock().unwrap() = entries;
    }

    /// Changes an entry as another process would.
    pub(super) fn put(&self, principal: &Principal, entry: Entry) {
        let mut entries = self.entries.lock().unwrap();
        entries.insert(principal.clone(), entry);
    }

    /// Waits until this number of commits was asked for.
    pub(super) async fn commits(&self, at_least: u64) {
        let mut commits = self.commits.subscribe();
        commits.wait_for(|seen| *seen >= at_least).await.unwrap();
    }

    fn away() -> Error {
        Error::Away("the server is away".to_owned())
    }

    fn reached(&self) -> Result<(), Error> {
        match *self.writes.borrow() {
            Writes::Nothing => Err(Fake::away()),
            _ => Ok(()),
        }
    }

    fn takes(&self) -> Result<(), Error> {
        match *self.writes.borrow() {
            Writes::Refuse => Err(Error::Refused("a rule of its administrator's".to_owned())),
            _ => Ok(()),
        }
    }

    async fn write<T>(
        &self,
        work: impl FnOnce(&mut HashMap<Principal, Entry>) -> T,
    ) -> Result<T, Error> {
        let mut writes = self.writes.subscribe();
        let writes = *writes
            .wait_for(|writes| *writes != Writes::Wait)
            .await
            .unwrap();
        if matches!(writes, Writes::Fail | Writes::Nothing) {
            return Err(Fake::away());
        }
        let done = work(&mut self.entries.lock().unwrap());
        match writes {
            Writes::LoseAnswers => Err(Fake::away()),
            _ => Ok(done),
        }
    }
}

#[async_trait]
impl Database for Fake {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        self.reached()?;
        Ok(self.stands(principal))
    }

    async fn lease(
        &self,
        principal: &Principal,
        _id: LeaseId,
        _ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        self.reached()?;
        let granted = Lease::Granted { orphaned: false };
        Ok((granted, Ok(self.stands(principal))))
    }

    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        _lease: Option<LeaseId>,
    ) -> Result<Commit, Error> {
        self.commits.send_modify(|commits| *commits += 1);
        self.takes()?;
        self.write(|entries| {
            let stands = entries.entry(principal.clone()).or_default();
            let next = over.generation.next();
            if stands.epoch == over.epoch
                && stands.generation == next
                && stands.record.as_ref() == Some(&record)
            {
                return Commit::Committed(next);
            }
            if stands.version() != over {
                return Commit::Superseded(stands.clone());
            }
            *stands = Entry {
                generation: next,
                record: Some(record),
                notes: Notes {
                    displaced: stands.notes.displaced,
                    contested_until: stands.notes.contested_until,
                    suppressed_until: stands.notes.suppressed_until,
                    ..Notes::default()
                },
                ..*stands
            };
            Commit::Committed(next)
        })
        .await
    }

    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        self.write(|entries| {
            let notes = &mut entries.entry(principal.clone()).or_default().notes;
            match note {
                Note::RefreshDead(generation) => notes.refresh_dead = Some(generation),
                Note::Displaced(at) => notes.displaced = Some(at),
                other => panic!("no test needs {other:?}"),
            }
        })
        .await
    }

    async fn forget(
        &self,
        principal: &Principal,
        _unused_since: Option<Day>,
    ) -> Result<Option<Version>, Error> {
        self.write(|entries| {
            let stands = entries.get_mut(principal)?;
            stands.record.take()?;
            stands.epoch += 1;
            stands.notes = Notes::default();
            Some(stands.version())
        })
        .await
    }

    async fn restore(&self, all: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error> {
        self.takes()?;
        self.write(|entries| {
            let one = |(principal, entry): (Principal, Entry)| {
                let stands = entries.entry(principal).or_default();
                if !entry.outranks(stands) {
                    return Restored::Kept;
                }
                let generation = match stands.generation < entry.generation {
                    true => entry.generation,
                    false => stands.generation.next(),
                };
                *stands = Entry {
                    generation,
                    ..entry
                };
                Restored::Written
            };
            all.into_iter().map(one).collect()
        })
        .await
    }

    async fn standing(&self, of: &[Principal]) -> Result<Vec<(Principal, Entry)>, Error> {
        self.reached()?;
        let entries = self.entries.lock().unwrap();
        let known = of
            .iter()
            .filter_map(|principal| entries.get_key_value(principal));
        Ok(known
            .map(|(principal, entry)| (principal.clone(), entry.clone()))
            .collect())
    }
}
