//! What the server is to do, and how signals lead from one stage to the next.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Times;
use crate::reload::{Reloads, Trigger};
use crate::signals::{Asks, Caught};

/// A signal that changes nothing is logged again only after this.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accept and answer.
    Serving,
    /// Accept and answer, but be not ready and close each connection behind its answer: callers are
    /// to go elsewhere.
    Leaving,
    /// Accept nothing more; end the answers under way.
    Draining,
    /// Cut the answers off.
    Stopping,
}

/// The stage, and what began the end.
#[derive(Clone, Debug)]
pub struct Ending {
    /// What the server is to do.
    pub stage: watch::Receiver<Stage>,
    /// Set before the stage is no longer [`Stage::Serving`].
    pub begun: Arc<OnceLock<Begun>>,
}

/// What began the end.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The signal.
    pub signal: String,
    /// When it came.
    pub at: Instant,
}

impl Ending {
    /// An end that the holder of the sender begins.
    pub fn by_hand() -> (watch::Sender<Stage>, Ending) {
        let (sender, stage) = watch::channel(Stage::Serving);
        let begun = Arc::default();
        (sender, Ending { stage, begun })
    }

    /// Follows these signals, on the current runtime. SIGTERM makes callers leave for `drain_delay`
    /// and then drains; SIGINT drains at once; a second one of either stops. Until then SIGHUP asks for a
    /// reload.
    pub fn by_signals(
        caught: mpsc::UnboundedReceiver<Caught>,
        times: watch::Receiver<Times>,
        reloads: Reloads,
    ) -> (Ending, impl Future<Output = ()> + Send + 'static) {
        let (sender, ending) = Ending::by_hand();
        let follower = Follower {
            stage: sender,
            begun: ending.begun.clone(),
            times,
            reloads,
            leaves_until: None,
            told: HashMap::new(),
        };
        (ending, follower.follow(caught))
    }

    /// Returns once the end has begun.
    pub async fn begins(&mut self) {
        // If the sender is gone without a word, that is the end as well.
        let _ = self.stage.wait_for(|stage| *stage > Stage::Serving).await;
    }
}

/// Leads from stage to stage as signals ask for it. Acts before it logs: a log that takes no lines
/// holds up nothing.
struct Follower {
    stage: watch::Sender<Stage>,
    begun: Arc<OnceLock<Begun>>,
    /// Among them, how long callers have, after SIGTERM, to go elsewhere.
    times: watch::Receiver<Times>,
    /// Asked when a signal asks to read the configuration again.
    reloads: Reloads,
    /// Until when they have it, once it was asked for.
    leaves_until: Option<Instant>,
    /// When each signal that changes nothing was last logged.
    told: HashMap<String, Instant>,
}

impl Follower {
    async fn follow(mut self, mut caught: mpsc::UnboundedReceiver<Caught>) {
        loop {
            let leaves_until = self.leaves_until;
            let left = async {
                match leaves_until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                signal = caught.recv() => match signal {
                    Some(signal) => self.caught(signal),
                    None => return,
                },
                () = left => {
                    self.leaves_until = None;
                    self.stage.send_replace(Stage::Draining);
                    tracing::info!("no more connections are accepted; the answers under way end");
                }
            }
        }
    }

    fn caught(&mut self, signal: Caught) {
        let name = signal.name();
        match signal.asks() {
            Asks::ToEnd | Asks::ToEndNow if self.begun.get().is_some() => self.stop(&name),
            Asks::ToEnd => {
                let drain_delay = self.times.borrow().drain_delay;
                self.end(&name, drain_delay);
            }
            Asks::ToEndNow => self.end(&name, Duration::ZERO),
            Asks::ToReload if self.begun.get().is_some() => {
                if self.is_to_be_told(&name) {
                    tracing::info!(
                        signal = %name,
                        "the process is about to end: the configuration is not read again"
                    );
                }
            }
            Asks::ToReload => self.reloads.request(Trigger::Signal),
            Asks::Nothing => {
                if self.is_to_be_told(&name) {
                    tracing::info!(signal = %name, "this signal is ignored");
                }
            }
        }
    }

    /// The end begins; callers have `delay` to go elsewhere.
    fn end(&mut self, signal: &str, delay: Duration) {
        let at = Instant::now();
        self.begun.get_or_init(|| Begun {
            signal: signal.to_owned(),
            at,
        });
        if delay.is_zero() {
            self.stage.send_replace(Stage::Draining);
            tracing::info!(
                signal = %signal,
                "draining: no more connections are accepted; the answers under way end"
            );
        } else {
            self.stage.send_replace(Stage::Leaving);
            self.leaves_until = Some(at + delay);
            tracing::info!(
                signal = %signal,
                drain_delay_seconds = delay.as_secs_f64(),
                "draining: not ready any more; connections are accepted until drain_delay is over"
            );
        }
    }

    /// The end is asked for a second time.
    fn stop(&mut self, signal: &str) {
        self.leaves_until = None;
        if self.stage.send_replace(Stage::Stopping) < Stage::Stopping {
            tracing::warn!(
                signal = %signal,
                "a second signal: the answers under way are cut off"
            );
        }
    }

    /// Whether it is long enough ago that this signal, which changes nothing, was last logged.
    fn is_to_be_told(&mut self, signal: &str) -> bool {
        let now = Instant::now();
        let last = self.told.get(signal);
        if last.is_some_and(|last| now - *last < TOLD_AGAIN) {
            return false;
        }
        self.told.insert(signal.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stages that these signals lead to, each with the seconds until then.
    async fn stages(delay: u64, signals: &[(u64, Caught)]) -> Vec<(Stage, u64)> {
        let (sender, caught) = mpsc::unbounded_channel();
        let (_, times) = watch::channel(Times {
            drain_delay: Duration::from_secs(delay),
            drain_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
        });
        let reloads = Reloads::unanswered("x.toml");
        let (mut ending, following) = Ending::by_signals(caught, times, reloads);
        let started = Instant::now();
        let following = tokio::spawn(following);
        let mut seen = Vec::new();
        let sending = async {
            for (at, signal) in signals {
                sleep_until(started + Duration::from_secs(*at)).await;
                sender.send(*signal).unwrap();
            }
            sleep_until(started + Duration::from_secs(60)).await;
            drop(sender);
        };
        let watching = async {
            while ending.stage.changed().await.is_ok() {
                let stage = *ending.stage.borrow_and_update();
                seen.push((stage, started.elapsed().as_secs()));
            }
        };
        tokio::join!(sending, watching);
        following.await.unwrap();
        assert_eq!(ending.begun.get().is_some(), !seen.is_empty());
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn sigterm_waits_and_sigint_does_not_and_a_second_one_stops() {
        use Stage::{Draining, Leaving, Stopping};
        let (term, int) = (Caught::TERM, Caught::INT);
        for (delay, signals, expected) in [
            (5, &[(1, term)][..], &[(Leaving, 1), (Draining, 6)][..]),
            (0, &[(1, term)], &[(Draining, 1)]),
            (5, &[(1, int)], &[(Draining, 1)]),
            (5, &[(1, term), (2, term)], &[(Leaving, 1), (Stopping, 2)]),
            (5, &[(1, term), (3, int)], &[(Leaving, 1), (Stopping, 3)]),
            (5, &[(1, int), (9, term)], &[(Draining, 1), (Stopping, 9)]),
            (
                5,
                &[(1, term), (8, term)],
                &[(Leaving, 1), (Draining, 6), (Stopping, 8)],
            ),
            (5, &[(1, Caught::HUP), (2, Caught::USR1)], &[]),
        ] {
            assert_eq!(stages(delay, signals).await, expected, "{signals:?}");
        }
    }
}
