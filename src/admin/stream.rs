//! Event streams: the newest events of the log, then what comes, and the state once a second. A reader is
//! asked what it has not seen when its connection takes more, so that one that stops reading costs no memory:
//! its connection ends in time, and others miss nothing.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::connections::Answering;
use crate::server::Stage;
use crate::telemetry::recent;

/// The most streams at a time.
pub(super) const MOST: usize = 32;

/// What a stream tells, piece by piece.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    free: Arc<Semaphore>,
    /// The newest state, as it is sent.
    states: watch::Sender<Bytes>,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams {
            free: Arc::new(Semaphore::new(MOST)),
            states: watch::Sender::new(Bytes::new()),
        }
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        MOST - self.free.available_permits()
    }

    /// A place for one more; `None` if there are [`MOST`].
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// Tells each the state.
    pub(super) fn tell(&self, state: &impl Serialize) {
        let state = serde_json::to_string(state).expect("strings, numbers and lists are JSON");
        self.states
            .send_replace(format!("event: state\ndata: {state}\n\n").into());
    }

    /// A stream at this place, of a process at this stage. `answering` ends with it.
    pub(super) fn start(
        &self,
        place: OwnedSemaphorePermit,
        answering: Answering,
        events: recent::Reader,
        stage: watch::Receiver<Stage>,
    ) -> Pieces {
        let reader = Reader {
            events,
            stage,
            states: self.states.subscribe(),
            is_over: false,
            _place: place,
            _answering: answering,
        };
        Box::pin(stream::unfold(reader, Reader::next))
    }
}

/// One stream.
struct Reader {
    events: recent::Reader,
    stage: watch::Receiver<Stage>,
    states: watch::Receiver<Bytes>,
    /// Nothing follows: its end has been told.
    is_over: bool,
    _place: OwnedSemaphorePermit,
    /// Its connection is in use: it does not give way to a probe as an idle one does.
    _answering: Answering,
}

impl Reader {
    /// The next piece, once there is one; `None` after the end.
    async fn next(mut self) -> Option<(Bytes, Reader)> {
        if self.is_over {
            return None;
        }
        let piece = tokio::select! {
            biased;
            _ = self.stage.wait_for(|stage| *stage >= Stage::Draining) => None,
            events = self.events.next() => {
                let pieces = events.iter().map(|event| format!("event: event\ndata: {event}\n\n"));
                Some(pieces.collect::<String>().into())
            }
            changed = self.states.changed() => match changed {
                Ok(()) => Some(self.states.borrow_and_update().clone()),
                Err(_) => None,
            },
        };
        self.is_over = piece.is_none();
        let piece = piece.unwrap_or(Bytes::from_static(b"event: end\ndata: {}\n\n"));
        Some((piece, self))
    }
}
