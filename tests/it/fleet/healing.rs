//! What must hold once everything that a test did is over.

use damoov_proxy::simulator::{Simulator, Tick};

use crate::harness::{Proxy, SCORES, user};

/// Every access token expires and every user asks, the sidecars in turn: all are served, and nobody logs
/// in. No pair that was ever acknowledged is lost then. Returns from when on.
///
/// A sidecar that holds an older token than the store does gets 401 for both of them, which no replay mends:
/// it passes that on, once.
pub async fn nothing_is_lost(
    damoov: &Simulator,
    sidecars: &[&Proxy],
    users: impl IntoIterator<Item = usize>,
) -> Tick {
    let logins = || damoov.handle().counts().total.logins.all();
    let before = logins();
    let healed = damoov.handle().tick();
    damoov.handle().expire(None);
    for (number, sidecar) in users.into_iter().zip(sidecars.iter().cycle()) {
        let mut answer = sidecar.get(number, SCORES).await;
        if answer.status == 401 {
            answer = sidecar.get(number, SCORES).await;
        }
        assert_eq!(answer.status, 200, "user {number}: {}", answer.text());
        assert_eq!(answer.served_as(), user(number).to_string());
    }
    assert_eq!(logins(), before, "somebody's pair was lost");
    healed
}
