//! Probes, which find out whether the API works again while logins are suspended, and whether rejected
//! pairs are only too old. All processes on one store share them: one probe is due, and one process
//! makes it.

use std::sync::Arc;
use std::time::Duration;

use super::renewals::{Ask, Probing, Reserve};
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::mass_rejection::{PROBE_PATIENCE, Probe};
use crate::metrics::Trigger;
use crate::principal::Principal;
use crate::store::Note;

/// How often the guard looks at what other processes found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While nothing is wrong, on a store that other machines share, it looks this many times less often.
const CALM: u32 = 5;
/// However fast the clock of a test is, it looks no more often than this in real time.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(20);

/// A renewal that callers started may be in the way of a probe. Then the probe waits for it, this often,
const JOINED: usize = 3;
/// and this long in real time.
const SHORT: Duration = Duration::from_millis(500);

/// Looks after the guard against mass rejections for as long as the engine lives.
pub(crate) async fn try_the_api(engine: Arc<Engine>) {
    let often = engine.clock.to_real(LOOK_EVERY).max(LOOK_AT_MOST_EVERY);
    loop {
        if let Err(error) = look_after(&engine).await {
            tracing::debug!(%error, "the guard against mass rejections cannot be looked after");
        }
        let is_calm = engine.guards.mass_rejection.is_calm();
        let every = match is_calm && engine.vault.store.condition().shared {
            // Up to a fifth later, so that many processes do not look together.
            true => (often * CALM).mul_f64(1.0 + fastrand::f64() / 5.0),
            false => often,
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = engine.guards.mass_rejection.woken() => {}
        }
    }
}

async fn look_after(engine: &Arc<Engine>) -> Result<(), Error> {
    let guard = &engine.guards.mass_rejection;
    guard.follow().await?;
    engine.withdraw(&guard.to_withdraw()).await?;
    match guard.claim_probe().await? {
        None => Ok(()),
        Some(Probe::Refresh(principal)) => probe(engine, &principal, Probing::ByRefresh).await,
        Some(Probe::LogIn(principal)) => probe(engine, &principal, Probing::ByLogin).await,
    }
}

/// Starts a renewal of the stored pair, whatever its age.
async fn probe(engine: &Arc<Engine>, principal: &Principal, probing: Probing) -> Result<(), Error> {
    let entry = engine.vault.load(principal).await?;
    if entry.record.is_none() {
        return Ok(engine.guards.mass_rejection.no_witness(principal).await?);
    }
    let (trigger, patience) = match probing {
        Probing::No | Probing::ByRefresh => (Trigger::Keep, None),
        Probing::ByLogin => {
            let patience = engine.clock.now().plus(PROBE_PATIENCE);
            (Trigger::Asked, Some(patience))
        }
    };
    let ask = Ask {
        instance: None,
        newer_than: Some(entry.generation),
        trigger,
        probing,
        reserve: Reserve::Open,
    };
    for _ in 0..JOINED {
        let renewal = engine.join_or_start(principal, ask.clone(), patience);
        if renewal.ask.probing == probing {
            break;
        }
        // A renewal that only finds out that logins are suspended ends at once.
        let within = tokio::time::timeout(SHORT, renewal.ended());
        let _ = within.await;
    }
    Ok(())
}

impl Engine {
    /// Withdraws the notes that the pairs of these principals are dead: the API is at fault.
    pub(crate) async fn withdraw(&self, all: &[Principal]) -> Result<(), Error> {
        if all.is_empty() {
            return Ok(());
        }
        for principal in all {
            self.vault.note(principal, Note::RefreshAlive).await?;
        }
        Ok(self.guards.mass_rejection.withdrew().await?)
    }
}
