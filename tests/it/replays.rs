//! Renewal and replay of one request: what the API receives the second time, to the byte (I5), and
//! what is not sent twice.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Early, Fault, On, PreviousToken, Recorded, Simulator};
use http::HeaderMap;

use crate::harness::{
    Builder, ECHO, PlayedScene, Proxy, SCORES, damoov, damoov_with, eventually, proxy, rounds,
};
use crate::wire::{Wire, request};

// What counts as a 401, and which 401s renew or replay nothing.
mod reasons;

/// `replay_limit` in these tests, in bytes.
const LIMIT: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Sized,
    Chunked,
}

/// Bytes that differ from place to place.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// The bytes of a request, its content in pieces of several sizes where it is chunked.
fn framed(method: &str, target: &str, fields: &str, content: &[u8], framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Sized => {
            let length = format!("{fields}Content-Length: {}\r\n", content.len());
            [request(method, target, &length).as_bytes(), content].concat()
        }
        Framing::Chunked => {
            let coding = format!("{fields}Transfer-Encoding: chunked\r\n");
            let mut bytes = request(method, target, &coding).into_bytes();
            let (mut rest, mut size) = (content, 1);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(size.min(rest.len()));
                bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend([piece, b"\r\n"].concat());
                (rest, size) = (behind, size * 3 + 1);
            }
            bytes.extend(b"0\r\n\r\n");
            bytes
        }
    }
}

fn limited(damoov: &Simulator) -> Builder {
    proxy(damoov).set("renewal.replay_limit", &LIMIT.to_string())
}

/// A proxy that holds a token of user 1 which the API takes for expired.
async fn expired(damoov: &Simulator, proxy: Builder) -> Proxy {
    let proxy = proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    damoov.handle().expire(None);
    proxy
}

/// Everything of a request but Authorization, which must be there.
fn without_authorization(recorded: &Recorded) -> (&str, &str, HeaderMap) {
    let mut headers = recorded.headers.clone();
    assert!(headers.remove("authorization").is_some());
    (&recorded.method, &recorded.target, headers)
}

#[tokio::test]
async fn whatever_is_kept_is_replayed_byte_for_byte() {
    let damoov = damoov().await;
    let proxy = limited(&damoov).start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for length in [0, 1, LIMIT - 1, LIMIT] {
            for framing in [Framing::Sized, Framing::Chunked] {
                let what = format!("{method}-{length}-{framing:?}");
                let content = content(length);
                let target = format!("{ECHO}?q=%20a&{what}");
                let fields = format!("X-Test-Id: {what}\r\nX-Own: a\r\nX-Own: b\r\n");
                let bytes = framed(method, &target, &fields, &content, framing);

                proxy.get(1, SCORES).await;
                damoov.handle().expire(None);
                let answer = Wire::to(&proxy).await.ask(bytes).await;
                assert_eq!(answer.status(), 200, "{what}");
                assert_eq!(
                    answer.field("proxy-status"),
                    Some("damoov-proxy; details=\"replayed\"")
                );
                let heard = damoov.handle().requests_of(&what);
                let [first, second] = &heard[..] else {
                    panic!("{what}: {} requests", heard.len());
                };
                assert_eq!((first.status, second.status), (401, 200), "{what}");
                assert_ne!(
                    first.headers["authorization"], second.headers["authorization"],
                    "{what}"
                );
                assert_eq!(
                    without_authorization(first),
                    without_authorization(second),
                    "{what}"
                );
                for heard in &heard {
                    assert_eq!(heard.method, method);
                    assert_eq!(heard.target, target);
                    assert_eq!(heard.content.as_deref(), Some(&*content), "{what}");
                }
                // GET and HEAD without content get none: nothing announces it.
                let framed_as = match framing {
                    Framing::Chunked => Some("transfer-encoding"),
                    Framing::Sized if length > 0 => Some("content-length"),
                    Framing::Sized => None,
                };
                if let Some(name) = framed_as {
                    assert!(first.headers.contains_key(name), "{what}");
                }
            }
        }
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
    assert_eq!(proxy.metric("replays_total", "result=\"ok\"").await, 40.0);
    assert_eq!(proxy.metric("replay_memory_bytes", "").await, 0.0);
}

#[tokio::test]
async fn beyond_the_limit_the_401_is_passed_on_while_the_renewal_runs_already() {
    let damoov = damoov().await;
    let proxy = limited(&damoov).start().await;
    for (round, framing) in [Framing::Sized, Framing::Chunked].into_iter().enumerate() {
        proxy.get(1, SCORES).await;
        damoov.handle().expire(None);
        let content = content(LIMIT + 1);
        let bytes = framed("POST", ECHO, "", &content, framing);
        let answer = Wire::to(&proxy).await.ask(bytes).await;
        assert_eq!(answer.status(), 401, "{framing:?}");
        let heard = damoov.handle().requests();
        assert_eq!(heard.len(), round + 1, "sent once");
        assert_eq!(heard[round].content.as_deref(), Some(&*content));
        eventually("the token is renewed", async || {
            damoov.handle().counts().total.refreshes.ok == round as u64 + 1
        })
        .await;
        let next = proxy.get(1, SCORES).await;
        assert!(!next.header("proxy-status").contains("replayed"));
    }
    let impossible = proxy.metric("replays_total", "result=\"impossible\"").await;
    assert_eq!(impossible, 2.0);
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_sent_with_a_stale_token() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.lifetimes.after_login = Duration::from_secs(30);
        settings.refresh.previous_token = PreviousToken::Revoked;
    })
    .await;
    // A hundredth of the shortest life that is believed: stale after 0.3 s.
    let proxy = limited(&damoov).set("renewal.ahead", "0.01");
    let proxy = proxy.start().await;
    proxy.get(1, ECHO).await;
    tokio::time::sleep(Duration::from_millis(400)).await;

    let content = content(LIMIT + 1);
    let bytes = framed("POST", ECHO, "", &content, Framing::Sized);
    let answer = Wire::to(&proxy).await.ask(bytes).await;
    assert_eq!(answer.status(), 200);
    let heard = damoov.handle().requests();
    assert_eq!(heard.len(), 2, "sent once, and not with the old token");
    assert_ne!(
        heard[0].headers["authorization"],
        heard[1].headers["authorization"]
    );
    assert_eq!(heard[1].content.as_deref(), Some(&*content));
}

#[tokio::test]
async fn a_slow_caller_is_replayed_whole() {
    let damoov = damoov().await;
    let proxy = expired(&damoov, limited(&damoov)).await;
    let content = content(1000);
    let head = request("POST", ECHO, "Content-Length: 1000\r\n");
    let mut wire = Wire::to(&proxy).await;
    wire.write(head).await;
    for piece in content.chunks(50) {
        wire.write(piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(wire.message().await.status(), 200);
    let heard = damoov.handle().requests();
    assert_eq!(heard.len(), 2);
    for heard in heard {
        assert_eq!(heard.content.as_deref(), Some(&*content));
    }
}

#[tokio::test]
async fn after_an_early_401_content_still_to_come_is_replayed_whole() {
    let damoov = damoov().await;
    let proxy = limited(&damoov).start().await;
    proxy.get(1, SCORES).await;
    for (round, early) in [Early::Close, Early::KeepReading]
        .repeat(rounds(3, 100))
        .into_iter()
        .enumerate()
    {
        for (length, framing) in [
            (2, Framing::Sized),
            (LIMIT, Framing::Sized),
            (LIMIT, Framing::Chunked),
        ] {
            let what = format!("{early:?}-{length}-{framing:?}-{round}");
            let fault = Fault::new(On::Data, Action::Early(early));
            damoov.handle().add_fault(fault.times(1));
            let fields = format!("X-Test-Id: {what}\r\n");
            let content = content(length);
            let bytes = framed("POST", ECHO, &fields, &content, framing);
            let half = bytes.len() - length / 2;

            let mut wire = Wire::to(&proxy).await;
            wire.write(&bytes[..half]).await;
            eventually("the early answer is there", async || {
                damoov.handle().requests_of(&what).len() == 1
            })
            .await;
            wire.write(&bytes[half..]).await;
            assert_eq!(wire.message().await.status(), 200, "{what}");
            let heard = damoov.handle().requests_of(&what);
            assert_eq!(heard.len(), 2, "{what}");
            assert_eq!(
                without_authorization(&heard[0]),
                without_authorization(&heard[1])
            );
            assert_eq!(heard[1].content.as_deref(), Some(&*content), "{what}");
        }
    }
}

#[tokio::test]
async fn an_early_401_to_content_beyond_the_limit_is_passed_on() {
    let damoov = damoov().await;
    let proxy = limited(&damoov).start().await;
    for early in [Early::Close, Early::KeepReading] {
        let fault = Fault::new(On::Data, Action::Early(early));
        damoov.handle().add_fault(fault.times(1));
        let chunked = request("POST", ECHO, "Transfer-Encoding: chunked\r\n");
        let mut wire = Wire::to(&proxy).await;
        wire.write(chunked + "3\r\nabc\r\n").await;
        eventually("the early answer is there", async || {
            !damoov.handle().requests().is_empty()
        })
        .await;
        let rest = content(2 * LIMIT);
        wire.write(format!("{:x}\r\n", rest.len())).await;
        wire.write(&rest).await;
        wire.write("\r\n0\r\n\r\n").await;
        let answer = wire.message().await;
        assert_eq!(answer.status(), 401, "{early:?}");
        assert_eq!(damoov.handle().requests().len(), 1, "sent once");
        damoov.handle().reset();
    }
}

#[tokio::test]
async fn where_the_memory_for_replays_is_lent_out_the_401_is_passed_on() {
    let damoov = damoov().await;
    let builder = limited(&damoov);
    let memory = (LIMIT * 3 / 2).to_string();
    let proxy = expired(&damoov, builder.set("renewal.replay_memory", &memory)).await;
    let content = content(LIMIT);
    let bytes = framed(
        "POST",
        ECHO,
        "X-Test-Id: first\r\n",
        &content,
        Framing::Sized,
    );
    let mut first = Wire::to(&proxy).await;
    first.write(&bytes[..bytes.len() - 1]).await;
    eventually("the first content is kept", async || {
        proxy.metric("replay_memory_bytes", "").await >= (LIMIT - 1) as f64
    })
    .await;
    let other = framed(
        "POST",
        ECHO,
        "X-Test-Id: second\r\n",
        &content,
        Framing::Sized,
    );
    let answer = Wire::to(&proxy).await.ask(other).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(damoov.handle().requests_of("second").len(), 1);

    first.write(&bytes[bytes.len() - 1..]).await;
    assert_eq!(first.message().await.status(), 200);
    assert_eq!(damoov.handle().requests_of("first").len(), 2);
    eventually("the memory is given back", async || {
        proxy.metric("replay_memory_bytes", "").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn both_directions_stream_and_nothing_is_collected() {
    let scene = PlayedScene::new().await;
    let chunked = request("POST", ECHO, "Transfer-Encoding: chunked\r\n");
    let (mut caller, mut api) = scene.asked(chunked + "1\r\na\r\n").await;
    // Each side waits for the other's last byte before it sends its own next one.
    assert_eq!(api.chunk().await.unwrap(), b"a");
    api.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    assert_eq!(caller.chunk().await.unwrap(), b"A");
    for byte in *b"bcdefgh" {
        let piece = [b"1\r\n", &[byte][..], b"\r\n"].concat();
        caller.write(&piece).await;
        assert_eq!(api.chunk().await.unwrap(), [byte]);
        api.write(&piece).await;
        assert_eq!(caller.chunk().await.unwrap(), [byte]);
    }
    caller.write("0\r\n\r\n").await;
    assert_eq!(api.chunk().await, None);
    api.write("0\r\n\r\n").await;
    assert_eq!(caller.chunk().await, None);
}
