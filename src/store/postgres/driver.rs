//! The thread that everything about the server runs on: connections, groups, the feed. Callers may be on
//! any runtime, and some of theirs end before the store does.

use std::io;
use std::sync::{Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use crate::store::Error;

/// A thread with a runtime.
pub(super) struct Driver {
    runtime: Handle,
    /// Ends the thread when dropped; `None` once closed.
    open: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Driver {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Driver> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("store-postgres".to_owned())
            .spawn(move || {
                // It ends when its sender does.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Driver {
            runtime: handle,
            open: Mutex::new(Some((end, thread))),
        })
    }

    /// Runs `call` on the thread. Once begun it goes on even if its caller goes.
    pub(super) async fn run<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        match self.runtime.spawn(call).await {
            Ok(done) => done,
            // A panic was reported by its hook.
            Err(_) => Err(Error::Closed.into()),
        }
    }

    /// Does `last`, for which it waits no longer than `limit`, and ends the thread. Blocks until then.
    /// Does nothing the second time.
    pub(super) fn close(&self, last: impl Future<Output = ()> + Send + 'static, limit: Duration) {
        let open = self
            .open
            .lock()
            .expect("no code panics under this lock")
            .take();
        let Some((end, thread)) = open else {
            return;
        };
        let (done, finished) = mpsc::channel();
        self.runtime.spawn(async move {
            last.await;
            // The one that waits may have given up.
            let _ = done.send(());
        });
        // What is not done by then is found by those who take its leases.
        let _ = finished.recv_timeout(limit);
        drop(end);
        // A panic of the thread was reported by its hook.
        let _ = thread.join();
    }
}
