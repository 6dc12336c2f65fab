//! What went wrong on the way to a server, or there: how it is told, and what follows from it.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store;
use crate::telemetry::episode::Chain;

/// Why a statement has no result, or a connection was not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused a statement: nothing of it was done. The connection is still good.
    Refused(Refused),
    /// The server takes no writes: a standby, one that starts or ends, or read-only by a setting.
    /// Another one may have taken its place.
    NotThisServer(String),
    /// The connection ended, or no answer came in time. What was sent may have been done.
    Lost(String),
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: SqlState,
    pub(super) message: String,
}

impl Failure {
    /// No answer came before the deadline.
    pub(super) fn deadline() -> Failure {
        Failure::Lost("the server did not answer in time".to_owned())
    }

    /// Something else than a statement failed before the server could do anything.
    pub(super) fn lost(why: &(dyn Error + 'static)) -> Failure {
        Failure::Lost(Chain(why).to_string())
    }

    /// As a call of the store returns it.
    pub(super) fn of_call(self, within: Within) -> store::Error {
        match (self, within) {
            (Failure::Lost(why) | Failure::NotThisServer(why), _) => store::Error::Away(why),
            (Failure::Refused(refused), _) if refused.may_be_repeated() => {
                store::Error::Away(refused.to_string())
            }
            (Failure::Refused(refused), Within::Transaction) if refused.is_of_content() => {
                store::Error::Refused(refused.to_string())
            }
            (Failure::Refused(refused), Within::Transaction) => {
                store::Error::Unwritable(refused.to_string())
            }
            (Failure::Refused(refused), Within::Statement) => {
                store::Error::Unreadable(refused.to_string())
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(refused) => refused.fmt(f),
            Failure::NotThisServer(why) | Failure::Lost(why) => f.write_str(why),
        }
    }
}

/// What a failed statement belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// A transaction, which is for writes.
    Transaction,
    /// Nothing: it was a single one, which reads.
    Statement,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let Some(server) = error.as_db_error() else {
            return Failure::lost(&error);
        };
        let refused = Refused::new(server);
        if refused.is_of_another_server() {
            return Failure::NotThisServer(refused.to_string());
        }
        match server.parsed_severity() {
            Some(Severity::Fatal | Severity::Panic) => Failure::Lost(refused.to_string()),
            _ => Failure::Refused(refused),
        }
    }
}

impl Refused {
    fn new(error: &DbError) -> Refused {
        Refused {
            code: error.code().clone(),
            message: error.message().to_owned(),
        }
    }

    /// Whether the server said that it takes no writes now, starts, or ends.
    fn is_of_another_server(&self) -> bool {
        [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
        ]
        .contains(&self.code)
    }

    /// Whether the server takes what was to be written neither now nor later: a text or a number that it does
    /// not know, a key that is too long, a rule of its administrator's. It says nothing of the server.
    pub(super) fn is_of_content(&self) -> bool {
        const CLASSES: [&str; 3] = ["22", "23", "54"];
        CLASSES
            .iter()
            .any(|class| self.code.code().starts_with(class))
    }

    /// Whether the same statement may succeed at once: it met another transaction, or was cancelled.
    pub(super) fn may_be_repeated(&self) -> bool {
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
        ]
        .contains(&self.code)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code.code())
    }
}
