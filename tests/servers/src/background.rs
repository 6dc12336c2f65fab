//! The runtime of this crate: on a thread apart from the test's, which may block or pause its clock.

use std::future::{self, Future};
use std::panic;
use std::sync::{LazyLock, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

static RUNTIME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("descriptors for a runtime");
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(future::pending::<()>()));
    handle
});

/// Starts a task that nobody has to wait for.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    RUNTIME.spawn(task)
}

/// Waits for a task; its panic comes out here.
pub(crate) async fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    let ended = RUNTIME.spawn(task).await;
    ended.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
}

/// Does what blocks on another thread, and waits for it without blocking this one.
pub(crate) async fn unblocked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let ended = RUNTIME.spawn_blocking(work).await;
    ended.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
}

/// Blocks this thread, which may be one of a runtime, until the task has ended.
pub(crate) fn wait<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    RUNTIME.spawn(async move {
        let _ = sender.send(task.await);
    });
    receiver.recv().expect("the task did not panic")
}

/// Does this in the context of the runtime, where sockets may be made.
pub(crate) fn enter<T>(work: impl FnOnce() -> T) -> T {
    let _guard = RUNTIME.enter();
    work()
}
