//! Leases: rows with an end on the server's clock, as durable as commits. What is asked at the same time
//! is done in few transactions.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::batch::{Job, Work};
use super::columns::{columns, millis, now};
use super::link::Link;
use super::loads;
use super::session::Statement;
use super::tombstones;
use crate::clock::Timestamp;
use crate::principal::Principal;
use crate::store::{Entry, Error, Lease, LeaseHolder, LeaseId, Pseudonyms, RunId};

/// What is asked of one lease.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// To take it.
    Take(LeaseId, Duration),
    /// To let it last.
    Extend(LeaseId, Duration),
    /// To end it.
    Release(LeaseId),
}

/// What that is answered.
pub(super) enum Answer {
    /// What became of it, and the entry as it was read after that.
    Taken(Lease, Box<Result<Entry, Error>>),
    /// Whether it is still held.
    Extended(bool),
    /// It is not held any more, unless the server was not reached: then it runs out.
    Released,
}

/// Takes leases that are free, have run out, or are held by this very id. Locks the row of those that
/// are held as well, and so waits for a transaction that is about to end one.
const TAKE: &str = concat!(
    "INSERT INTO leases AS held (principal, id, run, since, until, orphaned)
    SELECT principal, id, $4, $5, ",
    now!(),
    " + ttl, false
    FROM unnest($1::text[], $2::uuid[], $3::bigint[]) AS asked (principal, id, ttl)
    ON CONFLICT (principal) DO UPDATE SET
        id = excluded.id, run = excluded.run, until = excluded.until,
        since = CASE WHEN held.id = excluded.id THEN held.since ELSE excluded.since END,
        orphaned = held.id <> excluded.id OR held.orphaned
    WHERE held.id = excluded.id OR held.until <= ",
    now!(),
    " RETURNING principal, orphaned"
);
/// Reads the entries that leases were asked for, and how long the standing leases last. This must be a
/// statement of its own after [`TAKE`]: one that waits for a lock sees all other rows as they were when it
/// began, and would find the entry as it was before the commit that it waited for.
const READ: &str = concat!(
    "SELECT asked.principal, leases.until - ",
    now!(),
    ", stands.* FROM unnest($1::text[]) AS asked (principal)
    LEFT JOIN leases ON leases.principal = asked.principal
    LEFT JOIN (SELECT ",
    columns!(),
    " FROM entries) AS stands ON stands.principal = asked.principal"
);
/// Finds the leases `$2` on the principals `$1`, and locks them in the order of all transactions.
macro_rules! locked_leases {
    () => {
        "WITH held AS MATERIALIZED (
            SELECT leases.principal FROM leases
            JOIN unnest($1::text[], $2::uuid[]) AS asked (principal, id)
                ON asked.principal = leases.principal AND asked.id = leases.id
            ORDER BY leases.principal FOR UPDATE OF leases
        )"
    };
}
const EXTEND: &str = concat!(
    locked_leases!(),
    " UPDATE leases SET until = ",
    now!(),
    " + asked.ttl FROM held
    JOIN unnest($1::text[], $3::bigint[]) AS asked (principal, ttl) ON asked.principal = held.principal
    WHERE leases.principal = held.principal RETURNING leases.principal"
);
/// Ends the leases `$2` on the principals `$1`; leaves those of others.
pub(super) const END: &str = concat!(
    locked_leases!(),
    " DELETE FROM leases USING held WHERE leases.principal = held.principal"
);
/// Nobody knows what became of the refreshes of a run that ends: its leases count as orphaned.
const ABANDON: &str = "WITH held AS MATERIALIZED (
        SELECT principal FROM leases WHERE run = $1 ORDER BY principal FOR UPDATE
    )
    UPDATE leases SET until = 0 FROM held WHERE leases.principal = held.principal";
const HOLDER: &str = concat!(
    "SELECT run, since, until - ",
    now!(),
    " FROM leases WHERE principal = $1 AND until > ",
    now!()
);

/// Takes, extends and ends leases of one process run.
pub(super) struct Leases {
    link: Link,
    run: RunId,
    pseudonyms: Pseudonyms,
}

impl Work for Leases {
    type Asked = Asked;
    type Answer = Answer;

    async fn work(&self, batch: &[Job<Asked>]) -> Result<Vec<Answer>, Error> {
        let (mut ended, mut extended, mut taken) = <(Group, Group, Group)>::default();
        for job in batch {
            match job.asked {
                Asked::Release(id) => ended.push(&job.key, id, Duration::ZERO),
                Asked::Extend(id, ttl) => extended.push(&job.key, id, ttl),
                Asked::Take(id, ttl) => taken.push(&job.key, id, ttl),
            }
        }
        // Transactions of their own, so that each locks its rows in the order of all.
        if !ended.is_empty() {
            self.end(&ended).await?;
        }
        let extended = self.extend(&extended).await?;
        let mut taken = self.take(&taken).await?;
        let answer = |job: &Job<Asked>| match job.asked {
            Asked::Release(_) => Answer::Released,
            Asked::Extend(..) => Answer::Extended(extended.contains(&job.key)),
            Asked::Take(..) => taken.answer(job),
        };
        let mut answers: Vec<_> = batch.iter().map(answer).collect();
        let read = batch.iter().zip(&mut answers);
        let read = read.filter_map(|(job, answer)| match answer {
            Answer::Taken(_, entry) => Some((&job.principal, entry.as_mut())),
            Answer::Extended(_) | Answer::Released => None,
        });
        tombstones::lay_beneath_each(&self.link, &self.pseudonyms, read.collect()).await;
        Ok(answers)
    }

    /// A lease that is taken after its taker has gone would be released before it is taken.
    fn is_void_without_caller(asked: &Asked) -> bool {
        matches!(asked, Asked::Take(..))
    }
}

/// Leases as columns.
#[derive(Default)]
struct Group<'a> {
    principals: Vec<&'a str>,
    ids: Vec<Uuid>,
    ttls: Vec<i64>,
}

impl<'a> Group<'a> {
    fn push(&mut self, principal: &'a str, id: LeaseId, ttl: Duration) {
        self.principals.push(principal);
        self.ids.push(id.0);
        self.ttls.push(millis(ttl));
    }

    fn is_empty(&self) -> bool {
        self.principals.is_empty()
    }
}

/// What became of leases that were asked for.
#[derive(Default)]
struct Taken {
    /// The principals of those that were granted, and whether they were orphaned.
    granted: HashMap<String, bool>,
    /// What was read afterwards.
    read: HashMap<String, Row>,
}

impl Taken {
    fn answer(&mut self, job: &Job<Asked>) -> Answer {
        let Some(row) = self.read.remove(&job.key) else {
            let unread = Error::Damaged(job.principal.clone());
            return Answer::Taken(held(0), Box::new(Err(unread)));
        };
        let lease = match self.granted.get(&job.key) {
            Some(orphaned) => Lease::Granted {
                orphaned: *orphaned,
            },
            // It may have ended since.
            None => held(row.get::<_, Option<i64>>(1).unwrap_or(0)),
        };
        let entry = match row.get::<_, Option<&str>>(2) {
            Some(_) => loads::loaded(&row, 2, &job.principal),
            None => Ok(Entry::default()),
        };
        Answer::Taken(lease, Box::new(entry))
    }
}

fn held(millis: i64) -> Lease {
    let left = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Lease::Held { left }
}

impl Leases {
    pub(super) fn new(link: Link, run: RunId, pseudonyms: Pseudonyms) -> Leases {
        Leases {
            link,
            run,
            pseudonyms,
        }
    }

    async fn end(&self, group: &Group<'_>) -> Result<(), Error> {
        let parameters = [
            (&group.principals as _, Type::TEXT_ARRAY),
            (&group.ids as _, Type::UUID_ARRAY),
        ];
        let ended = self.link.write([Statement {
            sql: END,
            parameters: &parameters,
        }]);
        ended.await.map(drop)
    }

    /// Returns the principals of those that are held.
    async fn extend(&self, group: &Group<'_>) -> Result<Vec<String>, Error> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = [
            (&group.principals as _, Type::TEXT_ARRAY),
            (&group.ids as _, Type::UUID_ARRAY),
            (&group.ttls as _, Type::INT8_ARRAY),
        ];
        let extended = self.link.write([Statement {
            sql: EXTEND,
            parameters: &parameters,
        }]);
        let [extended] = extended.await?;
        Ok(extended.iter().map(|row| row.get(0)).collect())
    }

    async fn take(&self, group: &Group<'_>) -> Result<Taken, Error> {
        if group.is_empty() {
            return Ok(Taken::default());
        }
        let since = self.link.time.wall().as_millis();
        let principals = [(&group.principals as _, Type::TEXT_ARRAY)];
        let all = [
            (&group.principals as _, Type::TEXT_ARRAY),
            (&group.ids as _, Type::UUID_ARRAY),
            (&group.ttls as _, Type::INT8_ARRAY),
            (&self.run.0 as _, Type::UUID),
            (&since as _, Type::INT8),
        ];
        let taken = self.link.write([
            Statement {
                sql: TAKE,
                parameters: &all,
            },
            Statement {
                sql: READ,
                parameters: &principals,
            },
        ]);
        let [granted, read] = taken.await?;
        Ok(Taken {
            granted: granted.iter().map(|row| (row.get(0), row.get(1))).collect(),
            read: read.into_iter().map(|row| (row.get(0), row)).collect(),
        })
    }
}

/// Ends all leases of a run that ends.
pub(super) async fn abandon(link: &Link, run: RunId) -> Result<(), Error> {
    let parameters = [(&run.0 as _, Type::UUID)];
    let ended = link.write([Statement {
        sql: ABANDON,
        parameters: &parameters,
    }]);
    ended.await.map(drop)
}

/// As [`crate::store::Store::lease_holder`].
pub(super) async fn holder(
    link: &Link,
    principal: &Principal,
) -> Result<Option<LeaseHolder>, Error> {
    let key = principal.to_string();
    let found = link.read(HOLDER, [(&key, Type::TEXT)]).await?;
    Ok(found.first().map(|row| LeaseHolder {
        run: RunId(row.get(0)),
        since: Some(Timestamp::from_millis(row.get(1))),
        left: Duration::from_millis(u64::try_from(row.get::<_, i64>(2)).unwrap_or(0)),
    }))
}
