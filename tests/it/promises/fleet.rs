//! Two proxies on one store renew each user once between them.

use futures_util::future::join_all;

use crate::harness::{SCORES, damoov, heavy, principal, proxy, rounds, user};

const USERS: usize = 50;
/// Calls of each user on each proxy at the same time.
const CALLS: usize = 3;

#[tokio::test]
async fn i1_two_proxies_on_one_store_refresh_once_per_expiry_and_never_log_in() {
    let _turn = heavy().await;
    let damoov = damoov().await;
    let first = proxy(&damoov)
        .set("renewal.renewals_per_second", "10000")
        .start()
        .await;
    let second = proxy(&damoov)
        .set("renewal.renewals_per_second", "10000")
        .start_on(first.store())
        .await;
    first.import(&damoov, 0..USERS);
    for round in 1..=rounds(20, 200) {
        damoov.handle().expire(None);
        let calls = (0..USERS * CALLS).flat_map(|call| {
            [&first, &second].map(|proxy| async move {
                let number = call % USERS;
                (number, proxy.get(number, SCORES).await)
            })
        });
        for (number, answer) in join_all(calls).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.served_as(), user(number).to_string());
        }
        for number in 0..USERS {
            let refreshes = damoov.handle().counts_of(&principal(number)).refreshes;
            assert_eq!(
                (refreshes.ok, refreshes.all()),
                (round as u64, round as u64),
                "user {number}"
            );
        }
    }
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.wrong_tokens), (0, 0));
}
