//! The main job: a DeviceToken in, the API's answer out.

use http::Request;

use crate::harness::{SCORES, damoov, principal, proxy, user};

#[tokio::test]
async fn a_user_never_seen_is_logged_in_once_and_then_served_from_memory() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for passed in [
        "damoov-proxy; details=\"renewed\"",
        "damoov-proxy",
        "damoov-proxy",
    ] {
        let answer = proxy.get(1, SCORES).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.served_as(), user(1).to_string());
        assert_eq!(answer.header("proxy-status"), passed);
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.ok, count.refreshes.all()), (1, 0));
}

#[tokio::test]
async fn an_expired_token_is_refreshed_and_the_request_replayed_unseen() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    let answer = proxy.get(1, SCORES).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("proxy-status").contains("replayed"));
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.ok, count.refreshes.ok), (1, 1));
}

#[tokio::test]
async fn a_restart_costs_no_login() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    assert!(proxy.terminate().await.success());
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.ok, 1);
}

#[tokio::test]
async fn the_route_decides_the_kind_of_credential() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let device = user(1).to_string();
    for (path, named) in [
        (format!("/~{device}{SCORES}"), false),
        (format!("/%7E{device}{SCORES}"), false),
        (SCORES.to_owned(), true),
        ("/v1/Management/users".to_owned(), true),
        ("/~account:reporting/v1/Companies/current".to_owned(), false),
        ("/v1/companies/current".to_owned(), false),
    ] {
        let mut request = Request::get(&path);
        if named {
            request = request.header("DeviceToken", &device);
        }
        let answer = proxy.send(request).await;
        assert!(
            matches!(answer.status.as_u16(), 200 | 404 | 422),
            "{path}: {}",
            answer.text()
        );
        assert!(
            answer.header("proxy-status").starts_with("damoov-proxy"),
            "{path}"
        );
    }
}
