//! What the supervisor is told while the proxy runs: that it serves, that its workers live, that it is
//! about to end.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::service::Service;
use crate::admin::Code;
use crate::server::{Pulse, Stage};
use crate::supervisor::Supervisor;

/// How much longer the supervisor waits for the end, each time that it is told.
const MORE: Duration = Duration::from_secs(15);
/// How often it is told.
const TOLD_EVERY: Duration = Duration::from_secs(3);
/// How often it is looked whether something is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Of the signs of life for which the supervisor waits, two may be lost.
const SIGNS: u32 = 3;

/// Tells the supervisor of one service.
pub(super) struct Supervision {
    supervisor: Supervisor,
    /// Whether the workers live.
    pulse: Pulse,
    stage: watch::Receiver<Stage>,
    /// What is told once it serves.
    status: String,
}

impl Supervision {
    /// Of this service, which is about to serve.
    pub(super) fn new(supervisor: Supervisor, service: &Service) -> Supervision {
        Supervision {
            supervisor,
            pulse: service.pulse(),
            stage: service.stage(),
            status: format!("serving on {}", service.places()),
        }
    }

    /// Tells the supervisor for as long as this is polled. `codes`: everything that is wrong now.
    pub(super) async fn tell(self, codes: impl AsyncFn() -> Vec<Code>) -> Infallible {
        self.supervisor.ready(&self.status).await;
        let telling = async {
            let mut stage = self.stage.clone();
            tokio::select! {
                never = self.tell_what_is_wrong(codes) => match never {},
                // If the sender is gone without a word, that is the end as well.
                _ = stage.wait_for(|stage| *stage > Stage::Serving) => {}
            }
            self.tell_the_end().await
        };
        tokio::select! {
            never = self.tell_that_it_lives() => never,
            never = telling => never,
        }
    }

    async fn tell_what_is_wrong(&self, codes: impl AsyncFn() -> Vec<Code>) -> Infallible {
        if !self.supervisor.is_there() {
            return std::future::pending().await;
        }
        loop {
            sleep(LOOK_EVERY).await;
            let codes: Vec<_> = codes().await.iter().map(Code::to_string).collect();
            let status = match codes.is_empty() {
                true => self.status.clone(),
                false => format!("{}; wrong: {}; see /readyz", self.status, codes.join(", ")),
            };
            self.supervisor.status(&status).await;
        }
    }

    async fn tell_that_it_lives(&self) -> Infallible {
        let Some(patience) = self.supervisor.watchdog() else {
            return std::future::pending().await;
        };
        let mut due = interval(patience / SIGNS);
        // A worker that hung and goes on has lived since just now.
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.pulse.beat().await;
            self.supervisor.alive().await;
        }
    }

    async fn tell_the_end(&self) -> Infallible {
        let mut stage = self.stage.clone();
        let mut due = interval(TOLD_EVERY);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                Ok(()) = stage.changed() => {}
            }
            let status = worded(*stage.borrow_and_update());
            self.supervisor.stopping(status, MORE).await;
        }
    }
}

fn worded(stage: Stage) -> &'static str {
    match stage {
        Stage::Serving | Stage::Leaving => {
            "draining: not ready any more, callers are told to go elsewhere"
        }
        Stage::Draining => "draining: no more connections are accepted, the answers under way end",
        Stage::Stopping => "stopping: the answers under way are cut off",
    }
}

#[cfg(test)]
mod tests;
