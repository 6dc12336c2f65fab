//! What heads are refused for, each rule by its examples and by generated ones.

mod upgrades;

use super::*;
use http::{Request, Uri};
use proptest::prelude::*;

const GOOD_HOST: (&str, &str) = ("host", "127.0.0.1:8080");

fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::new(());
    *request.uri_mut() = uri.parse().unwrap();
    for (name, value) in fields {
        request.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    request.into_parts().0
}

fn checked(head: &Parts) -> Result<Target, Rejection> {
    let settings = Settings {
        hosts: vec!["Proxy.Internal".to_owned(), "gateway:8080".to_owned()],
        allowed_origins: vec!["https://app.example".to_owned()],
    };
    check(head, Seen::of(&head.headers), &settings)
}

fn asks_for(head: &Parts, is_live: bool) -> Result<bool, Rejection> {
    asks_for_websocket(head, Seen::of(&head.headers), is_live)
}

/// The verdict on a good request with these fields added.
fn with(fields: &[(&str, &str)]) -> Result<(), Rejection> {
    let fields = [&[GOOD_HOST], fields].concat();
    checked(&head("/x", &fields)).map(drop)
}

#[test]
fn a_good_head_gives_its_path_and_query_as_sent() {
    let target = checked(&head("/~a/V3/x%20y/?q=%zz;a//..&b", &[GOOD_HOST])).unwrap();
    assert_eq!(target.path(), "/~a/V3/x%20y/");
    assert_eq!(target.query(), Some("q=%zz;a//..&b"));
}

#[test]
fn what_is_forwarded_loses_the_naming_prefix_alone() {
    for (target, path, forwarded) in [
        ("/A/b?q=1", "/A/b", "/A/b?q=1"),
        ("/~x/A/b?q=1", "/A/b", "/A/b?q=1"),
        ("/~x/A/b", "/A/b", "/A/b"),
        ("/~x?q={1}", "/", "/?q={1}"),
        ("/~x/A?", "/A", "/A?"),
    ] {
        let checked = checked(&head(target, &[GOOD_HOST])).unwrap();
        assert_eq!(checked.forwarded(path).as_str(), forwarded);
    }
}

#[test]
fn http_1_1_takes_exactly_one_well_formed_host() {
    for hosts in [
        &[][..],
        &["localhost", "localhost"],
        &[""],
        &[":8080"],
        &["localhost:"],
        &["localhost:x"],
        &["localhost:+80"],
        &["localhost:65536"],
        &["localhost:80:80"],
        &["user@localhost"],
        &["localhost, localhost"],
        &["localhost/x"],
        &["loc\u{e4}lhost"],
        &["[::1"],
        &["::1"],
        &["[::1]x"],
        &["[localhost]"],
        &["a]:80"],
    ] {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let verdict = checked(&head("/x", &fields));
        assert_eq!(verdict, Err(Rejection::Host), "{hosts:?}");
    }
    let mut old = head("/x", &[]);
    old.version = Version::HTTP_10;
    assert!(checked(&old).is_ok());
}

#[test]
fn only_names_that_cannot_be_rebound_or_are_configured_are_served() {
    for (host, expected) in [
        ("127.0.0.1", Ok(())),
        ("10.1.2.3:8080", Ok(())),
        ("[::1]:8080", Ok(())),
        ("[::1]", Ok(())),
        ("LocalHost:1", Ok(())),
        ("API.telematicssdk.com", Ok(())),
        ("proxy.internal", Ok(())),
        ("proxy.internal:9999", Ok(())),
        ("Gateway:8080", Ok(())),
        ("gateway:8081", Err(Rejection::Misdirected)),
        ("gateway", Err(Rejection::Misdirected)),
        ("telematicssdk.com", Err(Rejection::Misdirected)),
        (".telematicssdk.com", Err(Rejection::Misdirected)),
        ("eviltelematicssdk.com", Err(Rejection::Misdirected)),
        (
            "api.telematicssdk.com.evil.example",
            Err(Rejection::Misdirected),
        ),
        ("127.0.0.1.evil.example", Err(Rejection::Misdirected)),
        ("127.1", Err(Rejection::Misdirected)),
    ] {
        let by_host = checked(&head("/x", &[("host", host)])).map(drop);
        assert_eq!(by_host, expected, "{host}");
        let absolute = head(&format!("http://{host}/x"), &[GOOD_HOST]);
        assert_eq!(checked(&absolute).map(drop), expected, "{host}");
    }
}

#[test]
fn a_good_target_does_not_excuse_a_bad_host_nor_the_other_way_round() {
    let bad_host = head("http://localhost/x", &[("host", "evil.example")]);
    assert_eq!(checked(&bad_host), Err(Rejection::Misdirected));
    let credentials = head("http://user:x@localhost/x", &[GOOD_HOST]);
    assert_eq!(checked(&credentials), Err(Rejection::Host));
    let authority = head("evil.example:443", &[GOOD_HOST]);
    assert_eq!(checked(&authority), Err(Rejection::Misdirected));
    let authority = head("localhost:443", &[GOOD_HOST]);
    assert_eq!(checked(&authority), Err(Rejection::Path));
}

#[test]
fn content_length_is_one_plain_number_below_2_to_the_63() {
    for length in ["0", "1", "10", "9223372036854775807"] {
        assert_eq!(with(&[("content-length", length)]), Ok(()), "{length}");
    }
    for length in [
        "",
        "00",
        "001",
        "+1",
        "-1",
        "0x1",
        "1 ",
        "1, 1",
        "1,2",
        "\u{b9}",
        "9223372036854775808",
        "99999999999999999999999",
    ] {
        let verdict = with(&[("content-length", length)]);
        assert_eq!(verdict, Err(Rejection::Framing), "{length:?}");
    }
    assert_eq!(
        with(&[("content-length", "1"), ("content-length", "2")]),
        Err(Rejection::Framing)
    );
}

#[test]
fn transfer_encoding_is_chunked_once_and_alone() {
    for coding in ["chunked", "Chunked"] {
        assert_eq!(with(&[("transfer-encoding", coding)]), Ok(()));
    }
    for codings in [
        &["gzip, chunked"][..],
        &["chunked, chunked"],
        &[",chunked"],
        &["chunked,"],
        &["chunked;x"],
        &["identity"],
        &[""],
        &["chunked", "chunked"],
        &["gzip", "chunked"],
    ] {
        let fields: Vec<_> = codings.iter().map(|c| ("transfer-encoding", *c)).collect();
        assert_eq!(with(&fields), Err(Rejection::Framing), "{codings:?}");
    }
    assert_eq!(
        with(&[("transfer-encoding", "chunked"), ("content-length", "1")]),
        Err(Rejection::Framing)
    );
    let mut old = head("/x", &[GOOD_HOST, ("transfer-encoding", "chunked")]);
    old.version = Version::HTTP_10;
    assert_eq!(checked(&old), Err(Rejection::Framing));
}

#[test]
fn a_path_that_servers_could_read_differently_is_refused() {
    for path in [
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/a/..",
        "/%2e",
        "/%2E%2e/b",
        "/a/.%2e/b",
        "/a/%2e./b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%00b",
        "/a%0ab",
        "/a%0D",
        "/a%1fb",
        "/a%7fb",
        "/a\\b",
        "//a",
        "/a//b",
        "/a//",
        "/a;b",
        "/a;b=c/d",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%2/b",
        "/a%%2541",
        "/\u{e4}",
        "/a\"b",
        "/a{b}",
        "/a|b",
        "*",
    ] {
        assert!(!is_plain_path(path), "{path}");
        // The `http` crate refuses some of these itself.
        if let Ok(uri) = path.parse() {
            let mut request = head("/", &[GOOD_HOST]);
            request.uri = uri;
            assert_eq!(checked(&request), Err(Rejection::Path), "{path}");
        }
    }
    let query = head("/x?\u{e4}", &[GOOD_HOST]);
    assert_eq!(checked(&query), Err(Rejection::Path));
    for path in [
        "/", "/...", "/a.b/", "/.a", "/a%20b", "/%C3%A4", "/%7Ex", "/a@b:c,d",
    ] {
        assert!(checked(&head(path, &[GOOD_HOST])).is_ok(), "{path}");
    }
}

#[test]
fn underscores_cannot_disguise_a_field_of_ours() {
    for name in [
        "Device_Token",
        "DeviceToken_",
        "Instance_Id",
        "instance_key",
        "_Authorization",
        "X_Damoov-Proxy_Key",
        "content_length",
        "Transfer_Encoding",
        "HOST_",
        "Proxy_Authorization",
        "Cookie_",
        "X_Forwarded_For",
        "X-Forwarded_Whatever",
        "X_Real_IP",
        "User_Device_Token",
    ] {
        assert_eq!(with(&[(name, "x")]), Err(Rejection::FieldName), "{name}");
    }
    for name in [
        "x_own",
        "device_tokens",
        "hosts_",
        "DeviceToken",
        "X-Forwarded-For",
    ] {
        assert_eq!(with(&[(name, "x")]), Ok(()), "{name}");
    }
}

#[test]
fn only_the_expectation_to_continue_is_met() {
    assert_eq!(with(&[("expect", "100-Continue")]), Ok(()));
    for value in ["", "200-ok", "100-continue, x", "100-continue=1"] {
        assert_eq!(with(&[("expect", value)]), Err(Rejection::Expectation));
    }
    let twice = [("expect", "100-continue"), ("expect", "x")];
    assert_eq!(with(&twice), Err(Rejection::Expectation));
}

#[test]
fn methods_beyond_the_common_ones_are_unknown() {
    for (method, expected) in [
        ("GET", Ok(())),
        ("HEAD", Ok(())),
        ("POST", Ok(())),
        ("PUT", Ok(())),
        ("PATCH", Ok(())),
        ("DELETE", Ok(())),
        ("OPTIONS", Ok(())),
        ("TRACE", Err(Rejection::Method)),
        ("CONNECT", Err(Rejection::Method)),
        ("get", Err(Rejection::Method)),
        ("BREW", Err(Rejection::Method)),
    ] {
        let mut request = head("/x", &[GOOD_HOST]);
        request.method = method.parse().unwrap();
        assert_eq!(checked(&request).map(drop), expected, "{method}");
    }
}

#[test]
fn the_limits_are_8_kib_of_target_and_64_fields() {
    let target = |length: usize| format!("/{}", "x".repeat(length - 1));
    assert!(checked(&head(&target(8192), &[GOOD_HOST])).is_ok());
    let verdict = checked(&head(&target(8193), &[GOOD_HOST]));
    assert_eq!(verdict, Err(Rejection::TargetTooLong));
    assert_eq!(with(&[("x", "y"); 63]), Ok(()));
    assert_eq!(with(&[("x", "y"); 64]), Err(Rejection::TooManyFields));
}

proptest! {
    #[test]
    fn a_path_that_passes_has_no_dot_segment_once_decoded(
        path in proptest::collection::vec(
            proptest::sample::select(vec![
                "/", ".", "%2e", "%2E", "%2f", "%5c", "%25", "%", "2e", "a", "\\", ";", "~",
            ]),
            0..12,
        ),
    ) {
        let path = format!("/{}", path.concat());
        if let Ok(target) = checked(&head(&path, &[GOOD_HOST])) {
            let plain: Vec<u8> = decoded(target.path()).collect();
            let mut segments = plain.split(|byte| *byte == b'/');
            prop_assert!(segments.all(|segment| segment != b"." && segment != b".."));
            prop_assert_eq!(target.path().matches('/').count(),
                plain.iter().filter(|byte| **byte == b'/').count());
        }
    }

    #[test]
    fn no_head_makes_the_checks_panic(
        path in "/[\\x21-\\x7e]{0,30}",
        query in "[\\x21-\\x7e]{0,30}",
        name in "[a-z_-]{1,20}",
        host in "[\\x20-\\x7e\u{e4}]{0,20}",
        value in "[\\x20-\\x7e\u{e4}]{0,20}",
    ) {
        if let Ok(uri) = format!("{path}?{query}").parse::<Uri>() {
            let mut request = head("/", &[("host", &host), (&name, &value)]);
            request.uri = uri.clone();
            let _ = checked(&request);
            // A good head around it, so that the target is reached.
            let mut request = head("/", &[GOOD_HOST]);
            request.uri = uri;
            if let Ok(target) = checked(&request) {
                target.forwarded("/");
            }
        }
    }
}
