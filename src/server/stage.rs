//! What the server is to do, and the signals that say so.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accept and answer.
    Serving,
    /// Accept nothing more; end the answers under way.
    Draining,
    /// Stop at once.
    Stopping,
}

/// The first SIGTERM or SIGINT drains, the second one stops. Returns after the second.
pub async fn follow_signals(stage: &watch::Sender<Stage>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for next in [Stage::Draining, Stage::Stopping] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(stage = ?next, "a signal came");
        stage.send_replace(next);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_stops() {
        let (stage, mut watched) = watch::channel(Stage::Serving);
        // Polled once before the signals are sent: until then they would kill the process.
        let mut following = Box::pin(follow_signals(&stage));
        let pending = poll_fn(|cx| Poll::Ready(following.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        let asking = async {
            for (asked, expected) in [
                (Signal::TERM, Stage::Draining),
                (Signal::INT, Stage::Stopping),
            ] {
                kill_process(getpid(), asked).unwrap();
                watched.changed().await.unwrap();
                assert_eq!(*watched.borrow_and_update(), expected);
            }
        };
        let (followed, ()) = tokio::join!(following, asking);
        followed.unwrap();
    }
}
