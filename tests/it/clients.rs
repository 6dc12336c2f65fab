//! Clients that nobody here wrote, in front of the proxy as they are in front of Damoov. Each logs
//! in by itself, with principals of its own, and notices nothing of expiry, revocation and
//! restarts. `tests/run` provides them; their scripts are in `tests/clients`.

use std::process::Command;
use std::time::Duration;

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::Simulator;

use crate::harness::script::Script;
use crate::harness::{Builder, Proxy, proxy};

// Requests as the vendor's Android library builds them.
mod android;
// Requests as the vendor's open-source apps build them.
mod apps;
// damoov-admin, the vendor's Python package.
mod damoov_admin;
// Live tracking with the packages websockets (Python) and ws (Node).
mod live;

/// What a client must not notice.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Every access token expires.
    Expiry,
    /// Every pair is revoked.
    Revocation,
    /// SIGKILL, and a new process.
    Crash,
    /// SIGTERM, and a new process.
    Restart,
}

/// Each kind, and the tokens of each process in trouble too.
const TROUBLES: [Trouble; 6] = [
    Trouble::Expiry,
    Trouble::Revocation,
    Trouble::Crash,
    Trouble::Expiry,
    Trouble::Restart,
    Trouble::Revocation,
];

/// How often [`TROUBLES`] end an access token alone.
const EXPIRIES: u64 = 2;
/// How often [`TROUBLES`] end a pair.
const REVOCATIONS: u64 = 2;

impl Trouble {
    /// Whether it spares the proxy, so that calls under way go on.
    fn ends_tokens_alone(self) -> bool {
        matches!(self, Trouble::Expiry | Trouble::Revocation)
    }

    /// Lets it happen to everybody.
    async fn strike(self, damoov: &Simulator, proxy: &mut Proxy) {
        match self {
            Trouble::Expiry => assert!(damoov.handle().expire(None) > 0),
            Trouble::Revocation => assert!(damoov.handle().revoke(None) > 0),
            Trouble::Crash => proxy.crash().await,
            Trouble::Restart => {
                assert!(proxy.terminate().await.success());
                proxy.start().await;
            }
        }
    }
}

/// A proxy that takes trouble often.
fn troubled(damoov: &Simulator) -> Builder {
    proxy(damoov).set("renewal.contested_backoff", "0s")
}

/// One login for the first call and one for each revocation, one refresh for each expiry; nothing
/// that Damoov rejected but the refreshes that found out about a revocation.
#[track_caller]
fn renewed_no_more_than_needed(damoov: &Simulator, principal: &Principal, logins_before: u64) {
    let count = damoov.handle().counts_of(principal);
    let (logins, refreshes) = (count.logins, count.refreshes);
    assert_eq!(
        (logins.ok, logins.all()),
        (logins_before + REVOCATIONS, logins_before + REVOCATIONS),
        "{principal}: {count:?}"
    );
    assert_eq!(
        (refreshes.ok, refreshes.rejected, refreshes.all()),
        (EXPIRIES, REVOCATIONS, EXPIRIES + REVOCATIONS),
        "{principal}: {count:?}"
    );
    assert_eq!(damoov.handle().counts().total.wrong_tokens, 0);
}
