//! Whether the workers live: each of them answers when it is asked. One that hangs, in a loop or in a call
//! that blocks its thread, does not.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

/// Asks every worker for a sign of life.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    workers: Arc<Mutex<Vec<mpsc::UnboundedSender<oneshot::Sender<()>>>>>,
}

/// The worker's side.
#[derive(Debug)]
pub(super) struct Heart(mpsc::UnboundedReceiver<oneshot::Sender<()>>);

impl Pulse {
    /// Returns once every worker has answered that has not ended by then.
    pub async fn beat(&self) {
        let ask = |worker: &mpsc::UnboundedSender<_>| {
            let (answer, answered) = oneshot::channel();
            // Refused by a worker that has ended, which drops the question as well.
            let _ = worker.send(answer);
            answered
        };
        let asked: Vec<_> = {
            let workers = self.workers.lock().expect("no code panics under this lock");
            workers.iter().map(ask).collect()
        };
        join_all(asked).await;
    }

    /// One more worker.
    pub(super) fn heart(&self) -> Heart {
        let (asking, asked) = mpsc::unbounded_channel();
        let mut workers = self.workers.lock().expect("no code panics under this lock");
        workers.push(asking);
        Heart(asked)
    }
}

impl Heart {
    /// Answers on the current thread until this is dropped.
    pub(super) async fn answer(mut self) {
        while let Some(answer) = self.0.recv().await {
            // Nobody waits any more.
            let _ = answer.send(());
        }
    }
}
