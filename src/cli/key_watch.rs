//! Whether this proxy has the keys of a store that others share. One that lacks them serves the users whose
//! records it can open, and refuses the others: an operator has to hear of that.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::credentials::canary::{self, Unverified};
use crate::credentials::seal::Ring;
use crate::store::{self, Store};

/// The task that watches. Dropping it ends it.
pub(super) struct KeyWatch(JoinHandle<()>);

/// How often the canary is opened.
const CANARY_EVERY: Duration = Duration::from_secs(60);
/// How often all records are counted by key, and how often the same alarm is raised.
const RECORDS_EVERY: Duration = Duration::from_secs(60 * 60);
/// How often they are counted after an alarm: only a look at all of them says that it is over.
const RECORDS_AGAIN: Duration = Duration::from_secs(10 * 60);
/// How soon a store that is away is asked again.
const AWAY_EVERY: Duration = Duration::from_secs(1);

impl KeyWatch {
    /// Watches until the store is closed.
    pub(super) fn start(store: &Arc<dyn Store>, ring: Ring) -> KeyWatch {
        let watch = watch(Arc::downgrade(store), ring);
        KeyWatch(tokio::spawn(watch))
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch(store: Weak<dyn Store>, ring: Ring) {
    let mut counted: Option<Instant> = None;
    let mut alarmed: Option<Instant> = None;
    while let Some(store) = store.upgrade() {
        let count = is_due(
            counted,
            match alarmed {
                None => RECORDS_EVERY,
                Some(_) => RECORDS_AGAIN,
            },
        );
        let pause = match check(&*store, &ring, count).await {
            Ok(()) => {
                if count && alarmed.take().is_some() {
                    tracing::info!("this proxy has the keys of the store again");
                }
                CANARY_EVERY
            }
            Err(Unverified::Store(store::Error::Closed)) => return,
            Err(Unverified::Store(_)) => AWAY_EVERY,
            Err(error) => {
                if is_due(alarmed, RECORDS_EVERY) {
                    tracing::error!(
                        %error,
                        "this proxy refuses the users whose records it cannot open; others serve them"
                    );
                    alarmed = Some(Instant::now());
                }
                CANARY_EVERY
            }
        };
        if count && pause == CANARY_EVERY {
            counted = Some(Instant::now());
        }
        drop(store);
        sleep(pause).await;
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= every)
}

async fn check(store: &dyn Store, ring: &Ring, count: bool) -> Result<(), Unverified> {
    canary::verify(ring, store).await?;
    if count {
        canary::check_records(ring, &store.keys().await?)?;
    }
    Ok(())
}
