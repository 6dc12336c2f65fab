//! How calls fail, and which are sent once more.

use super::*;

/// What is wrong with a host that answers a request with this, and closes.
async fn told(answer: &str) -> Error {
    let (listener, authority) = listen().await;
    let (pool, _) = plain(authority, limits(1));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear(&mut stream).await;
        say(&mut stream, answer).await;
    };
    let (received, ()) = tokio::join!(get(&pool), serving);
    received.unwrap_err()
}

#[tokio::test(flavor = "local")]
async fn a_repeatable_request_that_hits_a_dead_connection_is_sent_once_more() {
    for (method, repeated) in [
        (Method::GET, true),
        (Method::HEAD, true),
        (Method::OPTIONS, true),
        (Method::POST, false),
        (Method::DELETE, false),
    ] {
        let (listener, authority) = listen().await;
        let (pool, _) = plain(authority, limits(1));
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            hear(&mut stream).await;
            say(&mut stream, OK).await;
            // The second request arrives and the connection dies.
            hear(&mut stream).await;
            drop(stream);
            let (mut stream, _) = listener.accept().await.unwrap();
            hear(&mut stream).await;
            say(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
        };
        let calling = async {
            text(get(&pool).await.unwrap()).await;
            pool.send(
                &pool.target,
                &head(method.clone()),
                Full::default(),
                Instant::now(),
                std::future::pending(),
            )
            .await
        };
        let answer = tokio::select! {
            answer = calling => answer,
            () = async { serving.await; std::future::pending().await } => unreachable!(),
        };
        match answer {
            Ok(answer) => assert!(repeated && answer.status() == 204, "{method}"),
            Err(error) => {
                assert!(!repeated, "{method}");
                assert!(matches!(error, Error::Broken(_)), "{method}: {error:?}");
            }
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_whose_answer_had_begun_is_not_sent_again() {
    let (listener, authority) = listen().await;
    let (pool, _) = plain(authority, limits(1));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear(&mut stream).await;
        say(&mut stream, OK).await;
        hear(&mut stream).await;
        say(&mut stream, "HTTP/1.1 200 OK\r\nConte").await;
        drop(stream);
        listener.accept().await.unwrap();
    };
    let calling = async {
        text(get(&pool).await.unwrap()).await;
        get(&pool).await
    };
    tokio::select! {
        answer = calling => assert!(matches!(answer, Err(Error::Broken(_)))),
        () = serving => panic!("the request was sent again"),
    }
}

#[tokio::test(flavor = "local")]
async fn a_new_connection_that_dies_is_an_error_at_once() {
    assert!(matches!(told("").await, Error::Broken(_)));
}

#[tokio::test(flavor = "local")]
async fn bad_answers_are_told_apart() {
    for (answer, expected) in [
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "Switched",
        ),
        ("SMTP ready\r\n\r\n", "Broken(Head(Version))"),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "Broken(Head(HeaderName))",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "Framing",
        ),
    ] {
        assert_eq!(format!("{:?}", told(answer).await), expected, "{answer}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_late_answer_and_a_refused_connection_are_told_apart() {
    let (listener, authority) = listen().await;
    let (pool, _) = plain(authority, limits(1));
    let request = head(Method::GET);
    let late = pool.send(
        &pool.target,
        &request,
        Full::default(),
        Instant::now(),
        async {},
    );
    assert!(matches!(late.await, Err(Error::ResponseTimeout)));
    drop(listener);
    assert!(matches!(get(&pool).await, Err(Error::Unreachable(_))));
}

#[tokio::test(flavor = "local")]
async fn an_early_answer_is_not_lost_when_the_host_closes() {
    let (listener, authority) = listen().await;
    // So that the content does not fit into the buffers.
    let socket = socket2::SockRef::from(&listener);
    socket.set_recv_buffer_size(4096).unwrap();
    let (pool, _) = plain(authority, limits(1));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear(&mut stream).await;
        say(&mut stream, OK).await;
    };
    let post = head(Method::POST);
    let content = Full::from(vec![0; 8 * 1024 * 1024]);
    let calling = pool.send(
        &pool.target,
        &post,
        content,
        Instant::now(),
        std::future::pending(),
    );
    let (answer, ()) = tokio::join!(calling, serving);
    assert_eq!(answer.unwrap().status(), 200);
}
