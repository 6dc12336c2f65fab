//! The statements about the days on which users were last named. They lie in a narrow table of their own, so
//! that a user who is named writes nothing of the wide row of its pair.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{Sqlite, entry_writes};
use crate::principal::Principal;
use crate::store::{Day, Error, Unused, Uses};

/// Made when a store is opened that lacks it: a process that does not know it need not write it.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS uses (
        principal TEXT PRIMARY KEY, -- of a user that holds a pair
        day INTEGER NOT NULL -- on which it was last named
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS uses_day ON uses (day);
";
const MARK: &str = "INSERT INTO uses (principal, day)
     SELECT principal, ?2 FROM entries WHERE principal = ?1 AND sealed IS NOT NULL
     ON CONFLICT (principal) DO UPDATE SET day = excluded.day WHERE excluded.day > uses.day";
const MARK_UNKNOWN: &str = "INSERT INTO uses (principal, day)
     SELECT principal, ?2 FROM entries WHERE principal = ?1 AND sealed IS NOT NULL
     ON CONFLICT (principal) DO NOTHING";
const UNUSED: &str = "SELECT principal FROM uses WHERE day < ?1 ORDER BY day LIMIT ?2";

#[async_trait]
impl Uses for Sqlite {
    async fn mark_used(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error> {
        self.writer
            .ask(None, move |db| mark(db, MARK, &users, day))
            .await
    }

    async fn mark_unknown(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error> {
        self.writer
            .ask(None, move |db| mark(db, MARK_UNKNOWN, &users, day))
            .await
    }

    async fn forget_unused(&self, before: Day, limit: usize) -> Result<Unused, Error> {
        self.writer
            .ask(None, move |db| forget_unused(db, before, limit))
            .await
    }
}

fn mark(db: &Connection, sql: &str, users: &[Principal], Day(day): Day) -> rusqlite::Result<usize> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = 0;
    for user in users {
        rows += statement.execute(params![user, day])?;
    }
    Ok(rows)
}

/// In one transaction: whoever is named meanwhile is forgotten before that, or not at all.
fn forget_unused(db: &Connection, Day(before): Day, limit: usize) -> rusqlite::Result<Unused> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let unused: Vec<Principal> = db
        .prepare_cached(UNUSED)?
        .query_map(params![before, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let looked_at = unused.len();
    let mut forgotten = Vec::with_capacity(looked_at);
    for user in unused {
        if entry_writes::forget(db, &user)? {
            forgotten.push(user);
        } else {
            // Its pair went another way.
            entry_writes::end_use(db, &user)?;
        }
    }
    Ok(Unused {
        looked_at,
        forgotten,
    })
}
