//! A connection that is lent for one call: its statements, its transactions, its deadline.

use futures_util::future::{join_all, join3};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::connection::Connection;
use super::dialer;
use super::errors::{Failure, Within};
use super::pool::Lent;
use crate::store::Error;

/// A connection with a deadline. It goes back to its pool when dropped, unless a statement is under way
/// on it: then it is closed.
pub(super) struct Session {
    /// `None` while a statement is under way, so that a call that is dropped closes its connection; and
    /// after a failure that the connection did not outlive.
    lent: Option<Lent>,
    deadline: Instant,
}

/// A parameter and its type: a statement whose types are known needs no name.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One statement of a transaction.
pub(super) struct Statement<'a> {
    pub(super) sql: &'static str,
    pub(super) parameters: &'a [Parameter<'a>],
}

/// All that a transaction needs to know is said in it, whatever the role, the database or another
/// user of a pooled connection has set:
///
/// - `statement_timeout` would cancel a COMMIT that waits for its standby, which then answers success.
/// - A lock is waited for less than the call's deadline, so that no server process waits on after it.
/// - A process that was stopped in a transaction must not hold others up.
/// - `synchronous_commit` may be off for the role; `on` is durable, and waits for a synchronous
///   standby if there is one.
macro_rules! begin {
    () => {
        "BEGIN ISOLATION LEVEL READ COMMITTED; \
         SET LOCAL statement_timeout = 0; \
         SET LOCAL lock_timeout = 1500; \
         SET LOCAL idle_in_transaction_session_timeout = 5000; \
         SET LOCAL synchronous_commit = on; "
    };
}
/// The number of the lock that all writers share, and that one takes for itself which must meet no other. It
/// ends with its transaction. It is taken before any row is locked, so that nobody waits for it who holds one.
macro_rules! writers {
    () => {
        "(4923396107432099841)"
    };
}

/// How a transaction takes that lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WritersLock {
    /// With all others that share it.
    Shared,
    /// For itself. It waits for others only briefly, because those that come later wait behind it.
    Alone,
}

impl WritersLock {
    fn begin(self) -> &'static str {
        match self {
            WritersLock::Shared => {
                concat!(begin!(), "SELECT pg_advisory_xact_lock_shared", writers!())
            }
            WritersLock::Alone => concat!(
                begin!(),
                "SET LOCAL lock_timeout = 250; SELECT pg_advisory_xact_lock",
                writers!(),
                "; SET LOCAL lock_timeout = 1500"
            ),
        }
    }
}

impl Session {
    pub(super) fn new(lent: Lent, deadline: Instant) -> Session {
        Session {
            lent: Some(lent),
            deadline,
        }
    }

    /// Runs a statement that only reads, and returns its rows.
    ///
    /// Errors: [`Error::Away`], [`Error::Unreadable`].
    pub(super) async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        let queried = self.run(async |connection| {
            let rows = connection.client().query_typed(sql, parameters).await?;
            Ok(rows)
        });
        queried
            .await
            .map_err(|failure| failure.of_call(Within::Statement))
    }

    /// Runs `statements` in one transaction and returns the rows of each; durable on return. All of it is
    /// sent at once: no transaction waits for a process that was stopped, or cut off, half way through.
    ///
    /// Errors: [`Failure::Refused`]: nothing was done, and the session can be used again.
    pub(super) async fn transaction(
        &mut self,
        lock: WritersLock,
        statements: &[Statement<'_>],
    ) -> Result<Vec<Vec<Row>>, Failure> {
        let committed = self.run(async |connection| {
            let warnings = connection.warnings();
            let rows = transaction(connection.client(), lock, statements).await?;
            // An administrator cancelled the wait for the standby.
            if connection.warnings() != warnings {
                let why = "the server answered COMMIT with a warning".to_owned();
                return Err(Failure::Lost(why));
            }
            Ok(rows)
        });
        let rows = committed.await?;
        if let Some(lent) = &self.lent {
            lent.note_commit();
        }
        Ok(rows)
    }

    /// Asks the server what it is, and what its clock says.
    pub(super) async fn greet(&mut self) -> Result<(), Error> {
        let greeted = self.run(async |connection| dialer::greet(connection).await);
        let greeting = greeted
            .await
            .map_err(|failure| failure.of_call(Within::Statement))?;
        if let Some(lent) = &self.lent {
            lent.met(greeting);
        }
        Ok(())
    }

    async fn run<T>(
        &mut self,
        call: impl AsyncFnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let ended = || Failure::Lost("the connection failed before".to_owned());
        let lent = self.lent.take().ok_or_else(ended)?;
        let done = timeout_at(self.deadline, call(lent.connection())).await;
        let done = done.unwrap_or_else(|_| Err(Failure::deadline()));
        if let Err(failure) = &done {
            lent.note_failure(failure);
        }
        if matches!(done, Ok(_) | Err(Failure::Refused(_))) {
            self.lent = Some(lent);
        }
        done
    }
}

/// Sends a transaction. The server skips what follows a statement that failed, and rolls back at its end.
async fn transaction(
    client: &Client,
    lock: WritersLock,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    let statements = statements
        .iter()
        .map(|statement| client.query_typed(statement.sql, statement.parameters));
    // Each is sent when it is first polled: in this order.
    let (begun, rows, committed) = join3(
        client.batch_execute(lock.begin()),
        join_all(statements),
        client.batch_execute("COMMIT"),
    )
    .await;
    begun?;
    let rows = rows.into_iter().collect::<Result<_, _>>()?;
    committed?;
    Ok(rows)
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}
