//! Whether the store is here or away, as everybody who calls it needs to know without asking it.
//!
//! ```text
//!            a write of upkeep's failed
//!     here ─────────────────────────────▶ away, since when and why
//!          ◀─────────────────────────────
//!            one was committed
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::store::Error;

/// When the store last came back, or was found to be another server: what was acknowledged before may be
/// gone. `None` until it first is; changes each time.
pub(super) type Arrival = watch::Receiver<Option<Instant>>;

/// Where the store is, for many tasks at once.
pub(super) struct Presence {
    state: watch::Sender<State>,
    /// Told when a call or a connection failed: somebody should look.
    suspicion: Arc<Notify>,
}

enum State {
    Here,
    Away(Absence),
}

/// Why and since when the store is away.
#[derive(Clone, Debug)]
pub(super) struct Absence {
    pub(super) since: SystemTime,
    pub(super) why: String,
    reach: Reach,
    began: Instant,
}

/// What still works while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing.
    Nothing,
    /// The server answers and refuses writes, because its disk is full for instance: what is only read
    /// is found there.
    Reads,
}

/// A store that has been away for longer is not waited for: calls fail at once.
const PATIENCE: Duration = Duration::from_secs(2);

impl Presence {
    pub(super) fn new() -> Presence {
        Presence {
            state: watch::Sender::new(State::Here),
            suspicion: Arc::default(),
        }
    }

    /// Waits until the store answers.
    ///
    /// Errors: it has been away for a while.
    pub(super) async fn here(&self) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Here => return Ok(()),
                State::Away(absence) if absence.reach == Reach::Reads => return Ok(()),
                State::Away(absence) if absence.began.elapsed() >= PATIENCE => {
                    return Err(Error::Away(absence.why.clone()));
                }
                State::Away(_) => {}
            }
            if state.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Why the store is away; `None` while it is here.
    pub(super) fn absence(&self) -> Option<Absence> {
        match &*self.state.borrow() {
            State::Here => None,
            State::Away(absence) => Some(absence.clone()),
        }
    }

    /// The store was found to be away.
    pub(super) fn leave(&self, why: String, reach: Reach) {
        self.state.send_modify(|state| match state {
            State::Away(absence) => {
                absence.why = why;
                absence.reach = reach;
            }
            State::Here => {
                *state = State::Away(Absence {
                    since: SystemTime::now(),
                    why,
                    reach,
                    began: Instant::now(),
                });
            }
        });
    }

    /// The store was found to be here.
    pub(super) fn arrive(&self) {
        self.state.send_replace(State::Here);
    }

    /// Something failed that may mean that the store is away.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// What is told of suspicions.
    pub(super) fn suspicion(&self) -> Arc<Notify> {
        self.suspicion.clone()
    }
}
