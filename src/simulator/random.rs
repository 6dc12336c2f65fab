//! Made-up ids.

use uuid::Uuid;

use crate::principal::DeviceToken;

/// A user that nobody ever asked for.
pub(super) fn random_device() -> DeviceToken {
    DeviceToken::parse(&random_id().to_string()).expect("a UUID is a DeviceToken")
}

/// An id that nobody else has. Nothing here is secret, so that the kernel need not be asked.
pub(super) fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
}
