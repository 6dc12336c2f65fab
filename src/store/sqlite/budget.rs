//! The statements on login budgets: one row per group. What it means is in [`windows`].
//!
//! [`windows`]: crate::store::windows

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::windows::History;

/// What is known of `group`.
pub(super) fn load(db: &Connection, group: &str) -> rusqlite::Result<History> {
    let found = db
        .prepare_cached("SELECT history FROM login_budgets WHERE login_group = ?1")?
        .query_row([group], |row| {
            serde_json::from_slice(row.get_ref(0)?.as_bytes()?)
                .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, e.into()))
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
        store(db, group, &history)?;
    }
    Ok(answer)
}

/// Puts `history` in the place of what was known of `group`.
pub(super) fn store(db: &Connection, group: &str, history: &History) -> rusqlite::Result<()> {
    let history = serde_json::to_string(history).expect("numbers and ids always serialise");
    db.prepare_cached(
        "INSERT INTO login_budgets (login_group, history) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET history = excluded.history",
    )?
    .execute(params![group, history])?;
    Ok(())
}
