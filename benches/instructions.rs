//! Instructions of a whole exchange through the proxy, counted by Valgrind: unlike times, they are
//! the same on a busy machine. Caller, proxy and API are one process, connected in memory; what is
//! counted is everything that all its threads do, the store's and the access log's included.
//!
//! ```sh
//! benches/budget
//! ```
//!
//! Each count is that of 1,000 exchanges: divide by 1,000. The command fails where one is beyond its
//! budget. Callgrind starts the count of the main thread anew when the exchanges begin; what the
//! store's and the log's threads did until then is within the counts, and less than 1 % of them.

#![allow(missing_docs, reason = "what gungraun's macros make is public")]

#[allow(dead_code, reason = "the other bench uses the rest")]
#[path = "in_memory/wiring.rs"]
mod wiring;

#[path = "in_memory/exchange.rs"]
mod exchange;

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint, EventKind};
use tempfile::TempDir;

use exchange::{Call, Exchanges};
use wiring::user;

/// Exchanges of one count.
const EXCHANGES: usize = 1000;
/// Exchanges before the count starts: connections are open, memory is allocated, statements are
/// prepared.
const WARM: usize = 10;

/// What an exchange may cost, in instructions: 8 % more than it did when this was set, with the
/// release profile, on x86-64 with AVX2 and Valgrind 3.19. Runs differ by 0.2 %. Who makes one
/// dearer, and means to, raises its budget in the same commit to 8 % above the new count, and says
/// there what the instructions buy; who makes one cheaper lowers it likewise.
mod budget {
    /// Caller and API alone, who are within all the others.
    pub(super) const STRAIGHT: usize = 4_990;
    pub(super) const HIT: usize = 36_800;
    pub(super) const MISS: usize = 120_600;
    /// Its line in the audit log included.
    pub(super) const RENEWAL: usize = 456_100;
}

/// Counts from [`from_here`] to the end of the process.
fn counted(budget: usize) -> LibraryBenchmarkConfig {
    let limit = u64::try_from(budget * EXCHANGES).expect("far less");
    let mut callgrind = Callgrind::with_args(["--zero-before=*from_here*", "--trace-children=no"]);
    callgrind
        .entry_point(EntryPoint::None)
        .hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[inline(never)]
fn from_here(exchanges: Exchanges) -> Exchanges {
    black_box(exchanges)
}

fn straight_calls() -> Exchanges {
    let calls = |count| (0..count).map(|_| Call::straight(user(0))).collect();
    Exchanges::straight(user(0), calls(WARM), calls(EXCHANGES))
}

/// The first call reads the token from the store; the others find it in memory.
fn hits() -> Exchanges {
    let first = Call::with_stored_token(user(0));
    let calls = |count| (0..count).map(|_| Call::of(user(0)));
    let warm = std::iter::once(first).chain(calls(WARM)).collect();
    Exchanges::through_proxy(1, user(0), warm, calls(EXCHANGES).collect())
}

/// Each call is the first one of its user.
fn misses() -> Exchanges {
    let mut calls: Vec<_> = (0..WARM + EXCHANGES)
        .map(|number| Call::with_stored_token(user(number)))
        .collect();
    let counted = calls.split_off(WARM);
    Exchanges::through_proxy(WARM + EXCHANGES, user(0), calls, counted)
}

/// Each call meets an API that no longer takes the token: 401, refresh, replay.
fn renewals() -> Exchanges {
    let first = Call::with_stored_token(user(0));
    let calls = |count| (0..count).map(|_| Call::with_rejected_token(user(0)));
    let warm = std::iter::once(first).chain(calls(WARM)).collect();
    Exchanges::through_proxy(1, user(0), warm, calls(EXCHANGES).collect())
}

#[library_benchmark(config = counted(budget::STRAIGHT))]
#[bench::without_proxy(setup = straight_calls)]
fn straight(exchanges: Exchanges) -> Option<TempDir> {
    from_here(exchanges).run()
}

#[library_benchmark(config = counted(budget::HIT))]
#[bench::token_in_memory(setup = hits)]
fn hit(exchanges: Exchanges) -> Option<TempDir> {
    from_here(exchanges).run()
}

#[library_benchmark(config = counted(budget::MISS))]
#[bench::token_in_the_store(setup = misses)]
fn miss(exchanges: Exchanges) -> Option<TempDir> {
    from_here(exchanges).run()
}

#[library_benchmark(config = counted(budget::RENEWAL))]
#[bench::token_rejected(setup = renewals)]
fn renewal(exchanges: Exchanges) -> Option<TempDir> {
    from_here(exchanges).run()
}

library_benchmark_group!(
    name = exchanges,
    benchmarks = [straight, hit, miss, renewal]
);

main!(library_benchmark_groups = exchanges);
