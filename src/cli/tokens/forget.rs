//! `tokens forget`: drops a principal's tokens.

use std::process::ExitCode;

use crate::cli::opening::OpenStore;
use crate::cli::output::user_id;
use crate::cli::{Failure, exit, print, say};
use crate::principal::Principal;

/// Drops the principal's tokens.
pub(super) async fn forget(open: &OpenStore, principal: &Principal) -> Result<ExitCode, Failure> {
    if open.store.forget(principal).await? {
        let log_name = open.ring.log_name(principal);
        tracing::info!(target: "audit", principal = %log_name, uid = user_id(), "forget");
        print(&format!("forgot {principal}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("nothing is known of {principal}"));
    Ok(ExitCode::from(exit::NOT_FOUND))
}
