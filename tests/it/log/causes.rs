//! Hosts that cannot be reached or do not answer: caller and log learn which and why.

use tokio::net::TcpListener;

use super::*;
use crate::harness::{ECHO, ECHO_HOST, damoov, proxy, with_tls};
use crate::wire::{Upstream, Wire};

const BEGINS: &str = "a host of the API cannot be reached";
const IS_OVER: &str = "a host of the API can be reached again";

#[track_caller]
fn refused(answer: &Answer, code: &str, says: &str) {
    let text = answer.text();
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (502, code),
        "{text}"
    );
    let content: Value = serde_json::from_str(&text).unwrap();
    let message = content["Errors"][0]["Message"].as_str().unwrap();
    assert!(message.contains(says), "{message}");
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_told_once_with_its_cause_and_its_end() {
    let damoov = damoov().await;
    let closed = loopback(free_port());
    let builder = proxy(&damoov).redirect(ECHO_HOST, &format!("http://{closed}"));
    let proxy = builder.start().await;
    for _ in 0..5 {
        let says = format!("{closed} refused the connection");
        refused(&proxy.get(1, ECHO).await, "upstream_unreachable", &says);
    }
    let line = told_once(&proxy, BEGINS).await;
    assert_eq!(
        (&line["level"], &line["host"]),
        (&"WARN".into(), &ECHO_HOST.into())
    );
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("refused the connection: Connection refused"),
        "{cause}"
    );
    let listener = TcpListener::bind(closed).await.unwrap();
    let answering = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut api = Wire::over(stream);
        api.message().await;
        api.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        api
    };
    let (answer, _api) = tokio::join!(proxy.get(1, ECHO), answering);
    assert_eq!(answer.status, 200);
    let line = told_once(&proxy, IS_OVER).await;
    assert_eq!(
        (&line["host"], &line["hurt"]),
        (&ECHO_HOST.into(), &5.into())
    );
    assert!(line["seconds"].is_number(), "{line}");
    assert_eq!(saying(&proxy, BEGINS).len(), 1);
}

#[tokio::test]
async fn certificate_and_name_failures_are_apart_and_each_is_at_debug() {
    let (secured, _) = with_tls("127.0.0.1").await;
    let untrusted = secured.base_url();
    let damoov = damoov().await;
    let dialed = untrusted.trim_start_matches("https://").to_owned();
    for (url, says, cause) in [
        (
            &*untrusted,
            format!("the certificate of {dialed} is not trusted"),
            "UnknownIssuer",
        ),
        (
            "http://nowhere.invalid:1",
            "the name nowhere.invalid was not found".to_owned(),
            "failed to lookup address information",
        ),
    ] {
        let builder = proxy(&damoov).redirect(ECHO_HOST, url);
        let proxy = builder.env("DAMOOV_PROXY_LOG", "debug").start().await;
        for _ in 0..3 {
            refused(&proxy.get(1, ECHO).await, "upstream_unreachable", &says);
        }
        let line = told_once(&proxy, BEGINS).await;
        let told = line["cause"].as_str().unwrap();
        assert!(told.starts_with(&says) && told.contains(cause), "{told}");
        let each = "a request got no answer";
        eventually(each, async || saying(&proxy, each).len() == 3).await;
        for line in saying(&proxy, each) {
            assert_eq!(
                (&line["level"], &line["cause"]),
                (&"DEBUG".into(), &told.into())
            );
        }
    }
}

#[tokio::test]
async fn the_auth_host_is_told_like_any_other() {
    let (secured, _) = with_tls("127.0.0.1").await;
    let damoov = damoov().await;
    let closed = format!("http://{}", loopback(free_port()));
    for (url, says) in [
        (&*secured.base_url(), "is not trusted"),
        (&*closed, "refused the connection"),
        (
            "http://nowhere.invalid:1",
            "the name nowhere.invalid was not found",
        ),
    ] {
        let builder = proxy(&damoov).redirect("user.telematicssdk.com", url);
        let proxy = builder.set("renewal.wait", "900ms").start().await;
        // Also those who come while the host is left alone.
        for number in 0..4 {
            refused(&proxy.get(number, ECHO).await, "auth_unreachable", says);
        }
        let line = told_once(&proxy, BEGINS).await;
        assert_eq!(line["host"], "user.telematicssdk.com");
        let ready = proxy.status("/readyz").await;
        assert_eq!(ready.status, 200);
        assert!(
            ready.text().contains("\"upstream_unreachable\""),
            "{}",
            ready.text()
        );
        let told = line["cause"].as_str().unwrap();
        assert!(told.contains(says), "{told}");
    }
}

#[tokio::test]
async fn an_auth_host_that_answers_nothing_usable_is_told_and_so_is_its_code() {
    let damoov = damoov().await;
    damoov
        .handle()
        .add_fault(damoov_proxy::simulator::Fault::new(
            damoov_proxy::simulator::On::Login,
            damoov_proxy::simulator::Action::status(500),
        ));
    let proxy = proxy(&damoov).set("renewal.wait", "900ms").start().await;
    refused(&proxy.get(1, ECHO).await, "auth_unreachable", "answer 5xx");
    let line = told_once(&proxy, "a host of the API does not answer as it should").await;
    assert_eq!(line["cause"], "it answers 500, without tokens");
    let is_access = |line: &Value| line["target"] == "access";
    eventually("an access line", async || {
        objects(&proxy.log()).iter().any(is_access)
    })
    .await;
    let access = objects(&proxy.log()).into_iter().find(is_access).unwrap();
    assert_eq!(
        (&access["code"], &access["status"]),
        (&"auth_unreachable".into(), &502.into())
    );
}

#[tokio::test]
async fn a_host_that_hangs_up_is_told_with_its_name() {
    let damoov = damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = proxy(&damoov)
        .redirect(ECHO_HOST, &upstream.url())
        .start()
        .await;
    let hanging_up = async {
        let mut api = upstream.accept().await;
        api.head().await;
        api.close().await;
    };
    let (answer, ()) = tokio::join!(proxy.get(1, ECHO), hanging_up);
    let host = upstream.url().trim_start_matches("http://").to_owned();
    let says = format!("{host} did not give a complete answer");
    refused(&answer, "upstream_bad_response", &says);
    let line = told_once(&proxy, "a host of the API does not answer as it should").await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.starts_with(&says) && cause.contains("the connection ended early"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_live_host_that_cannot_be_reached_is_told_like_any_other() {
    let damoov = damoov().await;
    let closed = loopback(free_port());
    let url = format!("http://{closed}");
    let proxy = proxy(&damoov)
        .redirect("portal-apis.telematicssdk.com", &url)
        .start()
        .await;
    let path = "/realtime/api/v1/ws/realtime";
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let mut caller = Wire::to(&proxy).await;
    let answer = caller.ask(crate::wire::get(path, fields)).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (502, "upstream_unreachable")
    );
    let text = String::from_utf8(answer.content).unwrap();
    assert!(
        text.contains(&format!("{closed} refused the connection")),
        "{text}"
    );
    let line = told_once(&proxy, BEGINS).await;
    assert_eq!(line["host"], "portal-apis.telematicssdk.com");
}
