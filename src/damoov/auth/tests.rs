//! Answers of the Auth endpoints in every form that was seen, and in forms that must not be believed.

use http::header;

use super::*;

const USER: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
const INSTANCE: &str = "11111111-1111-4111-8111-111111111111";

#[test]
fn a_users_login_has_the_exact_key_inside_a_json_string() {
    let call = log_in_user(
        DeviceToken::parse(USER).unwrap(),
        InstanceId::parse(INSTANCE).unwrap(),
        &Secret::from(r#"k"ey"#),
    );
    assert_eq!(
        call.content.expose(),
        r#"{"LoginFields":"{\"Devicetoken\":\"6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11\"}","Password":"k\"ey"}"#
    );
    assert_eq!(
        (call.path, call.instance.is_some()),
        ("/v1/Auth/Login", true)
    );
}

#[test]
fn an_accounts_login_names_no_instance() {
    let call = log_in_account("ops@example.com", &Secret::from("pw"));
    assert_eq!(
        call.content.expose(),
        r#"{"LoginFields":"{\"email\":\"ops@example.com\"}","Password":"pw"}"#
    );
    assert!(call.instance.is_none());
}

fn answered(status: u16, content: &str) -> Answer {
    read_refresh(
        StatusCode::from_u16(status).unwrap(),
        &HeaderMap::new(),
        Ok(content.to_owned().into()),
    )
}

fn granted(token: &str) -> Grant {
    match answered(200, &format!(r#"{{"Result":{token},"Status":200}}"#)) {
        Answer::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grant_is_read() {
    let grant = granted(&format!(
        r#"{{"DeviceToken":"{USER}","AccessToken":{{"Token":"a","ExpiresIn":9}},"RefreshToken":"r"}}"#
    ));
    assert_eq!(grant.access_token.unwrap().expose(), "a");
    assert_eq!(grant.refresh_token.unwrap().expose(), "r");
    assert_eq!(
        (grant.expires_in, grant.device_token.is_some()),
        (Some(9), true)
    );
}

#[test]
fn expires_in_is_read_however_it_is_written() {
    for (written, read) in [
        ("86400", Some(86400)),
        ("\"86400\"", Some(86400)),
        ("1.5", Some(1)),
        ("-3", Some(-3)),
        ("1e18", Some(1_000_000_000_000_000_000)),
        ("null", None),
        ("\"soon\"", None),
        ("[]", None),
    ] {
        let grant = granted(&format!(
            r#"{{"AccessToken":{{"Token":"a","ExpiresIn":{written}}}}}"#
        ));
        assert_eq!(grant.expires_in, read, "{written}");
    }
}

#[test]
fn how_expires_in_is_written_is_remembered() {
    for (written, form) in [
        ("86400", ExpiresInForm::Number),
        ("\"86400\"", ExpiresInForm::Text),
        ("null", ExpiresInForm::Number),
    ] {
        let grant = granted(&format!(
            r#"{{"AccessToken":{{"Token":"a","ExpiresIn":{written}}}}}"#
        ));
        assert_eq!(grant.expires_in_form, form, "{written}");
    }
}

#[test]
fn a_rotated_refresh_token_survives_a_missing_access_token() {
    let grant = granted(r#"{"RefreshToken":"r"}"#);
    assert!(grant.access_token.is_none() && grant.refresh_token.is_some());
}

#[test]
fn every_kind_of_answer_is_told_apart() {
    let ok = r#"{"Result":null,"Status":200}"#;
    let envelope = r#"{"Result":null,"Status":400,"Errors":[]}"#;
    for (status, content, expected) in [
        (400, envelope, "Rejected"),
        (401, envelope, "Rejected"),
        (200, envelope, "Rejected"),
        (200, ok, "Rejected"),
        (400, "<html>", "Unreadable(NotJson)"),
        (401, "", "Unreadable(NotJson)"),
        (403, envelope, "Unreadable(Unexpected)"),
        (422, envelope, "Unreadable(Unexpected)"),
        (200, "<html>", "Unreadable(NotJson)"),
        (200, "", "Unreadable(NotJson)"),
        (200, "{}", "Unreadable(NotJson)"),
        (200, "[]", "Unreadable(NotJson)"),
        (200, r#"{"Status":"x"}"#, "Unreadable(NotJson)"),
        (
            200,
            r#"{"Status":null,"Result":null}"#,
            "Unreadable(NotJson)",
        ),
        (200, r#"{"Result":{"AccessTok"#, "Unreadable(NotJson)"),
        (200, r#"{"Result":{},"Status":200}"#, "Rejected"),
        (
            200,
            r#"{"Result":{"AccessToken":null},"Status":200}"#,
            "Unreadable(Unexpected)",
        ),
        (
            200,
            r#"{"Result":null,"Status":500}"#,
            "Unavailable { retry_after: None }",
        ),
        (
            200,
            r#"{"Result":null,"Status":429}"#,
            "Limited { retry_after: None }",
        ),
        (500, "", "Unavailable { retry_after: None }"),
        (503, envelope, "Unavailable { retry_after: None }"),
        (429, "", "Limited { retry_after: None }"),
        (302, "", "Unreadable(NotJson)"),
    ] {
        assert_eq!(
            format!("{:?}", answered(status, content)),
            expected,
            "{status} {content}"
        );
    }
}

#[test]
fn of_names_that_stand_twice_none_counts() {
    let token = r#"{"Token":"a"}"#;
    for content in [
        format!(r#"{{"Result":{{"AccessToken":{token},"AccessToken":{token}}}}}"#),
        format!(r#"{{"Result":{{"AccessToken":{token}}},"Result":null}}"#),
        format!(r#"{{"Result":{{"AccessToken":{token}}},"result":null}}"#),
        format!(r#"{{"Result":{{"AccessToken":{token}}},"Status":401,"status":200}}"#),
        format!(r#"{{"Result":{{"AccessToken":{token}}},"Status":200,"Status":200}}"#),
        r#"{"Result":{"AccessToken":{"Token":"a","Token":"b"}}}"#.to_owned(),
        r#"{"Result":{"RefreshToken":"a","RefreshToken":"b"}}"#.to_owned(),
    ] {
        let expected = "Unreadable(NameTwice)";
        assert_eq!(
            format!("{:?}", answered(200, &content)),
            expected,
            "{content}"
        );
        // Nor is a rejection believed that could be read as none.
        assert_eq!(
            format!("{:?}", answered(400, &content)),
            expected,
            "{content}"
        );
    }
}

#[test]
fn an_answer_is_read_whatever_its_coding_and_mark() {
    let content = "\u{feff}{\"Result\":{\"RefreshToken\":\"r\"},\"Status\":200}";
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content.as_bytes()).unwrap();
    let zipped = Bytes::from(encoder.finish().unwrap());
    let coded = |name: &'static str, content: &Bytes| {
        let name = http::HeaderValue::from_static(name);
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, name)]);
        read_login(StatusCode::OK, &headers, Ok(content.clone()))
    };
    assert!(matches!(answered(200, content), Answer::Granted(_)));
    assert!(matches!(coded("gzip", &zipped), Answer::Granted(_)));
    for (name, content, expected) in [
        ("br", &zipped, content_coding::Unreadable::CodingUnknown),
        (
            "gzip",
            &zipped.slice(..20),
            content_coding::Unreadable::Damaged,
        ),
    ] {
        match coded(name, content) {
            Answer::Unreadable(Unreadable::Content(why)) => assert_eq!(why, expected),
            other => panic!("{other:?}"),
        }
    }
    let long = " ".repeat(content_coding::LONGEST) + "{}";
    let expected = "Unreadable(Content(TooLong))";
    assert_eq!(format!("{:?}", answered(200, &long)), expected);
    assert!(matches!(answered(503, &long), Answer::Unavailable { .. }));
}

#[test]
fn a_login_is_rejected_by_more_statuses_than_a_refresh() {
    let status = StatusCode::FORBIDDEN;
    let answer = read_login(
        status,
        &HeaderMap::new(),
        Ok(r#"{"Result":null,"Status":403}"#.into()),
    );
    assert!(matches!(answer, Answer::Rejected));
}

#[test]
fn a_429_and_a_503_say_how_long() {
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, "3600".parse().unwrap())]);
    let said = |status| match read_login(status, &headers, Ok(Bytes::new())) {
        Answer::Limited { retry_after } | Answer::Unavailable { retry_after } => {
            retry_after.map(|wait| wait.as_secs())
        }
        answer => panic!("{answer:?}"),
    };
    assert_eq!(said(StatusCode::TOO_MANY_REQUESTS), Some(3600));
    assert_eq!(said(StatusCode::SERVICE_UNAVAILABLE), Some(3600));
    assert_eq!(said(StatusCode::BAD_GATEWAY), None);
}

proptest::proptest! {
    #[test]
    fn no_answer_makes_reading_panic(status in 100u16..=599, content: Vec<u8>) {
        let status = StatusCode::from_u16(status).unwrap();
        let _ = read_login(status, &HeaderMap::new(), Ok(content.into()));
    }
}
