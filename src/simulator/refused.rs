//! Why a call with a good token has no result.

use http::StatusCode;

/// The status and the message of the answer instead.
pub(super) struct Refused(pub(super) StatusCode, pub(super) &'static str);
