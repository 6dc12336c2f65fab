//! Why a command ends early, and the exit code that tells it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::opening::StoreError;
use super::service::Error as StartError;
use crate::telemetry::episode::Chain;
use crate::{config, server, store, upstream};

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is refused.
    Config(config::Error),
    /// The configuration is valid, and of no use here.
    Unusable(String),
    /// The service cannot start.
    Service(StartError),
    /// A call to the store failed.
    Store(store::Error),
    /// The answer cannot be printed.
    Output(io::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// A failure of neither the configuration nor the store.
    pub fn other(error: impl Into<anyhow::Error>) -> Failure {
        Failure::Other(error.into())
    }

    /// What the process ends with.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Service(StartError::Store(error)) if error.is_away() => ExitCode::FAILURE,
            Failure::Store(store::Error::Away(_)) => ExitCode::FAILURE,
            Failure::Service(StartError::Store(_)) | Failure::Store(_) => {
                ExitCode::from(exit::STORE)
            }
            Failure::Config(_)
            | Failure::Unusable(_)
            | Failure::Service(
                StartError::Upstream(_)
                | StartError::Listen(server::Error::GroupUnknown(_) | server::Error::Inherited(_))
                | StartError::Aside {
                    source: server::Error::GroupUnknown(_) | server::Error::Inherited(_),
                    ..
                },
            ) => ExitCode::from(exit::CONFIG),
            // The reader has read enough.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Failure::Service(_) | Failure::Output(_) | Failure::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// The sentence, with all its causes.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Config(error) => f.write_str(&error.report()),
            Failure::Unusable(why) => f.write_str(why),
            Failure::Service(error) => write!(f, "{}", Chain(error)),
            Failure::Store(error) => write!(f, "{error}"),
            Failure::Output(error) => write!(f, "standard output cannot be written: {error}"),
            Failure::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        Failure::Config(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::Service(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Service(error.into())
    }
}

impl From<upstream::Invalid> for Failure {
    fn from(error: upstream::Invalid) -> Failure {
        Failure::Service(error.into())
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        Failure::Store(error)
    }
}

/// The exit codes of all commands. Those from 64 on have their
/// names in sysexits.h.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// A failure of the moment: the same may work later.
    pub const FAILURE: u8 = 1;
    /// Told apart from success by scripts: there is no such principal, or no store.
    pub const NOT_FOUND: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// `EX_USAGE`: the configuration is wrong.
    pub const CONFIG: u8 = 64;
    /// `EX_DATAERR`: some lines of the input are bad.
    pub const INPUT: u8 = 65;
    /// `EX_TEMPFAIL`: interrupted; what is done stays done.
    pub const INTERRUPTED: u8 = 75;
    /// `EX_CONFIG`: the store cannot be used as it is.
    pub const STORE: u8 = 78;
}
