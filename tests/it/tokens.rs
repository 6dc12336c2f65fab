//! The life of tokens, fault by fault: one test for each thing that can go wrong between the
//! proxy, Damoov and the store. What counts is what crossed the wire.

use std::time::Duration;

use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{Action, Fault, On, Simulator};

use crate::harness::{Answer, Builder, Proxy, SCORES, damoov_with, principal, proxy, user};

// Patience with a host, and with one user, after calls that failed.
mod back_off;
// What keeps logins in bounds: the budget, the block, the negative cache, the breaker.
mod budget_and_blocks;
// Time that jumps, and time that is bought with an old token.
mod clocks;
// Rejections that somebody else causes: a phone app, a broken deploy, rotated keys.
mod contested_and_mass;
// Answers that the API should never give.
mod damoov_misbehaves;
// Several proxies on one store.
mod fleet;
// Stores that earlier versions left.
mod formats;
// What is left of who was forgotten.
mod forgotten;
// Several instances behind one proxy.
mod instances;
// Replacing the key of the store.
mod keys;
// Who gets the next login slot, and who waits no longer.
mod login_queue;
// Mass rejections over restarts, processes, deploys that come and go, a restored backup.
mod mass_rejection;
// Callers, processes and answers that vanish in the middle of a renewal.
mod renewal_faults;
// Between the proxy and the C library: clocks that jump, media that fail.
mod shim;
pub use shim::Shim;
// Media and files that fail.
mod store_faults;
pub use store_faults::Disk;
// Users that nobody names any more.
mod unused;

/// A proxy whose login budget is out of the way.
fn roomy(damoov: &Simulator) -> Builder {
    proxy(damoov).set("login_budget.logins", "100000")
}

/// Damoov that answers a refresh that is sent again with the same new pair.
async fn forgiving() -> Simulator {
    damoov_with(|settings| {
        settings.login_limit = None;
        settings.refresh.grace = Duration::from_secs(600);
    })
    .await
}

/// A Damoov for which `scale` seconds pass in every real one.
async fn fast_damoov(scale: u32) -> Simulator {
    damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = Clock::scaled(scale);
    })
    .await
}

/// A proxy with the same clock, and time for calls that take no less than before.
fn fast(damoov: &Simulator, scale: u32) -> Builder {
    roomy(damoov)
        .scaled(scale)
        .set("renewal.timeout", "1h")
        .set("renewal.wait", "1h")
}

/// Logs the users in, then starts Damoov's counts over.
async fn log_in(damoov: &Simulator, proxy: &Proxy, users: impl IntoIterator<Item = usize>) {
    for number in users {
        served(&proxy.get(number, SCORES).await, number);
    }
    damoov.handle().reset();
}

/// A good answer, given with this user's own token.
#[track_caller]
fn served(answer: &Answer, number: usize) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.served_as(), user(number).to_string());
}

/// The proxy's own refusal.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (status, code),
        "{}",
        answer.text()
    );
}

/// How long a refusal asks to wait, in seconds.
#[track_caller]
fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").parse().expect("Retry-After")
}

/// All calls of Login and of RefreshToken that this user caused since the counts started over.
fn calls(damoov: &Simulator, number: usize) -> (u64, u64) {
    let count = damoov.handle().counts_of(&principal(number));
    (count.logins.all(), count.refreshes.all())
}

/// Adds a fault.
fn fault(damoov: &Simulator, on: On, action: Action) {
    damoov.handle().add_fault(Fault::new(on, action));
}

/// Adds a fault that strikes once.
fn fault_once(damoov: &Simulator, on: On, action: Action) {
    damoov.handle().add_fault(Fault::new(on, action).times(1));
}
