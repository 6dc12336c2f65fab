//! A store that many processes on many machines share: PostgreSQL, 13 or newer. Plain SQL: no extension,
//! no LISTEN, and nothing that a session would have to remember, so that poolers in transaction mode work:
//! the one advisory lock ends with its transaction.
//!
//! ```text
//!  callers, on any runtime ──▶ committer ──▶ groups (batch) ──▶ transactions (statements) ──▶ link ──▶ server
//!                               │     │                                                         ▲
//!  pairs that the server has    │     │ what it has acknowledged lately,                        │
//!  not acknowledged             ▼     ▼ to be restored if it is lost                            │
//!                            outbox   reassertion             the feed, read every 400 ms ──────┘
//! ```

mod address;
mod batch;
mod budgets;
mod columns;
mod commits;
mod committer;
mod connection;
mod database;
mod dialer;
mod direct;
mod driver;
mod due;
mod entries;
mod errors;
#[cfg(test)]
mod fake;
mod feed;
mod guards;
mod leases;
mod link;
mod listings;
mod loads;
mod notes;
mod opening;
mod outbox;
mod pending;
mod pool;
mod presence;
mod process;
mod reassertion;
mod refusals;
mod restores;
mod schema;
mod server_checks;
mod server_time;
mod session;
mod settings;
mod sidecars;
mod socket;
mod statements;
mod strangers;
mod tls;
mod tombstones;
mod upkeep;
mod uses;
mod view;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use self::address::Url;
use self::batch::Queue;
use self::budgets::LoginBudgets;
use self::committer::{Beside, Committer};
use self::direct::Direct;
use self::driver::Driver;
use self::entries::Entries;
use self::feed::Feed;
use self::leases::{Answer, Asked, Leases};
use self::link::Link;
pub(super) use self::opening::{open, view};
use self::pending::Pending;
pub(super) use self::process::Process;
use self::reassertion::{Doubt, Reassertion};
pub(super) use self::refusals::Refusal;
pub use self::settings::{Password, Settings};
use self::upkeep::Upkeep;
use crate::clock::{Stamp, Timestamp};
use crate::principal::Principal;
use crate::store::{
    Budgets, Change, Class, Commit, Condition, Cursor, Entry, Error, Guard, GuardRows, Guarded,
    KeyId, Lease, LeaseHolder, LeaseId, Listed, LoginBudget, LoginWindows, Note, Page, Pseudonyms,
    Record, Resealed, Restored, RunId, Slot, SlotId, Store, StoreClock, Tombstone, Version,
};

/// A token store in a PostgreSQL database. Dropping it finishes what was asked of it and ends its leases.
pub(super) struct Postgres {
    /// What all tasks of the parts run on.
    driver: Driver,
    parts: Arc<Parts>,
}

/// What does the work.
struct Parts {
    link: Link,
    /// The server, for what may be lost, and for leases.
    direct: Arc<Direct>,
    /// Whose leases end with it.
    run: RunId,
    /// The server, for pairs.
    committer: Committer<Direct>,
    /// What the committer keeps beside the server.
    beside: Beside,
    /// Restores what the server lost; ends with this.
    _reassertion: Reassertion,
    budgets: LoginBudgets,
    feed: Feed,
    /// What the forgotten are called.
    pseudonyms: Pseudonyms,
    /// Knows how the server is.
    upkeep: Upkeep,
}

/// How long closing may take. Leases that are left then run out.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

impl Postgres {
    fn new(parts: Parts, driver: Driver) -> Postgres {
        Postgres {
            driver,
            parts: Arc::new(parts),
        }
    }

    /// Runs a call where the connections live; there it goes on if its caller goes.
    async fn call<T, F>(&self, call: impl FnOnce(Arc<Parts>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.driver.run(call(Arc::clone(&self.parts))).await
    }
}

impl Parts {
    /// Starts the tasks, on the runtime that this is called on.
    fn start(link: Link, upkeep: Upkeep, pseudonyms: Pseudonyms, process: Process) -> Parts {
        let leases = Arc::new(Leases::new(link.clone(), process.run, pseudonyms.clone()));
        let direct = Arc::new(Direct {
            entries: Entries::start(link.clone(), pseudonyms.clone()),
            leases: Queue::start(leases),
        });
        let beside = Beside {
            outbox: Arc::new(process.outbox),
            acknowledged: Arc::default(),
            doubt: Arc::new(Doubt::new(link.connected())),
        };
        Parts {
            committer: Committer::start(
                Arc::clone(&direct),
                beside.clone(),
                link.connected(),
                process.patience,
            ),
            _reassertion: Reassertion::start(
                Arc::clone(&direct),
                Arc::clone(&beside.acknowledged),
                Arc::clone(&beside.doubt),
                link.connected(),
            ),
            beside,
            direct,
            run: process.run,
            budgets: LoginBudgets::new(link.clone()),
            feed: Feed::start(link.clone()),
            pseudonyms,
            upkeep,
            link,
        }
    }

    /// Finishes what was asked, and ends all leases.
    async fn finish(&self) {
        self.feed.close();
        self.committer.close();
        self.direct.leases.close().await;
        self.direct.entries.close().await;
        if let Err(error) = leases::abandon(&self.link, self.run).await {
            tracing::debug!(%error, "the leases run out by themselves");
        }
        self.upkeep.end().await;
        self.link.close();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let parts = Arc::clone(&self.parts);
        self.driver
            .close(async move { parts.finish().await }, CLOSE_WITHIN);
    }
}

impl StoreClock for Postgres {
    fn stamp(&self) -> Stamp {
        self.parts.link.time.stamp()
    }
}

#[async_trait]
impl Store for Postgres {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        self.parts.committer.load(principal).await
    }

    async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        let principal = principal.clone();
        self.call(move |parts| async move { parts.committer.lease(&principal, id, ttl).await })
            .await
    }

    async fn extend(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let extended = self
            .parts
            .direct
            .leases
            .ask(principal, Asked::Extend(id, ttl))
            .await?;
        Ok(matches!(extended, Answer::Extended(true)))
    }

    fn release(&self, principal: &Principal, id: LeaseId) {
        let leases = &self.parts.direct.leases;
        leases.tell(principal, Asked::Release(id));
    }

    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error> {
        let pending = Pending {
            principal: principal.clone(),
            record,
            over,
            lease,
        };
        self.call(move |parts| async move { parts.committer.commit(pending).await })
            .await
    }

    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        let principal = principal.clone();
        self.call(move |parts| async move { parts.committer.note(&principal, note).await })
            .await
    }

    async fn drop_rejected(
        &self,
        now: Timestamp,
        latest: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        self.call(async move |parts| {
            strangers::drop_rejected(&parts.link, now, latest, limit).await
        })
        .await
    }

    async fn forget(&self, principal: &Principal) -> Result<bool, Error> {
        let principal = principal.clone();
        self.call(move |parts| async move { parts.committer.forget(&principal).await })
            .await
    }

    async fn bury(&self, tombstones: Vec<Tombstone>) -> Result<Vec<Restored>, Error> {
        self.call(move |parts| async move { parts.direct.entries.bury(tombstones).await })
            .await
    }

    async fn restore(&self, entries: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error> {
        self.call(move |parts| async move { parts.committer.restore(entries).await })
            .await
    }

    fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        self.parts.feed.subscribe()
    }

    async fn claim_due(
        &self,
        before: Timestamp,
        limit: usize,
        hold: Duration,
    ) -> Result<Vec<Principal>, Error> {
        self.call(move |parts| async move { due::claim(&parts.link, before, limit, hold).await })
            .await
    }

    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let after = after.cloned();
        self.call(move |parts| async move {
            let Parts {
                link, pseudonyms, ..
            } = &*parts;
            listings::list(link, pseudonyms, listed, after.as_ref(), limit).await
        })
        .await
    }

    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error> {
        let principal = principal.clone();
        self.call(move |parts| async move { leases::holder(&parts.link, &principal).await })
            .await
    }

    async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error> {
        self.call(move |parts| async move { parts.direct.entries.reseal(resealed).await })
            .await
    }

    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.call(|parts| async move { listings::keys(&parts.link).await })
            .await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.call(|parts| async move { listings::count(&parts.link).await })
            .await
    }

    async fn canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.call(|parts| async move { guards::canary(&parts.link).await })
            .await
    }

    async fn leave_canary(&self, fresh: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.call(move |parts| async move { guards::leave_canary(&parts.link, fresh).await })
            .await
    }

    async fn replace_canary(&self, stands: Vec<u8>, fresh: Vec<u8>) -> Result<bool, Error> {
        self.call(
            move |parts| async move { guards::replace_canary(&parts.link, stands, fresh).await },
        )
        .await
    }

    fn writable(&self) -> Result<(), Error> {
        self.parts.beside.outbox.writable()
    }

    fn condition(&self) -> Condition {
        Condition {
            doubted_for: self.parts.beside.doubt.left(),
            outbox: *self.parts.beside.outbox.waiting().borrow(),
            reasserted: self.parts.beside.doubt.entries_restored(),
            ..self.parts.upkeep.condition()
        }
    }
}

#[async_trait]
impl Budgets for Postgres {
    async fn take_login(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error> {
        let windows = windows.clone();
        self.call(move |parts| async move { parts.budgets.take(id, class, &windows).await })
            .await
    }

    async fn end_login(&self, group: &str, id: SlotId) -> Result<(), Error> {
        let group = group.to_owned();
        self.call(move |parts| async move { parts.budgets.end(&group, id).await })
            .await
    }

    async fn give_login_back(&self, group: &str, id: SlotId) -> Result<(), Error> {
        let group = group.to_owned();
        self.call(move |parts| async move { parts.budgets.give_back(&group, id).await })
            .await
    }

    async fn block_logins(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error> {
        let group = group.to_owned();
        self.call(move |parts| async move { parts.budgets.block(&group, blocked, halved).await })
            .await
    }

    async fn unblock_logins(&self, group: &str) -> Result<bool, Error> {
        let group = group.to_owned();
        self.call(move |parts| async move { parts.budgets.unblock(&group).await })
            .await
    }

    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let windows = windows.clone();
        self.call(move |parts| async move { parts.budgets.state(&windows).await })
            .await
    }
}

#[async_trait]
impl GuardRows for Postgres {
    async fn guard(&self, name: &str) -> Result<Guard, Error> {
        let name = name.to_owned();
        self.call(move |parts| async move { guards::guard(&parts.link, &name).await })
            .await
    }

    async fn set_guard(&self, name: &str, expected: u64, value: Vec<u8>) -> Result<Guarded, Error> {
        let name = name.to_owned();
        self.call(move |parts| async move {
            guards::set_guard(&parts.link, &name, expected, value).await
        })
        .await
    }
}

#[cfg(test)]
mod tests;
