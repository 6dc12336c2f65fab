//! Calls to hosts that the tests play, and which of them count as sent.

use super::*;
use crate::upstream::fixture::{self, HOST, OK, hear, listen, named, refusing, silent};
use crate::upstream::{Broken, Hosts, Scheme};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn plain(authority: String) -> Calls {
    let settings = fixture::settings(Scheme::Http, authority, None);
    calls(&Hosts::new(&settings).unwrap(), &settings)
}

fn calls(hosts: &Hosts, settings: &Settings) -> Calls {
    Calls::new(hosts.target(HOST).unwrap(), settings)
}

async fn call_within(calls: &Calls, time: Duration) -> Result<Option<Bytes>, CallFailure> {
    let head = Head {
        method: Method::POST,
        target: "/v1/Auth/Login".parse().unwrap(),
        headers: HeaderMap::new(),
    };
    let content = Bytes::from_static(b"login");
    let answer = calls.send(&head, content, 16, Instant::now() + time, || true);
    Ok(answer.await?.into_body())
}

async fn call(calls: &Calls) -> Result<Option<Bytes>, CallFailure> {
    call_within(calls, Duration::from_secs(10)).await
}

async fn serve(stream: &mut TcpStream, answer: &str) {
    let heard = hear(stream, "login").await;
    assert!(heard.starts_with("POST /v1/Auth/Login HTTP/1.1\r\nhost: "));
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn accept(listener: &TcpListener, answer: &str) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    serve(&mut stream, answer).await;
    stream
}

#[tokio::test]
async fn a_connection_is_used_again_unless_anything_lies_on_it() {
    let (listener, authority) = listen().await;
    let calls = plain(authority);
    let (answer, mut stream) = tokio::join!(call(&calls), accept(&listener, OK));
    assert_eq!(answer.unwrap().unwrap(), "ok");
    let (answer, ()) = tokio::join!(call(&calls), serve(&mut stream, OK));
    assert_eq!(answer.unwrap().unwrap(), "ok");
    // What was sent unasked, or the end, has come before the next call; nobody is told of it.
    for unasked in [OK, ""] {
        match unasked {
            "" => socket2::SockRef::from(&stream)
                .shutdown(std::net::Shutdown::Both)
                .unwrap(),
            unasked => assert!(stream.try_write(unasked.as_bytes()).unwrap() > 0),
        }
        fixture::something_lies_on(&mut calls.idle().connections[0].stream);
        let next = accept(&listener, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown");
        let (answer, next) = tokio::join!(call(&calls), next);
        assert_eq!(answer.unwrap().unwrap(), "own");
        stream = next;
    }
}

#[tokio::test]
async fn a_written_call_is_lost_with_its_connection_and_never_sent_again() {
    let (listener, authority) = listen().await;
    let calls = plain(authority);
    let (_, mut used) = tokio::join!(call(&calls), accept(&listener, OK));
    let dying = async {
        serve(&mut used, "").await;
        drop(used);
    };
    let (lost, ()) = tokio::join!(call(&calls), dying);
    assert!(matches!(
        lost,
        Err(CallFailure::Lost(Error::Broken(Broken::Cut)))
    ));
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    for answer in ["", begun] {
        let serving = async { drop(accept(&listener, answer).await) };
        let (lost, ()) = tokio::join!(call(&calls), serving);
        assert!(matches!(
            lost,
            Err(CallFailure::Lost(Error::Broken(Broken::Cut)))
        ));
    }
    // Nobody has come meanwhile but these.
    let next = accept(&listener, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown");
    let (answer, _) = tokio::join!(call(&calls), next);
    assert_eq!(answer.unwrap().unwrap(), "own");

    let brief = Duration::from_millis(100);
    let (lost, _) = tokio::join!(call_within(&calls, brief), listener.accept());
    assert!(matches!(lost, Err(CallFailure::Lost(_))));
}

#[tokio::test]
async fn what_was_not_written_was_not_sent() {
    let brief = Duration::from_millis(100);
    let (hole, _full) = silent().await;
    for (addresses, time) in [
        (vec![refusing().await], Duration::from_secs(10)),
        (vec![hole], brief),
        // The look-up of its name.
        (vec![], brief),
    ] {
        let (hosts, _) = named(Scheme::Http, "api.example", None, addresses);
        let settings = fixture::settings(Scheme::Http, String::new(), None);
        let calls = calls(&hosts, &settings);
        let failed = call_within(&calls, time).await;
        assert!(matches!(failed, Err(CallFailure::NotSent(_))), "{failed:?}");
    }

    // TLS that fails, and TLS that never comes about.
    let (acceptor, _) = fixture::tls("127.0.0.1", &[]);
    for hangs in [false, true] {
        let (listener, authority) = listen().await;
        let settings = fixture::settings(Scheme::Https, authority, None);
        let calls = calls(&Hosts::new(&settings).unwrap(), &settings);
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            match hangs {
                true => while stream.read(&mut [0; 512]).await.unwrap_or(0) > 0 {},
                false => assert!(acceptor.accept(stream).await.is_err()),
            }
        };
        let (failed, ()) = tokio::join!(call_within(&calls, 3 * brief), serving);
        assert!(matches!(failed, Err(CallFailure::NotSent(_))), "{failed:?}");
    }
}

#[tokio::test]
async fn over_tls_a_call_is_answered_and_its_connection_used_again() {
    let (acceptor, folder) = fixture::tls("127.0.0.1", &[b"h2", b"http/1.1"]);
    let (listener, authority) = listen().await;
    let ca_file = Some(folder.path().join("ca.pem"));
    let settings = fixture::settings(Scheme::Https, authority, ca_file);
    let calls = calls(&Hosts::new(&settings).unwrap(), &settings);
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        for _ in 0..3 {
            hear(&mut stream, "login").await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        // A part of the last one, then nothing.
        hear(&mut stream, "login").await;
    };
    let calling = async {
        for _ in 0..3 {
            assert_eq!(call(&calls).await.unwrap().unwrap(), "ok");
        }
        call(&calls).await
    };
    let (lost, ()) = tokio::join!(calling, serving);
    assert!(matches!(lost, Err(CallFailure::Lost(_))));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_has_no_content_and_no_second_call() {
    for framing in ["Content-Length: 17\r\n\r\n", "\r\n"] {
        let (listener, authority) = listen().await;
        let calls = plain(authority);
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}{}", "x".repeat(17));
        let (answer, mut stream) = tokio::join!(call(&calls), accept(&listener, &answer));
        assert_eq!(answer.unwrap(), None);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_connection_of_age_or_idle_for_too_long_is_closed() {
    let (listener, authority) = listen().await;
    let mut settings = fixture::settings(Scheme::Http, authority, None);
    settings.idle_timeout = Duration::from_millis(40);
    let calls = calls(&Hosts::new(&settings).unwrap(), &settings);
    // Twice: the one that closes them ends with the last one, and begins anew.
    for _ in 0..2 {
        let (answer, mut stream) = tokio::join!(call(&calls), accept(&listener, OK));
        assert_eq!(answer.unwrap().unwrap(), "ok");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "nobody calls");
    }

    let (listener, _) = listen().await;
    let address = listener.local_addr().unwrap();
    let (hosts, network) = named(Scheme::Http, "api.example", None, vec![address]);
    settings.idle_timeout = 2 * MAX_AGE;
    let calls = Calls::new(hosts.target(HOST).unwrap(), &settings);
    let (answer, mut old) = tokio::join!(call(&calls), accept(&listener, OK));
    assert_eq!(answer.unwrap().unwrap(), "ok");
    tokio::time::pause();
    tokio::time::advance(MAX_AGE).await;
    tokio::time::resume();
    let (answer, _) = tokio::join!(call(&calls), accept(&listener, OK));
    assert_eq!(answer.unwrap().unwrap(), "ok");
    assert_eq!(old.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(network.asked(), 2);
}
