//! The login budgets: one row for each group. What it means is in [`windows`].
//!
//! [`windows`]: crate::store::windows

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use crate::store::windows::History;
use crate::store::{Budgets, Class, Error, LoginBudget, LoginWindows, Slot, SlotId};

#[async_trait]
impl Budgets for Sqlite {
    async fn take_login(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error> {
        let (windows, clock) = (windows.clone(), self.clock.unscaled());
        self.writer
            .ask(None, move |db| {
                update(db, &windows.group, |history| {
                    history.take(id, class, &windows, clock.stamp())
                })
            })
            .await
    }

    async fn end_login(&self, group: &str, id: SlotId) -> Result<(), Error> {
        let (group, now) = (group.to_owned(), self.clock.unscaled().stamp());
        self.writer
            .ask(None, move |db| {
                update(db, &group, |history| history.end(id, now))
            })
            .await
    }

    async fn give_login_back(&self, group: &str, id: SlotId) -> Result<(), Error> {
        let group = group.to_owned();
        self.writer
            .ask(None, move |db| {
                update(db, &group, |history| history.give_back(id))
            })
            .await
    }

    async fn block_logins(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error> {
        let (group, now) = (group.to_owned(), self.clock.unscaled().stamp());
        self.writer
            .ask(None, move |db| {
                update(db, &group, |history| history.block(blocked, halved, now))
            })
            .await
    }

    async fn unblock_logins(&self, group: &str) -> Result<bool, Error> {
        let (group, now) = (group.to_owned(), self.clock.unscaled().stamp());
        self.writer
            .ask(None, move |db| {
                update(db, &group, |history| history.unblock(now))
            })
            .await
    }

    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let group = windows.group.clone();
        let history = self.list_with(move |db| load(db, &group)).await?;
        Ok(history.budget(windows, self.clock.unscaled().stamp()))
    }
}

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

/// Changes what is known of `group` by `change`, and returns what `change` returned.
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
