//! Where a request ends must be beyond doubt (RFC 9112 §6).

use crate::harness::{ECHO, PlayedScene, SCORES, Scene};
use crate::wire::{Wire, request};

#[tokio::test]
async fn a_content_length_that_is_not_one_plain_number_ends_the_connection() {
    let scene = Scene::new().await;
    for lengths in [
        "Content-Length: 001\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1.0\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 0\r\nContent-Length: 1\r\n",
        // Which hyper takes for one and the same.
        "Content-Length: 1\r\nContent-Length: 01\r\n",
        "Content-Length: 01\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nX-Between: 1\r\ncontent-length:1\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 18446744073709551616\r\n",
    ] {
        let request = request("POST", ECHO, lengths);
        scene.is_the_end(&request, &[400]).await;
        // Empty lines may come before a head (RFC 9112 §2.2).
        scene.is_the_end(format!("\r\n\r\n{request}"), &[400]).await;
    }
}

#[tokio::test]
async fn a_transfer_encoding_other_than_chunked_once_ends_the_connection() {
    let scene = Scene::new().await;
    for codings in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \r\n",
    ] {
        let request = request("POST", ECHO, codings) + "0\r\n\r\n";
        scene.is_the_end(request, &[400, 501]).await;
    }
    let old = request("POST", ECHO, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n";
    let old = old.replace("HTTP/1.1", "HTTP/1.0");
    scene.is_the_end(old, &[400, 501]).await;
}

#[tokio::test]
async fn beside_transfer_encoding_no_length_counts_and_the_connection_ends() {
    let scene = Scene::new().await;
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let mut wire = Wire::to(&scene.proxy).await;
        let first = request("POST", ECHO, fields) + "3\r\nabc\r\n0\r\n\r\n";
        let behind = request("GET", "/mobilesdk/stage/echo?behind", "");
        wire.write(first + &behind).await;
        let answer = wire.message().await;
        assert!(matches!(answer.status(), 200 | 400), "{}", answer.head);
        assert!(wire.rest().await.is_empty(), "a second answer to {fields}");
    }
    for heard in scene.damoov.handle().requests() {
        assert_eq!((&*heard.target, heard.content_length), (ECHO, 3));
    }
}

#[tokio::test]
async fn bad_chunks_end_the_connection() {
    let scene = Scene::new().await;
    let oversized = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        &oversized,
    ] {
        let mut wire = Wire::to(&scene.proxy).await;
        let behind = request("GET", "/mobilesdk/stage/echo?behind", "");
        let head = request("POST", ECHO, "Transfer-Encoding: chunked\r\n");
        wire.write(head + chunks + &behind).await;
        let answer = wire.message().await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (400, "bad_request"),
            "{chunks:.20}"
        );
        assert!(answer.closes());
        assert!(wire.rest().await.is_empty(), "a second answer to {chunks}");
    }
    assert_eq!(scene.damoov.handle().counts().total.data_calls, 0);
}

#[tokio::test]
async fn a_request_cut_in_its_content_is_aborted_upstream_too() {
    let scene = PlayedScene::new().await;
    let head = request("POST", ECHO, "Transfer-Encoding: chunked\r\n");
    let (mut wire, mut half_sent) = scene.asked(head + "3\r\nabc\r\n").await;
    assert_eq!(half_sent.chunk().await.unwrap(), b"abc");
    wire.write("nonsense\r\n").await;
    assert_eq!(wire.message().await.status(), 400);
    assert_eq!(half_sent.rest().await, b"", "no last chunk is made up");

    let (next, _api) = scene.answered("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(next.status(), 204);
}

#[tokio::test]
async fn sized_and_chunked_content_follow_each_other_on_one_connection() {
    let scene = Scene::new().await;
    let mut wire = Wire::to(&scene.proxy).await;
    let sized = request("POST", ECHO, "Content-Length: 3\r\n") + "abc";
    let chunked = request("POST", ECHO, "Transfer-Encoding: Chunked\r\n")
        + "1;ext=1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
    let none = request("GET", SCORES, "X-Test-Id: none\r\n");
    wire.write(sized + &chunked + &none).await;
    for _ in 0..3 {
        assert_eq!(wire.message().await.status(), 200);
    }
    let heard = scene.damoov.handle().requests();
    let lengths: Vec<_> = heard.iter().map(|request| request.content_length).collect();
    assert_eq!(lengths, [3, 3, 0]);
}
