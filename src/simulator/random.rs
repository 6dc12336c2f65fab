//! Made-up ids.

use uuid::Uuid;

use crate::principal::DeviceToken;

/// A user that has not occurred before.
pub(super) fn random_device() -> DeviceToken {
    DeviceToken::parse(&random_id().to_string()).expect("a UUID is a DeviceToken")
}

/// An id that has not occurred before. Nothing here is secret, so that the kernel need not be asked.
pub(super) fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
}
