//! A 401 inside a success.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::harness::PlayedScene;
use crate::wire::LAST;

const NO: &str = r#"{"Result":null,"Status":401,"Title":"","Errors":[]}"#;

async fn scene(response_timeout: &str) -> PlayedScene {
    PlayedScene::with(|proxy| {
        proxy
            .set("login_budget.logins", "100")
            .set("upstream.response_timeout", response_timeout)
    })
    .await
}

impl PlayedScene {
    /// Whether a request that gets this answer first is renewed for and sent again. A user of its
    /// own each time, because nobody is renewed twice a minute.
    async fn is_replayed(&self, number: usize, first: &[u8]) -> bool {
        let calling = self.proxy.calling(number, ECHO);
        let mut api = self.upstream.accept().await;
        api.head().await;
        api.write(first).await;
        let head = String::from_utf8_lossy(first).into_owned();
        if !head.contains("Length") && !head.contains("chunked") {
            api.close().await;
        }
        let answer = tokio::select! {
            answer = calling => answer.unwrap(),
            () = async {
                self.upstream.answer_once(LAST).await;
                std::future::pending().await
            } => unreachable!("it is pending"),
        };
        let refreshes = self
            .damoov
            .handle()
            .counts_of(&crate::harness::principal(number));
        let is_replayed = answer.text() == "good";
        assert_eq!(refreshes.refreshes.all(), u64::from(is_replayed));
        is_replayed
    }
}

#[tokio::test]
async fn a_401_inside_is_found_in_every_form() {
    let scene = scene("30s").await;
    let mut numbers = 1..;
    let mut next = || numbers.next().unwrap();
    for form in FORMS.into_iter().filter(|form| *form != Form::Twice) {
        assert!(
            scene.is_replayed(next(), &form.answer("200 OK", NO)).await,
            "{form:?}"
        );
    }
    let long = "x".repeat(100_000);
    for content in [
        r#"{"status":401,"result":null}"#.to_owned(),
        " \r\n{ \"Errors\" : [ { \"Key\" : \"}\\\"\" } ] , \"Status\" : 401 }".to_owned(),
        format!(r#"{{"Result":{{"Status":200}},"Status":401,"Title":"{long}"}}"#),
    ] {
        for form in [Form::Sized, Form::GzipChunked, Form::UntilClose] {
            let answer = form.answer("200 OK", &content);
            assert!(
                scene.is_replayed(next(), &answer).await,
                "{form:?} {content:.60}"
            );
        }
    }
    for kind in ["application/problem+json", "Application/JSON;charset=utf-8"] {
        let answer = String::from_utf8(Form::Chunked.answer("207 Multi-Status", NO)).unwrap();
        let answer = answer.replace("application/json", kind);
        assert!(scene.is_replayed(next(), answer.as_bytes()).await, "{kind}");
    }
}

#[tokio::test]
async fn what_is_not_a_401_inside_is_passed_on_byte_for_byte() {
    let scene = scene("30s").await;
    let mut caller = Wire::to(&scene.proxy).await;
    caller.write(request("GET", ECHO, "")).await;
    scene.upstream.answer_once(LAST).await;
    assert_eq!(caller.message().await.content, b"good");
    let late = format!(r#"{{"Result":"{}","Status":401}}"#, "x".repeat(BEGINNING));
    const BEGINNING: usize = 512;
    for content in [
        r#"{"Result":{"Status":401},"Status":200}"#,
        r#"{"Status":"401"}"#,
        r#"{"Status":4010}"#,
        "[401]",
        "",
        &late,
    ] {
        for form in [
            Form::Sized,
            Form::Marked,
            Form::Gzip,
            Form::Zlib,
            Form::Chunked,
        ] {
            let mut caller = Wire::to(&scene.proxy).await;
            caller
                .write(request("GET", ECHO, "Accept-Encoding: gzip\r\n"))
                .await;
            let mut api = scene.upstream.accept().await;
            api.head().await;
            api.write(form.answer("200 OK", content)).await;
            let got = caller.message().await;
            let (fields, sent) = form.of(content.as_bytes());
            assert_eq!(got.status(), 200);
            if form == Form::Chunked {
                assert_eq!(got.content, content.as_bytes(), "{form:?} {content}");
            } else {
                assert_eq!(got.content, sent, "{form:?} {content}");
                assert_eq!(got.field("content-length"), Some(&*sent.len().to_string()));
            }
            let coding = fields
                .lines()
                .find_map(|line| line.strip_prefix("Content-Encoding: "));
            assert_eq!(got.field("content-encoding"), coding);
            assert_eq!(got.field("proxy-status"), Some("damoov-proxy"));
        }
    }
}

#[tokio::test]
async fn the_first_piece_is_waited_for_and_no_other() {
    let scene = scene("30s").await;
    let mut caller = Wire::to(&scene.proxy).await;
    caller.write(request("GET", ECHO, "")).await;
    let mut api = scene.upstream.accept().await;
    api.head().await;
    let length = NO.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    api.write(head).await;
    let early = timeout(Duration::from_millis(200), caller.head()).await;
    assert!(early.is_err(), "the head waits for the first piece");
    // The only byte of the first piece says nothing, and the head goes.
    api.write("{").await;
    assert_eq!(caller.head().await.status(), 200);
    assert_eq!(caller.take(1).await, b"{");
    api.write(&NO[1..]).await;
    assert_eq!(caller.take(length - 1).await, &NO.as_bytes()[1..]);
    assert_eq!(scene.damoov.handle().counts().total.refreshes.all(), 0);
}

#[tokio::test]
async fn a_first_piece_that_stays_out_holds_the_head_up_for_response_timeout() {
    let scene = scene("300ms").await;
    let mut caller = Wire::to(&scene.proxy).await;
    caller.write(request("GET", ECHO, "")).await;
    let mut api = scene.upstream.accept().await;
    api.head().await;
    api.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    api.write("{}").await;
    assert_eq!(caller.take(2).await, b"{}");
}

#[tokio::test]
async fn what_cannot_hold_a_401_is_not_waited_for() {
    let scene = scene("30s").await;
    for (method, status, fields) in [
        ("HEAD", "200 OK", "Content-Type: application/json\r\n"),
        (
            "GET",
            "200 OK",
            "Content-Type: application/json\r\nContent-Encoding: br\r\n",
        ),
        (
            "GET",
            "200 OK",
            "Content-Type: application/json\r\nContent-Encoding: zstd\r\n",
        ),
        ("GET", "200 OK", "Content-Type: text/event-stream\r\n"),
        ("GET", "404 Not Found", "Content-Type: application/json\r\n"),
        (
            "GET",
            "206 Partial Content",
            "Content-Type: application/json\r\n",
        ),
    ] {
        let mut caller = Wire::to(&scene.proxy).await;
        caller.write(request(method, ECHO, "")).await;
        let mut api = scene.upstream.accept().await;
        api.head().await;
        let head =
            format!("HTTP/1.1 {status}\r\n{fields}Connection: close\r\nContent-Length: 2\r\n\r\n");
        api.write(head).await;
        assert_eq!(caller.head().await.head[9..12], status[..3], "{fields}");
        if method != "HEAD" {
            api.write("ok").await;
            assert_eq!(caller.take(2).await, b"ok");
        }
    }
}

#[tokio::test]
async fn a_first_piece_that_breaks_is_a_502() {
    let scene = scene("30s").await;
    for content in [
        "Content-Length: 9\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut caller = Wire::to(&scene.proxy).await;
        caller.write(request("GET", ECHO, "")).await;
        let mut api = scene.upstream.accept().await;
        api.head().await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        api.write(format!("{head}{content}")).await;
        api.close().await;
        assert_eq!(caller.message().await.code(), "upstream_bad_response");
    }
}
