//! How much of a machine and of its time a test takes.

use rustix::process::{Resource, Rlimit};
use tokio::sync::{Mutex, MutexGuard};

/// How often a test repeats what it repeats: `once` in `tests/run`, `long` in `tests/run long`.
pub fn rounds(once: usize, long: usize) -> usize {
    match std::env::var("DAMOOV_PROXY_TESTS").as_deref() {
        Ok("long") => long,
        _ => once,
    }
}

/// Held by tests that fill the machine, so that they take turns.
pub async fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Lets this process and those that it starts open as many descriptors as they may.
pub fn allow_many_descriptors() {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
}
