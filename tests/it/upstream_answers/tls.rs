//! Certificates of the API, and hosts that speak HTTP/2.

use std::sync::Arc;

use http::Request;
use tokio::net::TcpListener;

use crate::harness::{
    ECHO, ECHO_HOST, PlayedScene, SCORES, damoov, loopback, proxy, server_tls, trusting, with_tls,
    write_private,
};
use crate::wire::{Upstream, Wire, get};

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
