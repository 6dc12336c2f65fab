//! A connection that is lent for one call: its statements, its transactions, its deadline.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::join;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::dialer;
use super::errors::{Failure, Within};
use super::pool::Lent;
use crate::store::Error;

/// A connection with a deadline. It goes back to its pool when dropped, unless a statement or a
/// transaction is under way on it: then it is closed, and the server ends the transaction.
pub(super) struct Session {
    /// `None` while a statement is under way, so that a call that is dropped closes its connection; and
    /// after a failure.
    lent: Option<Lent>,
    stage: Stage,
    deadline: Instant,
}

/// ```text
///             begin              a statement
///      free ────────▶ beginning ─────────────▶ begun ──┐
///       ▲                │                       │     │ a statement
///       │     commit     │        commit         │ ◀───┘
///       └────────────────┴───────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    /// `BEGIN` goes out with the first statement: one round trip for both.
    Beginning,
    Begun,
}

/// A parameter and its type: a statement whose types are known needs no name.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// All that a transaction needs to know is said in it, whatever the role, the database or another
/// user of a pooled connection has set:
///
/// - `statement_timeout` would cancel a COMMIT that waits for its standby, which then answers success.
/// - A lock is waited for less than the call's deadline, so that no server process waits on after it.
/// - A process that was stopped in a transaction must not hold others up.
/// - `synchronous_commit` may be off for the role; `on` is durable, and waits for a synchronous
///   standby if there is one.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL statement_timeout = 0; \
     SET LOCAL lock_timeout = 1500; \
     SET LOCAL idle_in_transaction_session_timeout = 5000; \
     SET LOCAL synchronous_commit = on";

impl Session {
    pub(super) fn new(lent: Lent, deadline: Instant) -> Session {
        Session {
            lent: Some(lent),
            stage: Stage::Free,
            deadline,
        }
    }

    /// Begins a transaction.
    pub(super) fn begin(&mut self) {
        debug_assert_eq!(self.stage, Stage::Free);
        self.stage = Stage::Beginning;
    }

    /// Runs a statement and returns its rows. Outside a transaction it must only read.
    ///
    /// Errors: [`Error::Away`] if it may have been done; [`Error::Unwritable`] and, outside a
    /// transaction, [`Error::Unreadable`] if it was not. The transaction is over then.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        let client = self.client()?;
        self.run(async { Ok(client.query_typed(sql, parameters).await?) })
            .await
    }

    /// Runs a statement and returns how many rows it concerned. Otherwise like [`Session::query`].
    pub(super) async fn execute(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Error> {
        let client = self.client()?;
        self.run(async { Ok(client.execute_typed(sql, parameters).await?) })
            .await
    }

    /// Runs statements without parameters, such as those that make a schema.
    pub(super) async fn run_all(&mut self, sql: &str) -> Result<(), Error> {
        let client = self.client()?;
        self.run(async { Ok(client.batch_execute(sql).await?) })
            .await
    }

    /// Ends the transaction. Durable once this returns `Ok`; the session can be used again.
    ///
    /// Errors: [`Error::Away`]: it may have been committed.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        if self.stage == Stage::Beginning {
            self.stage = Stage::Free;
            return Ok(());
        }
        let warnings = self.warnings();
        let client = self.client()?;
        self.run(async { Ok(client.batch_execute("COMMIT").await?) })
            .await?;
        // An administrator cancelled the wait for the standby, or there was no transaction any more.
        if self.warnings() != warnings {
            self.lent = None;
            let why = "the server answered COMMIT with a warning".to_owned();
            return Err(Error::Away(why));
        }
        self.stage = Stage::Free;
        Ok(())
    }

    /// Asks the server what it is, and what its clock says.
    pub(super) async fn greet(&mut self) -> Result<(), Error> {
        let lent = self.lent.take().ok_or_else(ended)?;
        let greeted = timeout_at(self.deadline, dialer::greet(lent.connection())).await;
        match greeted.unwrap_or_else(|_| Err(Failure::deadline())) {
            Ok(greeting) => {
                lent.met(greeting);
                self.lent = Some(lent);
                Ok(())
            }
            Err(failure) => Err(self.fail(lent, failure).await),
        }
    }

    fn client(&self) -> Result<Arc<Client>, Error> {
        let lent = self.lent.as_ref().ok_or_else(ended)?;
        Ok(lent.connection().client().clone())
    }

    fn warnings(&self) -> Option<u64> {
        let lent = self.lent.as_ref()?;
        Some(lent.connection().warnings())
    }

    async fn run<T>(&mut self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Error> {
        let lent = self.lent.take().ok_or_else(ended)?;
        let call = async {
            if self.stage != Stage::Beginning {
                return call.await;
            }
            let begun = lent.connection().client().batch_execute(BEGIN);
            let (begun, done) = join(begun, call).await;
            begun?;
            done
        };
        let done = timeout_at(self.deadline, call).await;
        match done.unwrap_or_else(|_| Err(Failure::deadline())) {
            Ok(done) => {
                if self.stage == Stage::Beginning {
                    self.stage = Stage::Begun;
                }
                self.lent = Some(lent);
                Ok(done)
            }
            Err(failure) => Err(self.fail(lent, failure).await),
        }
    }

    /// Ends the transaction. Keeps the connection if it is still good.
    async fn fail(&self, lent: Lent, failure: Failure) -> Error {
        lent.note_failure(&failure);
        let within = match self.stage {
            Stage::Free => Within::Statement,
            Stage::Beginning | Stage::Begun => Within::Transaction,
        };
        if matches!(failure, Failure::Refused(_)) && self.rolled_back(&lent, within).await {
            lent.give_back();
        }
        failure.of_call(within)
    }

    async fn rolled_back(&self, lent: &Lent, within: Within) -> bool {
        match within {
            Within::Statement => true,
            Within::Transaction => {
                let rolled_back = lent.connection().client().batch_execute("ROLLBACK");
                matches!(timeout_at(self.deadline, rolled_back).await, Ok(Ok(())))
            }
        }
    }
}

/// The session failed before: whatever is asked of it was not done.
fn ended() -> Error {
    Error::Away("the transaction failed before".to_owned())
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nothing of a transaction that is only beginning has been sent.
        if let Some(lent) = self.lent.take()
            && self.stage != Stage::Begun
        {
            lent.give_back();
        }
    }
}
