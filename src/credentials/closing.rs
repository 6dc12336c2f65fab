//! How far the end of the process has come, and waits that end with it.

use tokio::sync::watch;

use super::Error;

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    /// The process goes on.
    NotYet,
    /// Whatever waits gives up; pairs that were received are stored.
    Begun,
    /// A pair that cannot be stored now is lost.
    LastAttempt,
}

/// Says how far it has come. Its owner is the engine.
#[derive(Debug)]
pub(crate) struct Closer(watch::Sender<Closing>);

/// Sees how far it has come.
#[derive(Clone, Debug)]
pub(crate) struct ClosingWatch(watch::Receiver<Closing>);

impl Closer {
    pub(crate) fn new() -> Closer {
        Closer(watch::Sender::new(Closing::NotYet))
    }

    /// The end has come as far as `closing`.
    pub(crate) fn advance(&self, closing: Closing) {
        self.0.send_replace(closing);
    }

    pub(crate) fn watch(&self) -> ClosingWatch {
        ClosingWatch(self.0.subscribe())
    }
}

impl ClosingWatch {
    /// Whether the end has come as far as `closing`.
    pub(crate) fn has_reached(&self, closing: Closing) -> bool {
        *self.0.borrow() >= closing
    }

    /// Returns once the end has come as far as `closing`.
    pub(crate) async fn reaches(&mut self, closing: Closing) {
        let reached = self.0.wait_for(|now| *now >= closing).await.is_ok();
        if !reached {
            // The engine is gone, and with it whatever could close.
            std::future::pending().await
        }
    }

    /// Waits for `this` unless the process closes.
    pub(crate) async fn unless_closing<T>(
        &self,
        this: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let mut closing = self.clone();
        tokio::select! {
            done = this => Ok(done),
            () = closing.reaches(Closing::Begun) => Err(Error::Closing),
        }
    }
}
