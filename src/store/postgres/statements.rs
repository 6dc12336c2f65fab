//! Statements as a call sends them: one that only reads by itself, those that write as one transaction.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::errors::{Failure, Within};
use super::link::{CALL_DEADLINE, Link};
use super::session::{Beside, Parameter, Statement};
use crate::store::Error;

/// Before what met another transaction is done again: at most.
const PAUSE: Duration = Duration::from_millis(50);
/// The same of one that must meet no other.
const PAUSE_OF_ONE: Duration = Duration::from_millis(500);

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
        let rows = self.write_beside(Beside::Others, &statements).await?;
        Ok(one_for_each(rows))
    }

    /// The same, for what must meet no other transaction that writes.
    pub(super) async fn write_alone<const N: usize>(
        &self,
        statements: [Statement<'_>; N],
    ) -> Result<[Vec<Row>; N], Error> {
        let _alone = self.alone.lock().await;
        let rows = self.write_beside(Beside::Nobody, &statements).await?;
        Ok(one_for_each(rows))
    }

    async fn write_beside(
        &self,
        beside: Beside,
        statements: &[Statement<'_>],
    ) -> Result<Vec<Vec<Row>>, Error> {
        let deadline = Instant::now() + CALL_DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut session = self.session_within(left).await?;
            let failure = match session.transaction(beside, statements).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            match failure {
                Failure::Refused(refused)
                    if refused.may_be_repeated() && Instant::now() + PAUSE < deadline =>
                {
                    let pause = match beside {
                        Beside::Others => PAUSE,
                        // Those that wait behind it have a turn.
                        Beside::Nobody => PAUSE_OF_ONE,
                    };
                    sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
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
