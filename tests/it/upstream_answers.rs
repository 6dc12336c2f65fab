//! What becomes of odd, broken and late answers of the API, written byte by byte.

use std::sync::Arc;

use damoov_proxy::simulator::Simulator;
use http::Request;
use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::harness::{
    Builder, ECHO, ECHO_HOST, PlayedScene, SCORES, damoov, damoov_with, eventually, loopback,
    proxy, rounds, write_private,
};
use crate::wire::{GOOD, Upstream, Wire, get, request};

#[tokio::test]
async fn an_answer_that_is_not_plain_http_is_a_502_and_its_connection_ends() {
    let scene = PlayedScene::new().await;
    let too_many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        "X-Many: 1\r\n".repeat(200)
    );
    let too_long = format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(1 << 20)
    );
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 02\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Nul: \0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Space: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/3.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        &too_many,
        &too_long,
    ] {
        let shown = &answer[..answer.len().min(120)];
        let (got, mut api) = scene.answered(answer).await;
        assert_eq!(
            (got.status(), &*got.code()),
            (502, "upstream_bad_response"),
            "{shown:?}"
        );
        assert!(got.field("proxy-status").unwrap().contains("; error="));
        assert!(
            api.rest().await.is_empty(),
            "not used again after {shown:?}"
        );
    }
    scene.still_works().await;
}

#[tokio::test]
async fn no_answer_at_all_is_a_502() {
    let scene = PlayedScene::new().await;
    for method in ["GET", "POST"] {
        for reset in [false, true] {
            let mut caller = scene.calling(method).await;
            let mut api = scene.upstream.accept().await;
            api.head().await;
            if reset {
                api.reset();
            } else {
                api.close().await;
            }
            let answer = caller.message().await;
            assert_eq!(
                (answer.status(), &*answer.code()),
                (502, "upstream_bad_response"),
                "{method} on a new connection is not sent again"
            );
        }
    }
    scene.still_works().await;
}

#[tokio::test]
async fn content_shorter_than_announced_is_an_aborted_answer() {
    let scene = PlayedScene::new().await;
    for (answer, cut) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            "short",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
            "5\r\nshort\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n",
            "5\r\nshort\r\n",
        ),
    ] {
        let mut caller = scene.calling("GET").await;
        let api = scene.upstream.answer_once(answer).await;
        assert_eq!(caller.head().await.status(), 200);
        assert_eq!(caller.take(cut.len()).await, cut.as_bytes());
        api.close().await;
        assert_eq!(caller.rest().await, b"", "no end is made up");
    }
    scene.still_works().await;
}

#[tokio::test]
async fn content_longer_than_announced_is_nobodys_answer() {
    let scene = PlayedScene::new().await;
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let mut caller = Wire::to(&scene.proxy).await;
    for answer in [GOOD, "HTTP/1.1 204 No Content\r\n\r\n"].repeat(rounds(10, 50)) {
        caller.write(get(ECHO, "")).await;
        let longer = answer.to_owned() + forged;
        let mut api = scene.upstream.answer_once(&longer).await;
        let got = caller.message().await;
        assert_ne!(got.content, b"forged");
        // The next one follows at once, and on another connection.
        caller.write(get(ECHO, "")).await;
        let mut next = scene.upstream.answer_once(GOOD).await;
        assert_eq!(caller.message().await.content, b"good");
        assert!(api.rest().await.is_empty());
        // Ends, so that the next round finds no idle connection.
        next.write("nonsense").await;
        assert!(next.rest().await.is_empty());
    }
}

#[tokio::test]
async fn odd_but_good_answers_are_passed_on_as_they_are() {
    let scene = PlayedScene::new().await;
    for (answer, status, content) in [
        (
            "HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
            302,
            "",
        ),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://evil.example/\r\nContent-Length: 2\r\n\r\nno",
            307,
            "no",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            "ok",
        ),
        ("HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", 599, "ok"),
        ("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
    ] {
        let mut caller = scene.calling("GET").await;
        let mut api = scene.upstream.answer_once(answer).await;
        let got = caller.message().await;
        assert_eq!((got.status(), &*got.content), (status, content.as_bytes()));
        if (300..400).contains(&status) {
            assert_eq!(got.field("location"), Some("https://evil.example/"));
        }
        api.write("nonsense").await;
        assert!(api.rest().await.is_empty());
    }
    // Without a length the end of the connection is the end of the content.
    let mut caller = scene.calling("GET").await;
    let api = scene
        .upstream
        .answer_once("HTTP/1.1 200 OK\r\n\r\nopen end")
        .await;
    api.close().await;
    assert_eq!(caller.message().await.content, b"open end");
}

#[tokio::test]
async fn an_answer_to_head_announces_content_and_has_none() {
    let scene = PlayedScene::new().await;
    let json = "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n";
    for (answer, length) in [
        (format!("HTTP/1.1 200 OK\r\n{json}"), Some("20")),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            None,
        ),
    ] {
        let mut caller = scene.calling("HEAD").await;
        let mut api = scene.upstream.answer_once(&answer).await;
        let got = caller.head().await;
        assert_eq!(got.status(), 200);
        assert_eq!(got.field("content-length"), length, "{answer}");
        assert!(got.field("transfer-encoding").is_none());
        // The connection of the caller goes on, right behind the head, and the API's, too.
        caller.write(get(ECHO, "")).await;
        api.head().await;
        api.write(GOOD.replacen("\r\n", "\r\nConnection: close\r\n", 1))
            .await;
        assert_eq!(caller.message().await.content, b"good");
        assert!(api.rest().await.is_empty());
    }
}

#[tokio::test]
async fn what_an_answer_without_content_announces_is_nobodys_however_late() {
    let scene = PlayedScene::new().await;
    let late = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for (method, status) in [
        ("GET", "204 No Content"),
        ("GET", "205 Reset Content"),
        ("GET", "304 Not Modified"),
        ("HEAD", "204 No Content"),
    ] {
        for announced in [
            format!("Content-Length: {}", late.len()),
            "Content-Type: application/json\r\nContent-Length: 1".to_owned(),
            "Transfer-Encoding: chunked".to_owned(),
        ] {
            let mut caller = scene.calling(method).await;
            let answer = format!("HTTP/1.1 {status}\r\n{announced}\r\n\r\n");
            let mut api = scene.upstream.answer_once(&answer).await;
            let got = caller.head().await;
            assert_eq!(got.head[9..12], status[..3]);
            assert!(got.field("transfer-encoding").is_none());
            // What was announced comes now, when somebody else might wait on this connection.
            api.write(late).await;
            caller.write(get(ECHO, "")).await;
            let last = GOOD.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            scene.upstream.answer_once(&last).await;
            assert_eq!(caller.message().await.content, b"good", "{answer}");
            assert!(api.rest().await.is_empty(), "not used again after {answer}");
        }
    }
    // Nothing announced, nothing to come: these connections go on.
    for head in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ] {
        let mut caller = scene.calling("GET").await;
        let mut api = scene.upstream.answer_once(head).await;
        assert_eq!(caller.head().await.head[9..12], head[9..12]);
        caller.write(get(ECHO, "")).await;
        api.head().await;
        api.write(GOOD.replacen("\r\n", "\r\nConnection: close\r\n", 1))
            .await;
        assert_eq!(caller.message().await.content, b"good");
        assert!(api.rest().await.is_empty());
    }
}

#[tokio::test]
async fn a_dead_reused_connection_is_replaced_once_if_nothing_happens_twice() {
    let scene = PlayedScene::new().await;
    let mut idle = scene.still_works().await;
    let mut caller = scene.calling("GET").await;
    idle.head().await;
    idle.close().await;
    let mut second = scene.upstream.answer_once(GOOD).await;
    assert_eq!(caller.message().await.content, b"good");

    // And only once: the second connection is a new one.
    let mut caller = scene.calling("GET").await;
    second.head().await;
    second.close().await;
    scene.upstream.answer_once("").await.close().await;
    assert_eq!(caller.message().await.status(), 502);

    // Content, or a method that changes something, may have been acted upon.
    for (method, fields, content) in [
        ("POST", "Content-Length: 0\r\n", ""),
        ("DELETE", "", ""),
        ("GET", "Content-Length: 1\r\n", "a"),
    ] {
        let mut idle = scene.still_works().await;
        let mut caller = Wire::to(&scene.proxy).await;
        caller.write(request(method, ECHO, fields) + content).await;
        idle.message().await;
        idle.close().await;
        assert_eq!(caller.message().await.status(), 502, "{method}");
    }
    scene.still_works().await;
}

#[tokio::test]
async fn an_answer_begun_is_never_asked_for_again() {
    let scene = PlayedScene::new().await;
    let mut idle = scene.still_works().await;
    let mut caller = scene.calling("GET").await;
    idle.head().await;
    idle.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    idle.close().await;
    assert_eq!(caller.rest().await, b"short");
    scene.still_works().await;
}

#[tokio::test]
async fn an_answer_that_stays_out_is_a_504() {
    let scene = PlayedScene::with(|proxy| proxy.set("upstream.response_timeout", "200ms")).await;
    for method in ["GET", "POST"] {
        let mut caller = scene.calling(method).await;
        let mut api = scene.upstream.accept().await;
        api.head().await;
        let answer = caller.message().await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (504, "upstream_timeout")
        );
        assert!(api.rest().await.is_empty(), "not used again");
    }
    scene.still_works().await;
}

#[tokio::test]
async fn a_host_that_refuses_connections_is_a_502() {
    let closed = Upstream::listen().await.url();
    let damoov = damoov().await;
    let proxy = proxy(&damoov).redirect(ECHO_HOST, &closed).start().await;
    let answer = Wire::to(&proxy).await.ask(get(ECHO, "")).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (502, "upstream_unreachable")
    );
    assert_eq!(proxy.get(1, SCORES).await.status, 200, "other hosts go on");
}

#[tokio::test]
async fn beyond_max_connections_requests_wait_for_a_free_connection() {
    let scene = PlayedScene::with(|proxy| proxy.set("upstream.max_connections", "1")).await;
    let mut first = scene.calling("GET").await;
    let mut api = scene.upstream.accept().await;
    api.head().await;
    let mut second = scene.calling("GET").await;
    eventually("both requests are in flight", async || {
        scene.proxy.metric("requests_in_flight", "").await == 2.0
    })
    .await;
    api.write(GOOD).await;
    assert_eq!(first.message().await.content, b"good");
    // On the same connection.
    api.head().await;
    api.write(GOOD).await;
    assert_eq!(second.message().await.content, b"good");
}

#[tokio::test]
async fn who_waits_too_long_for_a_free_connection_is_told_to_come_back() {
    let scene = PlayedScene::with(|proxy| {
        proxy
            .set("upstream.max_connections", "1")
            .set("upstream.connect_timeout", "200ms")
    })
    .await;
    let mut first = scene.calling("GET").await;
    let mut api = scene.upstream.accept().await;
    api.head().await;
    let answer = scene.calling("GET").await.message().await;
    assert_eq!((answer.status(), &*answer.code()), (503, "overloaded"));
    assert!(answer.field("retry-after").is_some());
    api.write(GOOD).await;
    assert_eq!(first.message().await.status(), 200);
    let logins = scene.damoov.handle().counts().total.logins;
    assert_eq!(logins.all(), 1, "renewals have connections of their own");
}

/// TLS with this certificate.
fn server_tls(made: &CertifiedKey<KeyPair>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            made.signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap()
}

/// A simulated Damoov with TLS, and the certificate that vouches for it.
pub async fn with_tls(name: &str) -> (Simulator, TempDir) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let tls = server_tls(&made);
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.tls = Some(Arc::new(tls));
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("ca.pem"), &made.cert.pem());
    (damoov, folder)
}

/// A proxy that trusts it.
pub fn trusting(proxy: Builder, folder: &TempDir) -> Builder {
    let file = folder.path().join("ca.pem");
    proxy.set("upstream.ca_file", &file.display().to_string())
}

const PASS: &str =
    "[[route]]\npath = \"/pass\"\nhost = \"api.telematicssdk.com\"\ncredential = \"passthrough\"\n";

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (damoov, _) = with_tls("127.0.0.1").await;
    let unknown = proxy(&damoov).toml(PASS).start().await;
    let (damoov_elsewhere, folder) = with_tls("damoov.example").await;
    let other_name = trusting(proxy(&damoov_elsewhere), &folder)
        .toml(PASS)
        .start()
        .await;
    for (proxy, damoov) in [(unknown, &damoov), (other_name, &damoov_elsewhere)] {
        let answer = proxy
            .send(Request::get("/pass").header("X-Test-Id", "1"))
            .await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (502, "upstream_unreachable")
        );
        let answer = proxy.get(1, SCORES).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (502, "auth_unreachable")
        );
        assert_eq!(damoov.handle().counts().total, Default::default());
        assert!(damoov.handle().requests().is_empty());
    }
}

#[tokio::test]
async fn behind_a_certificate_of_ca_file_http_1_1_is_spoken() {
    let (damoov, folder) = with_tls("127.0.0.1").await;
    let proxy = trusting(proxy(&damoov), &folder)
        .set("workers.threads", "1")
        .start()
        .await;
    assert_eq!(proxy.get(1, ECHO).await.status, 200);
    let heard = damoov.handle().requests().pop().unwrap();
    let host = damoov.addr().to_string();
    assert_eq!(heard.headers["host"], host, "{:?}", heard.headers);
    for _ in 0..50 {
        assert_eq!(proxy.get(1, ECHO).await.status, 200);
    }
    assert_eq!(proxy.metric("upstream_connections", "").await, 1.0);

    // Replays are no different.
    damoov.handle().expire(None);
    let content = "abc".repeat(10_000);
    let post = Request::post(ECHO).header("DeviceToken", crate::harness::user(1).to_string());
    let answer = proxy.send_with(post, content.clone()).await;
    assert!(answer.header("proxy-status").contains("replayed"));
    let heard = damoov.handle().requests();
    for heard in &heard[heard.len() - 2..] {
        assert_eq!(heard.content.as_deref(), Some(content.as_bytes()));
    }
}

const AUTH_HOST: &str = "user.telematicssdk.com";
const LIVE_HOST: &str = "portal-apis.telematicssdk.com";

/// A handshake for live tracking that names nobody.
const LIVE: &str = "GET /realtime/api/v1/ws/realtime HTTP/1.1\r\nHost: localhost\r\n\
                    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_host_that_offers_http_2_alone_is_a_502_that_says_so() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut tls = server_tls(&made);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(stream).await.is_err());
        }
    });
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("ca.pem"), &made.cert.pem());
    let damoov = damoov().await;
    for (host, code) in [
        (ECHO_HOST, "upstream_unreachable"),
        (LIVE_HOST, "upstream_unreachable"),
        (AUTH_HOST, "auth_unreachable"),
    ] {
        let proxy = trusting(proxy(&damoov), &folder).redirect(host, &url);
        let proxy = proxy.start().await;
        let request = match host {
            LIVE_HOST => LIVE.to_owned(),
            _ => get(ECHO, ""),
        };
        let answer = Wire::to(&proxy).await.ask(request).await;
        assert_eq!((answer.status(), &*answer.code()), (502, code), "{host}");
        let told = String::from_utf8_lossy(&answer.content);
        assert!(told.contains("does not speak HTTP/1.1"), "{told}");
        proxy.has_logged("does not speak HTTP/1.1").await;
    }
    accepting.abort();
    assert!(accepting.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_frame_of_http_2_is_a_502_that_says_so_at_once() {
    let scene = PlayedScene::new().await;
    for frame in [
        // SETTINGS, without an empty line and with one; GOAWAY.
        "\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
        "\0\0\x06\x04\0\0\0\0\0\0\x03\n\n\0\0",
        "\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01",
    ] {
        let (answer, mut api) = scene.answered(frame).await;
        let got = (answer.status(), &*answer.code());
        assert_eq!(got, (502, "upstream_bad_response"));
        let told = String::from_utf8_lossy(&answer.content);
        assert!(told.contains("does not speak HTTP/1.1"), "{told}");
        assert!(api.rest().await.is_empty());
    }
    scene.proxy.has_logged("the host speaks HTTP/2").await;
    scene.still_works().await;

    // Of the Auth endpoints, too.
    let auth = Upstream::listen().await;
    let proxy = proxy(&scene.damoov).redirect(AUTH_HOST, &auth.url());
    let proxy = proxy.start().await;
    let answering = async {
        loop {
            let mut login = auth.answer_once("\0\0\0\x04\0\0\0\0\0").await;
            login.rest().await;
        }
    };
    let mut caller = Wire::to(&proxy).await;
    let answer = tokio::select! {
        answer = caller.ask(get(ECHO, "")) => answer,
        () = answering => unreachable!(),
    };
    assert_eq!(
        (answer.status(), &*answer.code()),
        (502, "auth_unreachable")
    );
    let told = String::from_utf8_lossy(&answer.content);
    assert!(told.contains("speaks HTTP/2"), "{told}");
    proxy.has_logged("the host speaks HTTP/2").await;
}
