//! Whom a command is about: one principal of a store.

use clap::Args;

use crate::principal::{DeviceToken, Principal};

/// One principal of a store.
#[derive(Debug, Args)]
pub struct Who {
    /// A DeviceToken, or account:NAME
    #[arg(value_name = "WHO", value_parser = principal)]
    pub(super) principal: Principal,
}

/// Reads a principal as people write it.
pub(super) fn principal(text: &str) -> Result<Principal, String> {
    match DeviceToken::parse(text) {
        Ok(token) => Ok(Principal::User(token)),
        Err(error) => Principal::parse(text).ok_or_else(|| error.to_string()),
    }
}
