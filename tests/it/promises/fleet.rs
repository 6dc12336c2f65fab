//! Two proxies on one store renew each user once between them.

use futures_util::future::join_all;

use crate::fleet::checker::{Trial, assert_clean};
use crate::fleet::healing::nothing_is_lost;
use crate::harness::{SCORES, damoov_with, heavy, principal, proxy_through, rounds, user};

const USERS: usize = 50;
/// Calls of each user on each proxy at the same time.
const CALLS: usize = 3;

#[tokio::test]
async fn i1_two_proxies_on_one_store_refresh_once_per_expiry_and_never_log_in() {
    let _turn = heavy().await;
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.doors = ["first", "second"].map(str::to_owned).to_vec();
    })
    .await;
    damoov.handle().begin_journal();
    let first = proxy_through(&damoov, "first")
        .set("renewal.renewals_per_second", "10000")
        .start()
        .await;
    let second = proxy_through(&damoov, "second")
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
    let healed = nothing_is_lost(&damoov, &[&first, &second], 0..USERS).await;
    let trial = Trial {
        healed: Some(healed),
        ..Trial::default()
    };
    assert_clean(&damoov.handle().journal(), &trial);
}
