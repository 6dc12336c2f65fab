//! What becomes of odd, broken and late answers of the API, written byte by byte.

use crate::harness::{ECHO, PlayedScene, rounds};
use crate::wire::{GOOD, LAST, Wire, get};

// Connections: reused, refused, waited for, silent.
mod connections;
// TLS, and hosts that speak HTTP/2.
mod tls;

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

/// The caller's next request, on the same connection, comes to the API on the same one.
async fn both_go_on(mut caller: Wire, mut api: Wire) {
    caller.write(get(ECHO, "")).await;
    api.head().await;
    api.write(LAST).await;
    assert_eq!(caller.message().await.content, b"good");
    assert!(api.rest().await.is_empty());
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
        let api = scene.upstream.answer_once(&answer).await;
        let got = caller.head().await;
        assert_eq!(got.status(), 200);
        assert_eq!(got.field("content-length"), length, "{answer}");
        assert!(got.field("transfer-encoding").is_none());
        // The connection of the caller goes on, right behind the head, and the API's, too.
        both_go_on(caller, api).await;
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
            scene.upstream.answer_once(LAST).await;
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
        let api = scene.upstream.answer_once(head).await;
        assert_eq!(caller.head().await.head[9..12], head[9..12]);
        both_go_on(caller, api).await;
    }
}
