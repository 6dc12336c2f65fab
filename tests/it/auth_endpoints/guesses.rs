//! Wrong passwords, as fast as one peer can send them, or several.

use std::net::IpAddr;
use std::time::Duration;

use damoov_proxy::simulator::INSTANCE_KEY;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::Instant;

use super::{Tokens, assert_refused, log_in, log_in_account, log_in_with, refresh};
use crate::harness::{Proxy, SCORES, damoov, proxy, user};
use crate::wire::{Message, Wire};

/// A login of user 1.
fn login(password: &str) -> String {
    let fields = json!({"Devicetoken": user(1).to_string()}).to_string();
    let content = json!({"LoginFields": fields, "Password": password}).to_string();
    format!(
        "POST /v1/Auth/Login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    )
}

/// Connects from this address on loopback.
async fn from(address: &str, proxy: &Proxy) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    let address: IpAddr = address.parse().unwrap();
    socket.bind((address, 0).into()).unwrap();
    Wire::over(socket.connect(proxy.address()).await.unwrap())
}

/// Five wrong ones, each compared at once.
async fn limit(proxy: &Proxy) {
    for _ in 0..5 {
        let answer = log_in_with(proxy, 1, "wrong").await;
        assert_refused(&answer, 401, "password_wrong");
        assert!(!answer.header("www-authenticate").is_empty());
    }
}

#[tokio::test]
async fn however_many_guesses_come_one_a_second_is_compared() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let guess = login("guess");
    let began = Instant::now();
    let guessing = (0..50).map(async |_| {
        let mut wire = Wire::to(&proxy).await;
        let mut answers = Vec::new();
        while began.elapsed() < Duration::from_secs(2) {
            answers.push(wire.ask(&guess).await);
        }
        answers
    });
    let answers: Vec<Message> = join_all(guessing).await.into_iter().flatten().collect();
    let took = began.elapsed();
    let wrong = answers.iter().filter(|one| one.status() == 401).count();
    let seconds = usize::try_from(took.as_secs()).unwrap();
    assert!((5..=5 + seconds).contains(&wrong), "{wrong} in {took:?}");
    assert!(answers.len() > 500, "{} in {took:?}", answers.len());
    for answer in answers.iter().filter(|one| one.status() != 401) {
        let said = (
            answer.status(),
            &*answer.code(),
            answer.field("retry-after"),
        );
        assert_eq!(said, (429, "caller_limited", Some("1")));
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);

    // The right one is compared no sooner than a guess would be.
    let began = Instant::now();
    for _ in 0..2 {
        Tokens::of(&log_in(&proxy, 1).await);
    }
    assert!(began.elapsed() > Duration::from_millis(990), "{began:?}");
    proxy.has_logged("wrong passwords come too often").await;
}

#[tokio::test]
async fn while_somebody_guesses_other_logins_and_our_tokens_pass_at_once() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&proxy, 1).await);
    limit(&proxy).await;
    let mut guesser = Wire::to(&proxy).await;
    guesser.write(login("guess")).await;
    let began = Instant::now();
    assert_eq!(proxy.send(tokens.get(SCORES)).await.status, 200);
    Tokens::of(&refresh(&proxy, &tokens.access, &tokens.refresh).await);
    // Nor is a token that nobody handed out a guess at a password.
    for _ in 0..20 {
        let forged = refresh(&proxy, &tokens.access, "forged").await;
        assert_refused(&forged, 401, "token_invalid");
    }
    Tokens::of(&log_in_account(&proxy).await);
    assert!(began.elapsed() < Duration::from_millis(900), "{began:?}");
    assert_eq!(guesser.message().await.status(), 401);
}

#[tokio::test]
async fn a_peer_has_one_place_and_another_one_gets_its_turn() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).scaled(4).start().await;
    limit(&proxy).await;
    let guessing = async {
        let mut wire = from("127.0.0.2", &proxy).await;
        loop {
            let status = wire.ask(login("guess")).await.status();
            assert!(status == 401 || status == 429, "{status}");
        }
    };
    let honest = async {
        let mut wire = from("127.0.0.3", &proxy).await;
        while wire.ask(login(INSTANCE_KEY)).await.status() == 429 {}
    };
    tokio::select! {
        () = guessing => unreachable!("it goes on for ever"),
        () = honest => {}
    }

    // One of each address waits, and eight of all.
    for (addresses, places) in [(4, 4), (12, 8)] {
        let guesses = (0..24).map(async |number| {
            let address = format!("127.0.0.{}", 10 + number % addresses);
            let mut wire = from(&address, &proxy).await;
            wire.ask(login("guess")).await.status()
        });
        let answers = join_all(guesses).await;
        let compared = answers.iter().filter(|status| **status == 401).count();
        let refused = answers.iter().filter(|status| **status == 429).count();
        assert_eq!(compared + refused, 24);
        // Those whose turn comes before the last one has asked leave their places.
        assert!((places..=places + 2).contains(&compared), "{compared}");
    }
}

#[tokio::test]
async fn a_minute_without_a_wrong_password_ends_the_limit() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).scaled(60).start().await;
    limit(&proxy).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let began = Instant::now();
    limit(&proxy).await;
    assert!(began.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn on_a_unix_socket_the_peer_is_the_user_that_connected() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let path = builder.folder().join("proxy.sock");
    let listen = format!(r#"["127.0.0.1:0", {{ unix = "{}" }}]"#, path.display());
    let proxy = builder.set("listen", &listen).start().await;
    limit(&proxy).await;
    let ask = async || {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = login("guess").replacen("\r\n", "\r\nConnection: close\r\n", 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[..12].to_owned()
    };
    let mut answers = <[_; 2]>::from(tokio::join!(ask(), ask()));
    answers.sort();
    assert_eq!(answers, ["HTTP/1.1 401", "HTTP/1.1 429"]);
    // Who comes over TCP is another peer.
    let (unix, tcp) = tokio::join!(ask(), log_in_with(&proxy, 1, "wrong"));
    assert_eq!((&*unix, tcp.status.as_u16()), ("HTTP/1.1 401", 401));
}
