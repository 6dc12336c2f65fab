//! Pairs brought along from elsewhere: nobody logs in again.

use futures_util::future::join_all;

use crate::harness::{Proxy, SCORES, damoov, proxy, user};

const USERS: usize = 1000;

async fn assert_served(proxy: &Proxy, users: std::ops::Range<usize>) {
    let users: Vec<_> = users.collect();
    for some in users.chunks(100) {
        let answers = join_all(some.iter().map(|number| proxy.get(*number, SCORES))).await;
        for (number, answer) in some.iter().zip(answers) {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.served_as(), user(*number).to_string());
        }
    }
}

#[tokio::test]
async fn a_thousand_pairs_imported_before_the_start_cost_no_login() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let store = builder.store();
    let mut proxy = builder.stopped(&store);
    proxy.import(&damoov, 0..USERS);
    proxy.start().await;
    assert_served(&proxy, 0..USERS).await;
    // Their RefreshTokens came along too.
    damoov.handle().expire(None);
    assert_served(&proxy, 0..USERS).await;
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.ok), (0, USERS as u64));
}

#[tokio::test]
async fn a_thousand_pairs_imported_beside_a_running_proxy_cost_no_login() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 0..USERS);
    assert_served(&proxy, 0..USERS).await;
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.all()), (0, 0));
}
