//! Statements as a call sends them: one that only reads by itself, those that write as one transaction.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;

use super::errors::{Failure, Within};
use super::link::{CALL_DEADLINE, Link};
use super::session::{Parameter, Statement, WritersLock};
use crate::store::Error;

/// Before what met another transaction is done again: at most.
const PAUSE: Duration = Duration::from_millis(50);
/// The same of what must meet no other, whose process does one such thing at a time.
const PAUSE_OF_ONE: Duration = Duration::from_millis(400);

impl Link {
    /// Reads rows by one statement.
    ///
    /// Errors: [`Error::Away`], [`Error::Unreadable`].
    pub(super) async fn read<const N: usize>(
        &self,
        sql: &'static str,
        parameters: [Parameter<'_>; N],
    ) -> Result<Vec<Row>, Error> {
        self.session().await?.query(sql, &parameters).await
    }

    /// Runs `statements` in one transaction, which is durable on return, and returns the rows of each.
    /// Each statement sees what others had committed when it began, not when the transaction did. What
    /// the server undid because another transaction stood in the way is done again.
    ///
    /// Errors: [`Error::Away`]; [`Error::Unwritable`] if nothing was done.
    pub(super) async fn write<const N: usize>(
        &self,
        statements: [Statement<'_>; N],
    ) -> Result<[Vec<Row>; N], Error> {
        let rows = self.write_locked(WritersLock::Shared, &statements).await?;
        Ok(one_for_each(rows))
    }

    /// The same, for what must meet no other transaction that writes.
    pub(super) async fn write_alone<const N: usize>(
        &self,
        statements: [Statement<'_>; N],
    ) -> Result<[Vec<Row>; N], Error> {
        let Ok(_alone) = timeout(CALL_DEADLINE, self.alone.lock()).await else {
            let why = "others that must meet nobody come first".to_owned();
            return Err(Error::Away(why));
        };
        let rows = self.write_locked(WritersLock::Alone, &statements).await?;
        Ok(one_for_each(rows))
    }

    async fn write_locked(
        &self,
        lock: WritersLock,
        statements: &[Statement<'_>],
    ) -> Result<Vec<Vec<Row>>, Error> {
        let deadline = Instant::now() + CALL_DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut session = self.session_within(left).await?;
            let failure = match session.transaction(lock, statements).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            let pause = match lock {
                WritersLock::Shared => PAUSE.mul_f64(fastrand::f64()),
                // Those that waited behind it have a turn.
                WritersLock::Alone => PAUSE_OF_ONE,
            };
            match failure {
                Failure::Refused(refused)
                    if refused.may_be_repeated() && Instant::now() + pause < deadline =>
                {
                    sleep(pause).await;
                }
                failure => return Err(failure.of_call(Within::Transaction)),
            }
        }
    }
}

fn one_for_each<const N: usize>(rows: Vec<Vec<Row>>) -> [Vec<Row>; N] {
    rows.try_into()
        .expect("there is one answer for each statement")
}
