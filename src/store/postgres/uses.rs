//! The days on which users were last named, in a narrow table: a user who is named writes nothing of the
//! wide row of its pair.

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::Postgres;
use super::link::Link;
use super::session::Statement;
use crate::principal::Principal;
use crate::store::{Day, Error, Unused, Uses};

/// The tables, made where they are missing: a process that does not know them need not write them.
pub(super) const TABLES: [&str; 2] = [
    r#"CREATE TABLE IF NOT EXISTS uses (
        principal text COLLATE "C" PRIMARY KEY,
        day integer NOT NULL
    )"#,
    "CREATE INDEX IF NOT EXISTS uses_day ON uses (day)",
];
/// Whether they are there.
pub(super) const ARE_THERE: &str = "SELECT to_regclass('uses_day') IS NOT NULL";
/// Whoever holds a pair has a row in `due`.
const MARK: &str = "INSERT INTO uses AS stands (principal, day)
    SELECT due.principal, $2 FROM due WHERE due.principal = ANY($1) ORDER BY due.principal
    ON CONFLICT (principal) DO UPDATE SET day = excluded.day WHERE stands.day < excluded.day
    RETURNING principal";
const MARK_UNKNOWN: &str = "INSERT INTO uses (principal, day)
    SELECT due.principal, $2 FROM due WHERE due.principal = ANY($1) ORDER BY due.principal
    ON CONFLICT (principal) DO NOTHING
    RETURNING principal";
const UNUSED: &str = "SELECT principal FROM uses WHERE day < $1 ORDER BY day LIMIT $2";
/// Of one that is named at this moment, nothing: then it is not forgotten.
const END: &str = "DELETE FROM uses WHERE principal = $1 AND day < $2 RETURNING principal";

#[async_trait]
impl Uses for Postgres {
    async fn mark_used(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error> {
        self.call(move |parts| async move { mark(&parts.link, MARK, &users, day).await })
            .await
    }

    async fn mark_unknown(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error> {
        self.call(move |parts| async move { mark(&parts.link, MARK_UNKNOWN, &users, day).await })
            .await
    }

    async fn forget_unused(&self, before: Day, limit: usize) -> Result<Unused, Error> {
        self.call(move |parts| async move {
            let users = unused(&parts.link, before, limit).await?;
            let looked_at = users.len();
            let mut forgotten = Vec::with_capacity(looked_at);
            for user in users {
                // Whoever is named at this moment is kept. If this ends in between, the user counts anew.
                if end(&parts.link, &user, before).await? && parts.committer.forget(&user).await? {
                    forgotten.push(user);
                }
            }
            Ok(Unused {
                looked_at,
                forgotten,
            })
        })
        .await
    }
}

async fn mark(
    link: &Link,
    sql: &'static str,
    users: &[Principal],
    Day(day): Day,
) -> Result<usize, Error> {
    let keys: Vec<String> = users.iter().map(Principal::to_string).collect();
    let parameters = [(&keys as _, Type::TEXT_ARRAY), (&day as _, Type::INT4)];
    let marked = link.write([Statement {
        sql,
        parameters: &parameters,
    }]);
    let [marked] = marked.await?;
    Ok(marked.len())
}

/// Up to `limit` users whose last day lies before `before`, those first that were named longest ago.
async fn unused(link: &Link, Day(before): Day, limit: usize) -> Result<Vec<Principal>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let parameters = [(&before as _, Type::INT4), (&limit as _, Type::INT8)];
    let rows = link.read(UNUSED, parameters).await?;
    let principals = rows.iter().map(|row| Principal::parse(row.get(0)));
    Ok(principals.flatten().collect())
}

/// Ends the count of a user. Returns false if it was named on `before`, or later.
async fn end(link: &Link, user: &Principal, Day(before): Day) -> Result<bool, Error> {
    let key = user.to_string();
    let parameters = [(&key as _, Type::TEXT), (&before as _, Type::INT4)];
    let ended = link.write([Statement {
        sql: END,
        parameters: &parameters,
    }]);
    let [ended] = ended.await?;
    Ok(!ended.is_empty())
}
