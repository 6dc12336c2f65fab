//! A first message that the API answers with a 401.

use damoov_proxy::simulator::Delay;

use super::*;
use crate::harness::eventually;
use crate::wire::{Upstream, Wire};

/// Sooner than the proxy stops waiting for an answer to `authenticate`.
const SOON: Duration = Duration::from_secs(5);
/// An `authenticate` message, masked by zeros.
const FIRST: &[u8] = b"\x81\x97\0\0\0\0{\"type\":\"authenticate\"}";

/// A text frame as upstream sends it; short.
fn said(text: &str) -> Vec<u8> {
    [&[0x81, text.len() as u8], text.as_bytes()].concat()
}

/// Takes what the proxy makes of [`FIRST`].
async fn take_authenticate(api: &mut Wire) {
    let head = api.take(8).await;
    assert_eq!(head[..2], *b"\x81\xfe", "a text with a token");
    let length = u16::from_be_bytes([head[2], head[3]]);
    api.take(length.into()).await;
}

#[tokio::test]
async fn a_401_that_is_passed_on_stands_before_what_follows_it() {
    let damoov = crate::harness::damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = handshake::in_front_of(&upstream, &damoov).await;
    let error = said("{\"type\":\"error\",\"code\":401}");
    // The second 401 settles it, the later ones are passed on.
    for authenticates in [2, 1, 1, 1, 1, 1, 1, 1] {
        let (mut caller, mut api) = handshake::more_bytes(&proxy, &upstream).await;
        caller.write(FIRST).await;
        for _ in 1..authenticates {
            take_authenticate(&mut api).await;
            api.write(&error).await;
        }
        take_authenticate(&mut api).await;
        let all = [&error[..], b"\x02\x04ab"].concat();
        api.write(&all).await;
        assert_eq!(caller.take(all.len()).await, all);
        api.write(b"cd").await;
        assert_eq!(caller.take(2).await, b"cd");
    }
}

#[tokio::test]
async fn after_any_other_error_or_a_close_the_caller_is_heard_at_once() {
    let damoov = crate::harness::damoov().await;
    for answer in [
        said("{\"type\":\"error\",\"code\":403}"),
        b"\x88\x02\x0f\xa3".to_vec(),
    ] {
        let (_proxy, mut caller, mut api) = handshake::bytes(&damoov).await;
        caller.write(FIRST).await;
        take_authenticate(&mut api).await;
        api.write(&answer).await;
        assert_eq!(caller.take(answer.len()).await, answer);
        let closes = b"\x88\x82\0\0\0\0\x03\xe8";
        caller.write(closes).await;
        let heard = timeout(SOON, api.take(closes.len())).await;
        assert_eq!(heard.expect("nothing is passed on"), closes);
    }
}

#[tokio::test]
async fn a_401_renews_once_and_the_caller_sees_none_of_it() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().expire(None);
    session.is_authenticated().await;
    let statuses: Vec<_> = scene
        .authenticates()
        .iter()
        .map(|(_, status)| *status)
        .collect();
    assert_eq!(statuses, [401, 200]);
    let count = scene.count(1);
    assert_eq!((count.refreshes.ok, count.logins.all()), (1, 0));
    assert_eq!(
        scene.proxy.metric("replays_total", "result=\"ok\"").await,
        1.0
    );
}

#[tokio::test]
async fn a_revoked_pair_costs_one_login_and_the_caller_sees_none_of_it() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().revoke(None);
    session.authenticate().await;
    session.hears(&["authenticated"]).await;
    let count = scene.count(1);
    assert_eq!((count.refreshes.rejected, count.logins.ok), (1, 1));
}

#[tokio::test]
async fn an_api_that_always_says_401_is_asked_twice_and_heard_once() {
    let scene = scene().await;
    let always = Fault::new(On::Path(AUTHENTICATE.into()), Action::status(401));
    scene.damoov.handle().add_fault(always);
    let mut session = scene.session().await;
    session.authenticate().await;
    let error = session.json().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!(401))
    );
    session.say(json!({"type": "echo"})).await;
    session.hears(&["echo"]).await;
    assert_eq!(scene.authenticates().len(), 2);

    // A minute's peace: the next 401 is the answer.
    let mut next = scene.session().await;
    next.authenticate().await;
    assert_eq!(next.json().await["code"], 401);
    assert_eq!(scene.authenticates().len(), 3);
    let count = scene.count(1);
    assert_eq!((count.refreshes.all(), count.logins.all()), (1, 0));
}

#[tokio::test]
async fn a_failed_renewal_is_an_error_of_the_proxy_and_not_a_401() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().expire(None);
    let down = Fault::new(On::Auth, Action::status(503));
    scene.damoov.handle().add_fault(down);
    session.authenticate().await;
    let error = session.json().await;
    assert_eq!(error["code"], 502, "{error}");
    assert_eq!(session.close_code().await, 1011);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cancel_the_renewal() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().expire(None);
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(400)));
    scene.damoov.handle().add_fault(slow.times(1));
    session.authenticate().await;
    eventually("a refresh is under way", async || {
        scene.count(1).refreshes_at_once == 1
    })
    .await;
    drop(session);
    eventually("the refresh ends", async || {
        scene
            .proxy
            .metric("renewals_total", "grant=\"refresh\"")
            .await
            == 1.0
    })
    .await;
    assert_eq!(scene.proxy.get(1, SCORES).await.status, 200);
    assert_eq!(scene.count(1).refreshes.all(), 1);
}

#[tokio::test]
async fn fifty_sessions_of_one_user_share_one_refresh() {
    let scene = scene().await;
    let opening = (0..50).map(|_| scene.session());
    let sessions = futures_util::future::join_all(opening).await;
    scene.damoov.handle().expire(None);
    let authenticating = sessions.into_iter().map(async |mut session| {
        session.authenticate().await;
        session.hears(&["authenticated"]).await;
    });
    futures_util::future::join_all(authenticating).await;
    let count = scene.count(1);
    assert_eq!((count.refreshes.all(), count.logins.all()), (1, 0));
}

#[tokio::test]
async fn no_login_waits_for_a_session_whose_caller_has_left() {
    let damoov = crate::harness::damoov().await;
    let proxy = crate::harness::proxy(&damoov)
        .set("renewal.wait", "1h")
        .start()
        .await;
    let scene = Scene { damoov, proxy };
    for number in 1..=3 {
        assert_eq!(scene.proxy.get(number, SCORES).await.status, 200);
    }
    let ours = scene.handed_out(1).await;
    // The fourth slot of the minute is for users seen before.
    scene.damoov.handle().revoke(Some(&principal(2)));
    assert_eq!(scene.proxy.get(2, SCORES).await.status, 200);
    scene.damoov.handle().revoke(Some(&principal(1)));
    let as_many_wait = async |count: f64| {
        eventually("as many wait for a slot", async || {
            scene.proxy.metric("logins_waiting", "").await == count
        })
        .await;
    };
    // The first one's token is found out to be dead, the second one's is known to be.
    for _ in 0..2 {
        let mut session = scene.connect(LIVE, &[]).await;
        session
            .say(json!({"type": "authenticate", "access_token": ours}))
            .await;
        as_many_wait(1.0).await;
        drop(session);
        as_many_wait(0.0).await;
    }
    assert_eq!(scene.count(1).logins.all(), 0);
}
