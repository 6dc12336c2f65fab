//! The statements on login budgets: one row per group. What it means is in [`windows`].
//!
//! [`windows`]: crate::store::windows

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::store::windows::History;

/// What is known of `group`.
pub(super) fn load(db: &Connection, group: &str) -> rusqlite::Result<History> {
    let found = db
        .prepare_cached(
            "SELECT taken, blocked_until, halved_until FROM budgets WHERE login_group = ?1",
        )?
        .query_row([group], |row| {
            let taken: Vec<i64> = serde_json::from_slice(row.get_ref(0)?.as_bytes()?)
                .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, e.into()))?;
            Ok(History {
                taken: taken.into_iter().map(Timestamp::from_millis).collect(),
                blocked_until: row.get(1)?,
                halved_until: row.get(2)?,
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Changes what is known of `group` by `change` and answers what that answered.
pub(super) fn update<T>(
    db: &Connection,
    group: &str,
    change: impl FnOnce(&mut History) -> T,
) -> rusqlite::Result<T> {
    let mut history = load(db, group)?;
    let before = history.clone();
    let answer = change(&mut history);
    // A refused request that changed nothing costs no fsync.
    if history != before {
        let taken: Vec<_> = history.taken.iter().map(|at| at.as_millis()).collect();
        let taken = serde_json::to_string(&taken).expect("numbers are valid JSON");
        db.prepare_cached(
            "INSERT INTO budgets (login_group, taken, blocked_until, halved_until)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET taken = excluded.taken,
                 blocked_until = excluded.blocked_until, halved_until = excluded.halved_until",
        )?
        .execute(params![
            group,
            taken,
            history.blocked_until,
            history.halved_until
        ])?;
    }
    Ok(answer)
}
