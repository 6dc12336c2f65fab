//! The days on which users were last named, in a narrow table: a user who is named writes nothing of the
//! wide row of its pair. A forget of an unused pair is that of every other one, with a condition.

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::Postgres;
use super::columns::signed;
use super::link::Link;
use super::session::Statement;
use crate::principal::Principal;
use crate::store::{Day, Error, Uses};

/// The tables, made where they are missing: a process that does not know them need not write them.
pub(super) const TABLES: [&str; 2] = [
    r#"CREATE TABLE uses (
        day integer NOT NULL,
        principal text COLLATE "C" PRIMARY KEY
    ) WITH (fillfactor = 75)"#,
    "CREATE INDEX uses_day ON uses (day)",
];
/// Whether they are there.
pub(super) const ARE_THERE: &str = "SELECT to_regclass('uses_day') IS NOT NULL";
/// Who holds a pair has a row in `due`. Rows that need no write are not even locked; the others are, in the
/// order of their keys.
const MARK: &str = r#"INSERT INTO uses AS stands (principal, day)
    SELECT named.principal, max(named.day)
    FROM unnest($1::text[], $2::integer[]) AS named (principal, day)
        LEFT JOIN uses ON uses.principal = named.principal
        LEFT JOIN due ON due.principal = named.principal
    WHERE uses.day < named.day OR uses.principal IS NULL AND due.principal IS NOT NULL
    GROUP BY named.principal ORDER BY named.principal COLLATE "C"
    ON CONFLICT (principal) DO UPDATE SET day = excluded.day WHERE stands.day < excluded.day
    RETURNING principal"#;
/// The keys of users sort after those of accounts; this is what they begin with.
const FIRST: &str = "user:";
/// Processes whose clocks differ a little may be a day apart.
const MARK_UNKNOWN: &str = "WITH page AS MATERIALIZED (
        SELECT principal FROM due WHERE principal > $1 ORDER BY principal LIMIT $2
    ), marked AS (
        INSERT INTO uses AS stands (principal, day)
        SELECT page.principal, $3 FROM page LEFT JOIN uses ON uses.principal = page.principal
        WHERE uses.principal IS NULL OR uses.day > $3 + 1
        ORDER BY page.principal
        ON CONFLICT (principal) DO UPDATE SET day = excluded.day WHERE stands.day > excluded.day + 1
    )
    SELECT max(principal), count(*) FROM page";
const UNUSED: &str = "SELECT principal FROM uses WHERE day < $1 ORDER BY day LIMIT $2";

#[async_trait]
impl Uses for Postgres {
    async fn mark_used(&self, named: Vec<(Principal, Day)>) -> Result<usize, Error> {
        self.call(move |parts| async move { mark_used(&parts.link, &named).await })
            .await
    }

    async fn mark_unknown(
        &self,
        today: Day,
        after: Option<Principal>,
        limit: usize,
    ) -> Result<Option<Principal>, Error> {
        let after = after.map_or(FIRST.to_owned(), |after| after.to_string());
        self.call(move |parts| async move { mark_unknown(&parts.link, today, &after, limit).await })
            .await
    }

    async fn unused(&self, before: Day, limit: usize) -> Result<Vec<Principal>, Error> {
        self.call(move |parts| async move { unused(&parts.link, before, limit).await })
            .await
    }

    async fn forget_unused(&self, user: &Principal, before: Day) -> Result<bool, Error> {
        let user = user.clone();
        self.call(move |parts| async move { parts.committer.forget_unused(&user, before).await })
            .await
    }
}

async fn mark_used(link: &Link, named: &[(Principal, Day)]) -> Result<usize, Error> {
    let keys: Vec<String> = named.iter().map(|(user, _)| user.to_string()).collect();
    let days: Vec<i32> = named.iter().map(|(_, Day(day))| *day).collect();
    let parameters = [
        (&keys as _, Type::TEXT_ARRAY),
        (&days as _, Type::INT4_ARRAY),
    ];
    let marked = link.write([Statement {
        sql: MARK,
        parameters: &parameters,
    }]);
    let [marked] = marked.await?;
    Ok(marked.len())
}

async fn mark_unknown(
    link: &Link,
    Day(today): Day,
    after: &str,
    limit: usize,
) -> Result<Option<Principal>, Error> {
    let limit = signed(limit as u64);
    let parameters = [
        (&after as _, Type::TEXT),
        (&limit as _, Type::INT8),
        (&today as _, Type::INT4),
    ];
    let marked = link.write([Statement {
        sql: MARK_UNKNOWN,
        parameters: &parameters,
    }]);
    let [page] = marked.await?;
    let last = page.first().filter(|page| page.get::<_, i64>(1) == limit);
    Ok(last.and_then(|page| Principal::parse(page.get(0))))
}

async fn unused(link: &Link, Day(before): Day, limit: usize) -> Result<Vec<Principal>, Error> {
    let limit = signed(limit as u64);
    let parameters = [(&before as _, Type::INT4), (&limit as _, Type::INT8)];
    let rows = link.read(UNUSED, parameters).await?;
    let principals = rows.iter().map(|row| Principal::parse(row.get(0)));
    Ok(principals.flatten().collect())
}
