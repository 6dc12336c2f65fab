//! Callers, and answers to registrations, that are not what they should be.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use damoov_proxy::simulator::{INSTANCE_ID, INSTANCE_KEY};
use serde_json::json;

use super::{ADMIN, Tokens, log_in};
use crate::harness::{SCORES, damoov, proxy, user};
use crate::wire::{Message, Upstream, Wire};

const HOST: &str = "user.telematicssdk.com";

/// A request with content, as it stands on the wire.
fn posted(path: &str, fields: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{content}"
    )
}

fn login(number: usize) -> String {
    let fields = json!({"Devicetoken": user(number).to_string()}).to_string();
    json!({"LoginFields": fields, "Password": INSTANCE_KEY}).to_string()
}

/// Answers to registrations, each on a connection of its own, through one proxy.
async fn registered(answers: &[(&str, String)]) -> Vec<Message> {
    let damoov = damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = proxy(&damoov).redirect(HOST, &upstream.url()).start().await;
    let mut received = Vec::new();
    for (head, content) in answers {
        let mut caller = Wire::to(&proxy).await;
        caller
            .write(posted("/v1/Registration/create", "", "{}"))
            .await;
        let length = content.len();
        let answer = format!(
            "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}"
        );
        upstream.answer_once(&answer).await.close().await;
        received.push(caller.message().await);
    }
    received
}

#[tokio::test]
async fn whatever_the_answer_to_a_registration_looks_like_no_real_token_passes() {
    let user = user(1);
    let access = r#""AccessToken":{"Token":"real-jwt","ExpiresIn":9}"#;
    let tokens = format!(r#""DeviceToken":"{user}",{access},"RefreshToken":"real-refresh""#);
    let answers = [
        format!(r#"{{"Result":{{{tokens}}},"Status":200}}"#),
        format!(r#"{{{tokens}}}"#),
        format!(r#"{{"Result":{{{tokens},{access}}},"Status":200}}"#),
        format!(r#"{{"Result":{{{tokens}}},"Status":422}}"#),
        format!(r#"{{"Result":{{{tokens}}},"Status":"200"}}"#),
        format!(r#"{{"Result":{{{access},"RefreshToken":"real-refresh"}},"Status":200}}"#),
        format!(
            r#"{{"Result":{{"DeviceToken":"{user}",{access},"RefreshToken":5}},"Status":200}}"#
        ),
        format!(r#"{{"Result":{{"DeviceToken":"{user}",{access},"RefreshToken":["real"]}}}}"#),
        format!(r#"{{"Result":{{"DeviceToken":"{user}","AccessToken":"real-jwt"}},"Status":200}}"#),
        format!(r#"{{"Result":{{"DeviceToken":"{user}","AccessToken":["real-jwt",9]}}}}"#),
        format!(r#"{{"Result":["{user}",{{"Token":"real-jwt"}},"real-refresh"],"Status":200}}"#),
        format!(r#"{{"Result":{{"User":{{{tokens}}}}},"Status":200}}"#),
        format!(r#"{{"Result":null,"Status":200,{access}}}"#),
        format!(r#"{{"result":{{{tokens}}},"status":200}}"#),
        r#"{"result":{"accessToken":{"token":"real-jwt"},"refreshToken":"real-refresh"}}"#.into(),
    ]
    .map(|content| ("200 OK", content));
    let received = registered(&answers).await;
    for (answer, (_, content)) in received.iter().zip(&answers) {
        let text = String::from_utf8_lossy(&answer.content);
        assert!(!text.contains("real"), "{content} → {text}");
        let expected = if answer.status() == 200 {
            ""
        } else {
            "upstream_bad_response"
        };
        assert_eq!(answer.code(), expected, "{content} → {text}");
    }
    assert_eq!((received[0].status(), received[1].status()), (200, 200));
}

#[tokio::test]
async fn a_registration_may_be_201_without_tokens_or_named_by_its_jwt_alone() {
    let claims = format!(r#"{{"DeviceToken":"{}","iat":0,"exp":9000}}"#, user(2));
    let jwt = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    let tokens = format!(r#""AccessToken":{{"Token":"{jwt}"}},"RefreshToken":"real""#);
    let empty = r#"{"Result":{"DeviceToken":"x","AccessToken":{"Token":null,"ExpiresIn":0},"RefreshToken":""},"Status":200}"#;
    let received = registered(&[
        (
            "201 Created",
            format!(r#"{{"Result":{{{tokens}}},"Status":200}}"#),
        ),
        ("200 OK", empty.to_owned()),
        ("202 Accepted", String::new()),
    ])
    .await;
    let statuses: Vec<_> = received.iter().map(Message::status).collect();
    assert_eq!(statuses, [201, 200, 202]);
    let content: serde_json::Value = serde_json::from_slice(&received[0].content).unwrap();
    let token = content["Result"]["AccessToken"]["Token"].as_str().unwrap();
    assert_ne!(token, jwt);
    assert_ne!(content["Result"]["RefreshToken"], "real");
    assert!(String::from_utf8_lossy(&received[1].content).contains(r#""Token":null"#));
}

#[tokio::test]
async fn of_two_bearers_neither_counts() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&proxy, 1).await);
    let line = format!("Authorization: Bearer {}\r\n", tokens.access);
    for path in [SCORES, ADMIN] {
        for fields in [
            format!("{line}{line}"),
            format!("{line}Authorization: Basic eA==\r\n"),
            format!("Authorization: Bearer x\r\n{line}"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            let answer = Wire::to(&proxy).await.ask(request).await;
            assert_eq!((answer.status(), &*answer.code()), (401, "token_invalid"));
        }
    }
    // However its one line is written.
    for line in ["bearer", "BEARER ", "Bearer  "] {
        let line = format!("Authorization: {line} {} \t\r\n", tokens.access);
        let request = format!("GET {SCORES} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n");
        assert_eq!(
            Wire::to(&proxy).await.ask(request).await.status(),
            200,
            "{line}"
        );
    }
}

#[tokio::test]
async fn odd_content_is_refused_and_the_connections_next_login_answered() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let mut caller = Wire::to(&proxy).await;
    let good = login(1);
    let utf_16: String = good.chars().flat_map(|c| ['\0', c]).collect();
    for content in [
        "[".repeat(60_000),
        format!("{{\"LoginFields\":{}", "{\"a\":".repeat(10_000)),
        format!("{{\"LoginFields\":\"{}\"}}", "[".repeat(60_000)),
        format!("\u{feff}\u{feff}{good}"),
        utf_16,
        format!("{good}{good}"),
        format!("{}\0", good),
    ] {
        for path in ["/v1/Auth/Login", "/v1/Auth/RefreshToken"] {
            let answer = caller.ask(posted(path, "", &content)).await;
            assert_eq!((answer.status(), &*answer.code()), (400, "bad_request"));
        }
    }
    assert_eq!(
        caller
            .ask(posted("/v1/Auth/Login", "", &good))
            .await
            .status(),
        200
    );
    for (instance, status) in [
        (INSTANCE_ID.replace('-', "").to_uppercase(), 200),
        (format!("{{{INSTANCE_ID}}}"), 400),
        (String::new(), 400),
        (format!("{INSTANCE_ID}\r\nInstanceId: {INSTANCE_ID}"), 400),
        ("22222222-2222-4222-8222-222222222222".to_owned(), 403),
    ] {
        let fields = format!("InstanceId: {instance}\r\n");
        let answer = caller.ask(posted("/v1/Auth/Login", &fields, &good)).await;
        assert_eq!(answer.status(), status, "{instance:?}");
    }
}

#[tokio::test]
async fn a_login_comes_however_its_content_comes_or_not_at_all() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let content = login(1);
    let length = content.len();
    let head = "POST /v1/Auth/Login HTTP/1.1\r\nHost: localhost\r\n";

    let mut chunked = Wire::to(&proxy).await;
    chunked
        .write(format!("{head}Transfer-Encoding: chunked\r\n\r\n"))
        .await;
    for byte in content.bytes() {
        chunked
            .write([b"1\r\n", &[byte][..], b"\r\n"].concat())
            .await;
    }
    assert_eq!(chunked.ask("0\r\n\r\n").await.status(), 200);

    let mut expecting = Wire::to(&proxy).await;
    expecting
        .write(format!(
            "{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    assert_eq!(expecting.head().await.status(), 100);
    assert_eq!(expecting.ask(&content).await.status(), 200);

    let mut cut = Wire::to(&proxy).await;
    cut.write(format!(
        "{head}Content-Length: {length}\r\n\r\n{}",
        &content[..9]
    ))
    .await;
    cut.close_half().await;
    let rest = String::from_utf8(cut.rest().await).unwrap();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 400"),
        "{rest}"
    );
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}
