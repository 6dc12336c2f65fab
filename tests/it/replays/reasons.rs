//! What counts as a 401, and which 401s renew or replay nothing.

use damoov_proxy::simulator::{Action, Fault, On};
use http::Request;

use super::expired;
use crate::harness::{ECHO, SCORES, damoov, eventually, principal, proxy, user};
use crate::wire::{Wire, get};

#[tokio::test]
async fn a_small_answer_that_says_401_inside_counts_as_one() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let fault = Fault::new(On::Data, Action::InBand(401));
    damoov.handle().add_fault(fault.times(1));
    let answer = proxy.get(1, SCORES).await;
    assert!(answer.header("proxy-status").contains("replayed"));
    assert_eq!(answer.served_as(), user(1).to_string());
    assert_eq!(damoov.handle().counts_of(&principal(1)).refreshes.ok, 1);

    let fault = Fault::new(On::Data, Action::InBand(404));
    damoov.handle().add_fault(fault.times(1));
    let answer = proxy.get(1, SCORES).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("proxy-status")),
        (200, "damoov-proxy")
    );
    assert!(answer.text().contains("404"), "passed on whole");
}

#[tokio::test]
async fn with_in_band_401_off_such_an_answer_is_passed_on() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("renewal.in_band_401", "false")
        .start()
        .await;
    proxy.get(1, SCORES).await;
    let fault = Fault::new(On::Data, Action::InBand(401));
    damoov.handle().add_fault(fault.times(1));
    let answer = proxy.get(1, SCORES).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("proxy-status")),
        (200, "damoov-proxy")
    );
    assert_eq!(damoov.handle().counts().total.refreshes.all(), 0);
}

#[tokio::test]
async fn only_a_401_renews() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    for status in [400, 403, 404, 407, 419, 422, 429, 500, 503] {
        let fault = Fault::new(On::Data, Action::status(status));
        damoov.handle().add_fault(fault.times(1));
        let answer = proxy.get(1, SCORES).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("proxy-status"), "damoov-proxy");
    }
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.all()), (1, 0));
}

#[tokio::test]
async fn a_second_401_is_the_answer_and_renews_nothing_more() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    damoov
        .handle()
        .add_fault(Fault::new(On::Data, Action::status(401)));
    for _ in 0..5 {
        let answer = proxy.get(1, SCORES).await;
        assert_eq!(answer.status, 401);
        let proxy_status = answer.header("proxy-status");
        assert!(
            !proxy_status.contains("error="),
            "the API's own: {proxy_status}"
        );
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 1));
    assert_eq!(count.data_calls, 1 + 2 + 4, "one replay, then none");
}

#[tokio::test]
async fn a_registration_is_sent_once_whatever_comes_back() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for status in [401, 400, 500, 503] {
        let fault = Fault::new(On::Registration, Action::status(status));
        damoov.handle().add_fault(fault.times(1));
        let create = Request::post("/v1/Registration/create");
        let answer = proxy.send_with(create, "{}").await;
        assert_eq!(answer.status, status);
    }
    damoov
        .handle()
        .add_fault(Fault::new(On::Registration, Action::Reset).times(1));
    let create = Request::post("/v1/Registration/create");
    let answer = proxy.send_with(create, "{}").await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (502, "upstream_bad_response")
    );
    let total = damoov.handle().counts().total;
    assert_eq!((total.registrations.all(), total.registrations.ok), (5, 0));
    assert_eq!((total.logins.all(), total.refreshes.all()), (0, 0));
}

#[tokio::test]
async fn without_replay_the_401_is_passed_on_and_the_next_request_is_good() {
    let damoov = damoov().await;
    let builder = proxy(&damoov).toml(
        "[[route]]\npath = \"/mobilesdk/stage/echo\"\nhost = \"mobilesdk.telematicssdk.com\"\n\
         credential = \"user\"\nreplay = \"never\"\n",
    );
    let proxy = expired(&damoov, builder).await;
    let answer = Wire::to(&proxy).await.ask(get(ECHO, "")).await;
    assert_eq!(answer.status(), 401);
    eventually("the token is renewed", async || {
        damoov.handle().counts().total.refreshes.ok == 1
    })
    .await;
    let answer = Wire::to(&proxy).await.ask(get(ECHO, "")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(damoov.handle().requests().len(), 2);
}
