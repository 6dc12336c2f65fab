//! The background work: renews used tokens ahead of time and idle pairs before their RefreshToken dies,
//! and follows what other processes commit.

use std::sync::Arc;
use std::time::Duration;

use super::renewals::{Ask, Probing, Reserve};
use crate::clock::Timestamp;
use crate::credentials::engine::Engine;
use crate::credentials::vault::repeated::repeated;
use crate::metrics::{StoreOperation, Trigger};
use crate::principal::Principal;
use crate::store::Generation;

/// How often the keeper looks around.
const ROUND: Duration = Duration::from_secs(60);
/// Idle pairs claimed in one round at most; no more than `renewals_per_second` lets this process renew.
const MOST_IDLE: usize = 1000;

/// An idle pair that could not be renewed is tried again after this time; so is one whose claimant died.
const CLAIMED_FOR: Duration = Duration::from_secs(3600);

/// Rejected logins of unknown users that are dropped in one round at most, and in one transaction.
const MOST_REJECTED: usize = 50_000;
const REJECTED_AT_ONCE: usize = 500;

/// Makes its rounds for as long as the engine lives.
pub(crate) async fn keep(engine: Arc<Engine>) {
    let started = (engine.vault.wall(), engine.clock.now());
    loop {
        engine.clock.sleep(ROUND).await;
        for due in engine.vault.cache.due_ahead() {
            if due.claim_ahead(engine.clock.now()) {
                start(&engine, &due.principal, Trigger::Ahead, due.generation);
            }
        }
        drop_rejected(&engine).await;
        if let Some(age) = engine.current.now().settings.keep_refresh_tokens {
            // Counted from the wall clock at the start, so that a jump of it renews no pair.
            let now = started.0.plus(engine.clock.now().since(started.1));
            renew_idle(&engine, now.minus(age)).await;
        }
    }
}

/// Drops unknown users whose rejected login is no longer remembered, a bounded number in a round.
async fn drop_rejected(engine: &Engine) {
    let now = engine.vault.wall();
    // As `remembered::holds` decides.
    let remembered = engine.current.now().settings.remember_rejected;
    let latest = now.plus(remembered.saturating_mul(2));
    for _ in 0..MOST_REJECTED / REJECTED_AT_ONCE {
        let dropped = engine
            .vault
            .store
            .drop_rejected(now, latest, REJECTED_AT_ONCE);
        match dropped.await {
            Ok(REJECTED_AT_ONCE) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "rejected logins cannot be dropped now");
                return;
            }
        }
    }
}

/// Starts renewals of idle pairs. What is claimed is not claimed again for a while, so that pairs that cannot
/// be renewed (without a RefreshToken, or damaged) do not stand before the others for ever.
async fn renew_idle(engine: &Arc<Engine>, received_before: Timestamp) {
    let vault = &engine.vault;
    let hold = engine.clock.to_real(CLAIMED_FOR);
    let share = (engine.guards.pace.per_second() * ROUND.as_secs_f64()) as usize;
    let most = share.clamp(1, MOST_IDLE);
    let due = repeated(|| vault.store.claim_due(received_before, most, hold)).await;
    let due = match vault.counted(StoreOperation::Scan, due) {
        Ok(due) => due,
        Err(error) => {
            tracing::warn!(%error, "the keeper cannot look for idle pairs");
            return;
        }
    };
    for principal in &due {
        renew(engine, principal).await;
    }
}

/// Refreshes the stored pair, whatever its age; never logs in.
async fn renew(engine: &Arc<Engine>, principal: &Principal) {
    let Ok(entry) = engine.vault.load(principal).await else {
        return;
    };
    // Its pair stays as it is until its instance is configured again.
    let instance = entry.known_instance();
    if instance.is_none_or(|instance| engine.current.has(instance)) {
        start(engine, principal, Trigger::Keep, entry.generation);
    }
}

/// Starts a renewal for a newer pair than the one of generation `than`, even if its token is fresh.
fn start(engine: &Arc<Engine>, principal: &Principal, trigger: Trigger, than: Generation) {
    let ask = Ask {
        instance: None,
        newer_than: Some(than),
        trigger,
        probing: Probing::No,
        reserve: Reserve::Open,
    };
    engine.join_or_start(principal, ask, None);
}
