//! How a session ends before both ends have said all they had to say, and what they are told. Pure.

use std::io;

use http::StatusCode;
use serde_json::json;

use super::direction::Broken;
use super::frames::CloseCode;
use crate::error::Error;
use crate::naming;

/// Why it ends.
#[derive(Debug)]
pub(super) enum End {
    /// The process is shutting down.
    Draining,
    /// Nothing moved for too long.
    Silent,
    /// One end broke off, or said what is not WebSocket.
    Broken(Broken),
    /// Upstream ended it.
    Upstream,
    /// There is no token for the caller.
    Refused(Error),
    /// The caller did not authenticate in time.
    Late,
    /// The caller's first message is too long.
    TooLong,
    /// The caller's first message is no text.
    Binary,
}

impl From<Broken> for End {
    fn from(broken: Broken) -> End {
        End::Broken(broken)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Broken(error.into())
    }
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Refused(error)
    }
}

/// What both ends are told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Goodbye {
    /// A text message to the caller, in the API's form.
    pub(super) error: Option<Vec<u8>>,
    /// The code of a Close (RFC 6455 §7.4.1).
    pub(super) to_caller: Option<CloseCode>,
    /// Likewise.
    pub(super) to_upstream: Option<CloseCode>,
}

impl End {
    pub(super) fn goodbye(&self) -> Goodbye {
        let (error, to_caller) = match self {
            End::Broken(Broken::Io(_)) | End::Upstream => return Goodbye::default(),
            End::Draining | End::Silent => (None, CloseCode::Away),
            End::Broken(Broken::Frame) => (None, CloseCode::Protocol),
            End::Late => (None, CloseCode::Policy),
            End::TooLong => (None, CloseCode::Size),
            End::Binary => (None, CloseCode::Unsupported),
            // Upstream's direction stands within a message; its connection alone ends.
            End::Broken(Broken::OwnToken) => {
                let error = Error::from(naming::Error::BearerOurs);
                return Goodbye {
                    error: Some(message(&error)),
                    to_caller: Some(code(error.refusal().status)),
                    to_upstream: None,
                };
            }
            End::Refused(error) => (Some(message(error)), code(error.refusal().status)),
        };
        Goodbye {
            error,
            to_caller: Some(to_caller),
            to_upstream: Some(CloseCode::Away),
        }
    }
}

/// What the caller is told where a request would have got an answer.
fn message(error: &Error) -> Vec<u8> {
    let refusal = error.refusal();
    let message = json!({
        "type": "error",
        "code": refusal.status.as_u16(),
        "message": format!("{}: {error}", refusal.code),
    });
    message.to_string().into_bytes()
}

fn code(status: StatusCode) -> CloseCode {
    match status {
        status if status.is_client_error() => CloseCode::Policy,
        StatusCode::SERVICE_UNAVAILABLE => CloseCode::Again,
        _ => CloseCode::Error,
    }
}
