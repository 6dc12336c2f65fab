//! `tokens forget`: drops a principal's tokens.

use std::process::ExitCode;

use super::NOT_FOUND;
use crate::cli::{Failure, print, say};
use crate::principal::Principal;
use crate::store::Store;

/// Drops the principal's tokens.
pub(super) async fn forget(store: &dyn Store, principal: &Principal) -> Result<ExitCode, Failure> {
    if store.forget(principal).await? {
        print(&format!("forgot {principal}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("nothing is known of {principal}"));
    Ok(ExitCode::from(NOT_FOUND))
}
