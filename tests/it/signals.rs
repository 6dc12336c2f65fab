//! How the proxy ends: what SIGTERM lets finish, and what a second one does not.

use damoov_proxy::simulator::{Action, Delay, Fault, Lost, On};
use rustix::process::Signal;

use crate::harness::{ECHO, SCORES, damoov, eventually, proxy};
use crate::wire::{Upstream, Wire, get};

#[tokio::test]
async fn after_sigterm_answers_under_way_end_and_then_the_process() {
    let damoov = damoov().await;
    let upstream = Upstream::listen().await;
    let mut proxy = proxy(&damoov)
        .redirect("mobilesdk.telematicssdk.com", &upstream.url())
        .start()
        .await;
    let mut idle = Wire::to(&proxy).await;
    assert_eq!(idle.ask(get(SCORES, "")).await.status(), 200);
    let (mut waiting, mut reading) = (Wire::to(&proxy).await, Wire::to(&proxy).await);
    waiting.write(get(ECHO, "")).await;
    let mut unanswered = upstream.accept().await;
    unanswered.head().await;
    reading.write(get(ECHO, "")).await;
    let mut half_answered = upstream.accept().await;
    half_answered.head().await;
    half_answered
        .write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        .await;
    assert_eq!(reading.head().await.status(), 200);
    assert_eq!(reading.take(2).await, b"ha");

    proxy.signal(Signal::TERM);
    assert!(idle.rest().await.is_empty(), "idle connections are closed");
    let ready = proxy.status("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert_eq!(proxy.status("/livez").await.status, 200);

    half_answered.write("lf").await;
    assert_eq!(reading.rest().await, b"lf");
    unanswered
        .write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")
        .await;
    let answer = waiting.message().await;
    assert_eq!((answer.status(), &*answer.content), (200, &b"whole"[..]));
    assert!(answer.closes(), "{}", answer.head);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_sigterm_hurries_the_answers_but_not_the_renewals() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let delay = Action::Delay(Delay::Millis(1500));
    damoov.handle().add_fault(Fault::new(On::Login, delay));
    damoov
        .handle()
        .add_fault(Fault::new(On::Data, Action::Lose(Lost::Hang)));
    let mut caller = Wire::to(&proxy).await;
    caller.write(get(SCORES, "")).await;
    eventually("the login is under way", async || {
        proxy.metric("login_budget_remaining", "").await == 3.0
    })
    .await;
    proxy.signal(Signal::TERM);
    eventually("it drains", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    proxy.signal(Signal::TERM);
    caller.rest().await;
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(damoov.handle().counts().total.logins.ok, 1);

    damoov.handle().clear_faults();
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(
        damoov.handle().counts().total.logins.all(),
        1,
        "it was stored"
    );
}
