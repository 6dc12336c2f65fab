//! Logins, refreshes, registrations, moved and deleted users.

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::ACCOUNT_EMAIL;

use super::*;
use crate::harness::{captured, principal};

/// A proxy whose Auth endpoints the test plays, with a login for each of its users.
async fn with_many_logins() -> (Simulator, Played, Proxy) {
    let damoov = damoov().await;
    let auth = Played::start().await;
    let proxy = proxy(&damoov)
        .redirect(USERS, &auth.url)
        .set("login_budget.logins", "100")
        .start()
        .await;
    (damoov, auth, proxy)
}

#[tokio::test]
async fn a_login_and_a_refresh_are_read_in_every_form() {
    let (damoov, auth, proxy) = with_many_logins().await;
    for (number, form) in FORMS.into_iter().enumerate() {
        auth.answers(LOGIN, form.answer("200 OK", &granted(&damoov, number)));
        let answer = proxy.get(number, SCORES).await;
        assert_eq!(answer.served_as(), user(number).to_string(), "{form:?}");

        damoov.handle().expire(Some(&principal(number)));
        auth.answers(REFRESH, form.answer("200 OK", &granted(&damoov, number)));
        let answer = proxy.get(number, SCORES).await;
        assert_eq!(answer.served_as(), user(number).to_string(), "{form:?}");
        assert_eq!(
            (auth.heard(LOGIN), auth.heard(REFRESH)),
            (number + 1, number + 1)
        );
    }
    assert_eq!(proxy.metric("auth_answers_unreadable_total", "").await, 0.0);
    let state = auth.state.lock().unwrap();
    let asked = |request: &Message| request.field("accept-encoding") == Some("identity");
    assert!(state.heard.iter().all(asked), "identity is asked for");
}

#[tokio::test]
async fn a_definite_no_is_understood_in_every_form() {
    let (damoov, auth, proxy) = with_many_logins().await;
    proxy.import(&damoov, 0..FORMS.len());
    let no = r#"{"Result":null,"Status":400,"Title":"","Errors":[]}"#;
    for (number, form) in FORMS.into_iter().enumerate().take(4) {
        // Its RefreshToken is dead: it logs in, at once.
        damoov.handle().expire(Some(&principal(number)));
        auth.answers(REFRESH, form.answer("400 Bad Request", no));
        auth.answers(LOGIN, form.answer("200 OK", &granted(&damoov, number)));
        let answer = proxy.get(number, SCORES).await;
        assert_eq!(answer.served_as(), user(number).to_string(), "{form:?}");
        assert_eq!(
            (auth.heard(LOGIN), auth.heard(REFRESH)),
            (number + 1, number + 1)
        );
    }
}

#[tokio::test]
async fn an_answer_with_tokens_that_cannot_be_read_is_told_once_and_counted() {
    let damoov = damoov().await;
    let good = granted(&damoov, 1);
    let token = good
        .split("\"Token\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let twice = good.replacen('{', r#"{"Result":null,"#, 1);
    let inner = good.replacen(
        "\"RefreshToken\"",
        "\"RefreshToken\":\"x\",\"RefreshToken\"",
        1,
    );
    let brotli = Form::Sized.answer("200 OK\r\nContent-Encoding: br", &good);
    let cut = Form::Gzip.of(good.as_bytes()).1;
    let cut = [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            cut.len() - 20
        )
        .into_bytes(),
        cut[..cut.len() - 20].to_vec(),
    ]
    .concat();
    let long = format!("{good}{}", " ".repeat(65 << 10));
    let text = |form: Form| String::from_utf8(form.answer("200 OK", &good)).unwrap();
    let both = text(Form::Chunked).replacen("\r\n", "\r\nContent-Length: 9\r\n", 1);
    let lengths = text(Form::Sized).replacen(
        "Content-Length: ",
        "Content-Length: 1\r\nContent-Length: 0",
        1,
    );
    let (both, lengths) = (both.into_bytes(), lengths.into_bytes());
    for (reason, answer) in [
        ("coding", brotli),
        ("coding", cut),
        ("too_long", Form::Gzip.answer("200 OK", &long)),
        ("too_long", Form::Chunked.answer("200 OK", &long)),
        ("not_json", Form::Gzip.answer("200 OK", "<html>")),
        ("name_twice", Form::Marked.answer("200 OK", &twice)),
        ("name_twice", Form::Sized.answer("200 OK", &inner)),
        ("framing", both),
        ("framing", lengths),
        (
            "unexpected",
            Form::Sized.answer("200 OK", r#"{"Result":{"a":1},"Status":200}"#),
        ),
    ] {
        let auth = Played::start().await;
        let proxy = proxy(&damoov).redirect(USERS, &auth.url).start().await;
        proxy.import(&damoov, [1]);
        damoov.handle().expire(None);
        auth.answers(REFRESH, answer);
        let answer = proxy.get(1, SCORES).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (502, "auth_bad_response")
        );
        let refreshes = auth.heard(REFRESH);
        let labels = format!("endpoint=\"refresh\",reason=\"{reason}\"");
        let counted = proxy.metric("auth_answers_unreadable_total", &labels).await;
        assert_eq!(counted, refreshes as f64, "{reason}");
        assert_eq!(auth.heard(LOGIN), 0, "the pair stays");
        let lost = "cannot be read, and the tokens in it";
        proxy.has_logged(lost).await;
        let log = proxy.log();
        let told = log.lines().filter(|line| line.contains(lost));
        let told: Vec<_> = told.collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("ERROR") && !log.contains(token),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn a_pair_is_that_of_the_user_it_was_asked_for() {
    let (damoov, auth, proxy) = with_many_logins().await;
    // Named in the answer, in the JWT, or in both.
    let other = granted(&damoov, 1);
    let nobody = |text: &str| {
        let mut answer: Value = serde_json::from_str(text).unwrap();
        answer["Result"]
            .as_object_mut()
            .unwrap()
            .remove("DeviceToken");
        answer.to_string()
    };
    let mine = granted(&damoov, 2);
    let mixed = mine.replace(&user(2).to_string(), &user(1).to_string());
    for answer in [nobody(&other), mixed] {
        auth.answers(LOGIN, Form::Sized.answer("200 OK", &answer));
        let refused = proxy.get(2, SCORES).await;
        assert_eq!(refused.code(), "auth_bad_response");
    }
    assert_eq!(proxy.metric("tokens_stored", "").await, 0.0);
}

#[tokio::test]
async fn an_answer_that_names_nobody_is_believed_and_warned_of_once() {
    let damoov = damoov().await;
    let auth = Played::start().await;
    let proxy = proxy(&damoov).redirect(USERS, &auth.url).start().await;
    for number in 1..=3 {
        let content = format!(
            r#"{{"Result":{{"AccessToken":{{"Token":"opaque-{number}","ExpiresIn":9000}},"RefreshToken":"r"}},"Status":200}}"#
        );
        auth.answers(LOGIN, Form::Sized.answer("200 OK", &content));
        // The simulator does not know the token.
        proxy.get(number, SCORES).await;
    }
    let warning = "names no user";
    proxy.has_logged(warning).await;
    let log = proxy.log();
    let warned = log.lines().filter(|line| line.contains(warning));
    assert_eq!(warned.count(), 1, "{log}");
}

#[tokio::test]
async fn the_late_answer_of_a_login_is_nobody_elses() {
    let damoov = damoov().await;
    let auth = Upstream::listen().await;
    let proxy = proxy(&damoov)
        .redirect(USERS, &auth.url())
        .set("renewal.timeout", "300ms")
        .start()
        .await;
    let first = proxy.calling(1, SCORES);
    let mut given_up = auth.accept().await;
    given_up.message().await;
    assert_eq!(
        given_up.rest().await,
        b"",
        "closed once no caller waits any more"
    );
    given_up
        .write(Form::Sized.answer("200 OK", &granted(&damoov, 1)))
        .await;
    let second = proxy.calling(2, SCORES);
    let serving = async {
        loop {
            let mut wire = auth.accept().await;
            let asked = String::from_utf8(wire.message().await.content).unwrap();
            let number = if asked.contains(&user(2).to_string()) {
                2
            } else {
                1
            };
            wire.write(Form::Sized.answer("200 OK", &granted(&damoov, number)))
                .await;
        }
    };
    tokio::select! {
        answer = second => assert_eq!(answer.unwrap().served_as(), user(2).to_string()),
        () = serving => {}
    }
    first.abort();
}

#[tokio::test]
async fn a_registrations_tokens_are_kept_in_every_form() {
    let damoov = damoov().await;
    let auth = Played::start().await;
    let proxy = proxy(&damoov).redirect(USERS, &auth.url).start().await;
    for (number, form) in FORMS.into_iter().enumerate() {
        let real = granted(&damoov, number);
        let real: Value = serde_json::from_str(&real).unwrap();
        let real_refresh = real["Result"]["RefreshToken"].as_str().unwrap();
        auth.answers("/create", form.answer("200 OK", &real.to_string()));
        let asked = Request::post("/v1/Registration/create").header("Accept-Encoding", "gzip, br");
        let answer = proxy.send_with(asked, "{}").await;
        assert_eq!(answer.status, 200, "{form:?} {}", answer.text());
        assert_eq!(answer.header("content-encoding"), "");
        let content: Value = serde_json::from_slice(answer.content()).unwrap();
        assert_eq!(content["Result"]["DeviceToken"], user(number).to_string());
        assert!(!answer.text().contains(real_refresh));
        let served = proxy.get(number, SCORES).await;
        assert_eq!(served.served_as(), user(number).to_string(), "{form:?}");
    }
    assert_eq!(auth.heard(LOGIN), 0, "logins saved");

    let unknown = Form::Sized.answer("200 OK\r\nContent-Encoding: br", &granted(&damoov, 50));
    auth.answers("/create", unknown);
    let answer = proxy
        .send_with(Request::post("/v1/Registration/create"), "{}")
        .await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (502, "upstream_bad_response")
    );
    let labels = "endpoint=\"registration\",reason=\"coding\"";
    assert_eq!(
        proxy.metric("auth_answers_unreadable_total", labels).await,
        1.0
    );
}

/// A call of a caller, whose content has this form.
fn posted(path: &str, form: Form, content: &str) -> Vec<u8> {
    let (fields, content) = form.of(content.as_bytes());
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    [head.into_bytes(), content].concat()
}

fn login(number: usize) -> String {
    let fields = json!({"Devicetoken": user(number).to_string()}).to_string();
    json!({"LoginFields": fields, "Password": INSTANCE_KEY}).to_string()
}

#[tokio::test]
async fn callers_logins_and_refreshes_are_read_in_every_form() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let mut caller = Wire::to(&proxy).await;
    for form in FORMS.into_iter().filter(|form| *form != Form::UntilClose) {
        let answer = caller.ask(posted("/v1/Auth/Login", form, &login(1))).await;
        assert_eq!(answer.status(), 200, "{form:?}");
        let content: Value = serde_json::from_slice(&answer.content).unwrap();
        let refresh = json!({
            "AccessToken": content["Result"]["AccessToken"]["Token"],
            "RefreshToken": content["Result"]["RefreshToken"],
        });
        let refresh = refresh.to_string();
        let answer = caller
            .ask(posted("/v1/Auth/RefreshToken", form, &refresh))
            .await;
        assert_eq!(answer.status(), 200, "{form:?}");
    }
    // Neither what is unknown nor what is too long is guessed at.
    let (good, long) = (login(1), login(1) + &" ".repeat(64 << 10));
    let as_brotli = |content: &str| {
        let length = content.len();
        format!(
            "POST /v1/Auth/Login HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: br\r\nContent-Length: {length}\r\n\r\n{content}"
        )
    };
    let as_gzip = as_brotli(&good).replace("br", "gzip");
    for (request, status, code) in [
        (as_brotli(&good).into_bytes(), 400, "bad_request"),
        (as_gzip.into_bytes(), 400, "bad_request"),
        (
            posted("/v1/Auth/Login", Form::Gzip, &long),
            413,
            "content_too_large",
        ),
        (
            posted("/v1/Auth/Login", Form::Zlib, &long),
            413,
            "content_too_large",
        ),
    ] {
        let answer = caller.ask(request).await;
        assert_eq!((answer.status(), &*answer.code()), (status, code));
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn a_forwarded_login_that_says_429_inside_blocks_logins_in_every_form() {
    let damoov = damoov().await;
    for form in [Form::Sized, Form::GzipChunked] {
        let auth = Played::start().await;
        let proxy = proxy(&damoov)
            .redirect(USERS, &auth.url)
            .set("forward_unknown_logins", "true")
            .start()
            .await;
        let limited = form.answer("200 OK", r#"{"Result":null,"Status":429,"Title":""}"#);
        auth.answers(LOGIN, limited.clone());
        let fields = "InstanceId: 33333333-3333-4333-8333-333333333333\r\n";
        let request = String::from_utf8(posted("/v1/Auth/Login", Form::Sized, &login(1))).unwrap();
        let request = request.replacen("\r\n", &format!("\r\n{fields}"), 1);
        let answer = Wire::to(&proxy).await.ask(request).await;
        let content = form.of(br#"{"Result":null,"Status":429,"Title":""}"#);
        assert_eq!(answer.status(), 200);
        if form == Form::Sized {
            assert_eq!(answer.content, content.1, "passed on as it came");
        }
        assert_eq!(
            proxy.get(2, SCORES).await.code(),
            "login_blocked",
            "{form:?}"
        );
    }
}

#[tokio::test]
async fn a_move_is_understood_in_every_form_of_request_and_answer() {
    let damoov = damoov().await;
    let users = Played::start().await;
    let proxy = proxy(&damoov).redirect(USERS, &users.url).start().await;
    let forms = FORMS.into_iter().filter(|form| *form != Form::UntilClose);
    proxy.import(&damoov, 0..2 * FORMS.len());
    let account = damoov
        .handle()
        .issue(&Principal::Account(ACCOUNT_EMAIL.into()));
    let granted = json!({
        "Result": {
            "AccessToken": {"Token": account.access_token, "ExpiresIn": 86_400},
            "RefreshToken": account.refresh_token,
        },
        "Status": 200,
    });
    users.answers(LOGIN, Form::Sized.answer("200 OK", &granted.to_string()));
    for (number, form) in forms.enumerate() {
        for (number, status, kept) in [(2 * number, 422, true), (2 * number + 1, 200, false)] {
            let content = format!(r#"{{"Title":"","Status":{status}}}"#);
            users.answers("/change", form.answer("200 OK", &content));
            let moved = json!({"DeviceToken": user(number).to_string(), "ToInstanceId": "x"});
            let path = "/v1/Management/users/instances/change";
            let mut caller = Wire::to(&proxy).await;
            let answer = caller.ask(posted(path, form, &moved.to_string())).await;
            assert_eq!(answer.status(), 200, "{form:?}");
            let shown = proxy.command(&format!("tokens show {}", user(number)));
            let shown = String::from_utf8(captured(shown).await.stdout).unwrap();
            let has_none = shown.contains("pair           none");
            assert_eq!(has_none, !kept, "{form:?} {status} {shown}");
        }
    }
}
