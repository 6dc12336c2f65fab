//! `tokens forget`: drops a principal's tokens.

use std::process::ExitCode;
use std::time::Duration;

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
        bury(open, principal).await?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("nothing is known of {principal}"));
    Ok(ExitCode::from(exit::NOT_FOUND))
}

/// Proxies on this machine hear of a change within this time.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Leaves no DeviceToken in the tombstone. On a store that other machines share the proxies do that, once
/// all of them have heard of it.
async fn bury(open: &OpenStore, principal: &Principal) -> Result<(), Failure> {
    let pseudonym = open.ring.pseudonyms(principal).into_iter().next();
    let Some(pseudonym) = pseudonym.filter(|_| !open.store.condition().shared) else {
        return Ok(());
    };
    tokio::time::sleep(HEARD_WITHIN).await;
    let moved = vec![(principal.clone(), pseudonym)];
    Ok(open.store.move_tombstones(moved).await.map(drop)?)
}
