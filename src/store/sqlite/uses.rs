//! The statements about the days on which users were last named. They lie in a narrow table of their own, so
//! that a user who is named writes nothing of the wide row of its pair.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{Sqlite, entry_writes};
use crate::principal::Principal;
use crate::store::{Day, Error, Uses};

/// Made when a store is opened that lacks it: a process that does not know it need not write it.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS uses (
        principal TEXT PRIMARY KEY, -- of a user that holds a pair
        day INTEGER NOT NULL -- on which it was last named
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS uses_day ON uses (day);
";
const MARK: &str = "INSERT INTO uses (principal, day)
     SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM uses WHERE principal = ?1)
         OR EXISTS (SELECT 1 FROM entries WHERE principal = ?1 AND sealed IS NOT NULL)
     ON CONFLICT (principal) DO UPDATE SET day = excluded.day WHERE excluded.day > uses.day";
/// The keys of users sort after those of accounts; this is what they begin with.
const FIRST: &str = "user:";
const PAGE: &str = "SELECT max(principal), count(*) FROM (
         SELECT principal FROM entries WHERE principal > ?1 ORDER BY principal LIMIT ?2
     )";
/// Processes whose clocks differ a little may be a day apart.
const MARK_UNKNOWN: &str = "INSERT INTO uses (principal, day)
     SELECT principal, ?3 FROM entries
     WHERE principal > ?1 AND principal <= ?2 AND sealed IS NOT NULL AND NOT EXISTS (
         SELECT 1 FROM uses WHERE uses.principal = entries.principal AND uses.day <= ?3 + 1
     )
     ON CONFLICT (principal) DO UPDATE SET day = excluded.day";
const UNUSED: &str = "SELECT principal FROM uses WHERE day < ?1 ORDER BY day LIMIT ?2";
const END_BEFORE: &str = "DELETE FROM uses WHERE principal = ?1 AND day < ?2";

#[async_trait]
impl Uses for Sqlite {
    async fn mark_used(&self, named: Vec<(Principal, Day)>) -> Result<usize, Error> {
        let marked = self.writer.ask(None, move |db| {
            let mut statement = db.prepare_cached(MARK)?;
            let mut rows = 0;
            for (user, Day(day)) in &named {
                rows += statement.execute(params![user, day])?;
            }
            Ok(rows)
        });
        marked.await
    }

    async fn mark_unknown(
        &self,
        today: Day,
        after: Option<Principal>,
        limit: usize,
    ) -> Result<Option<Principal>, Error> {
        let after = after.map_or(FIRST.to_owned(), |after| after.to_string());
        let marked = self
            .writer
            .ask(None, move |db| mark_unknown(db, today, &after, limit));
        marked.await
    }

    async fn unused(&self, Day(before): Day, limit: usize) -> Result<Vec<Principal>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.list_with(move |db| {
            db.prepare_cached(UNUSED)?
                .query_map(params![before, limit], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn forget_unused(&self, user: &Principal, Day(before): Day) -> Result<bool, Error> {
        let (whose, pseudonyms) = (user.clone(), self.pseudonyms.clone());
        let forgotten = self.writer.ask(Some(user), move |db| {
            let mut end = db.prepare_cached(END_BEFORE)?;
            let is_unused = end.execute(params![whose, before])? > 0;
            Ok(is_unused && entry_writes::forget(db, &pseudonyms, &whose)?)
        });
        forgotten.await
    }
}

fn mark_unknown(
    db: &Connection,
    Day(today): Day,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Option<Principal>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let page: (Option<Principal>, i64) = db
        .prepare_cached(PAGE)?
        .query_row(params![after, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(last), looked_at) = page else {
        return Ok(None);
    };
    db.prepare_cached(MARK_UNKNOWN)?
        .execute(params![after, last, today])?;
    Ok((looked_at == limit).then_some(last))
}
