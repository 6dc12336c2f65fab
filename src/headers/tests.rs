//! What is left of header maps, and what of framing leaves no doubt.

use super::*;
use proptest::prelude::*;

const FORBIDDEN: [&str; 22] = [
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "HTTP2-Settings",
    "Expect",
    "Host",
    "Content-Length",
    "Cookie",
    "Authorization",
    "Proxy-Authorization",
    "X-Damoov-Proxy-Key",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Anything",
    "X-Real-IP",
    "InstanceId",
    "InstanceKey",
    "Proxy-Authenticate",
];

fn map<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    headers
}

#[test]
fn nothing_of_the_hop_and_no_credential_of_the_caller_goes_upstream() {
    let twice = FORBIDDEN.iter().chain(&FORBIDDEN);
    let mut headers = map(twice.map(|name| (*name, "x")));
    clean_request(&mut headers, Authorization::Dropped);
    assert_eq!(headers, map([("via", "1.1 damoov-proxy")]));
}

#[test]
fn what_belongs_to_the_api_passes_as_sent() {
    let fields = [
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("devicetoken", "6F1C0C1E5A0E4C1E9F530D3C2F8A7B11"),
        ("userdevicetoken", "x"),
        ("x-own", "a"),
        ("x-own", "b"),
    ];
    let mut headers = map(fields);
    clean_request(&mut headers, Authorization::Dropped);
    assert_eq!(headers.remove("via").unwrap(), "1.1 damoov-proxy");
    assert_eq!(headers, map(fields));
}

#[test]
fn every_connection_line_nominates_and_nothing_of_ours_can_be_nominated() {
    let mut headers = map([
        ("connection", "authorization, DeviceToken"),
        ("connection", "connection,, \u{e9},  X-Foo ,close"),
        ("connection", "x-bar"),
        ("devicetoken", "x"),
        ("x-foo", "x"),
        ("x-bar", "x"),
        ("x-kept", "x"),
    ]);
    clean_request(&mut headers, Authorization::Dropped);
    attach_authorization(&mut headers, "Bearer ours".parse().unwrap());
    assert_eq!(
        headers,
        map([
            ("x-kept", "x"),
            ("via", "1.1 damoov-proxy"),
            ("authorization", "Bearer ours"),
        ])
    );
}

#[test]
fn a_passthrough_route_keeps_the_callers_authorization() {
    let mut headers = map([("authorization", "Bearer theirs"), ("cookie", "x")]);
    clean_request(&mut headers, Authorization::Kept);
    assert_eq!(headers["authorization"], "Bearer theirs");
    assert!(!headers.contains_key("cookie"));
}

#[test]
fn an_instance_route_gets_our_instance_and_not_the_callers() {
    let mut headers = map([("instanceid", "theirs"), ("instancekey", "theirs")]);
    clean_request(&mut headers, Authorization::Dropped);
    attach_instance(
        &mut headers,
        "ours".parse().unwrap(),
        "key".parse().unwrap(),
    );
    assert_eq!(
        headers,
        map([
            ("via", "1.1 damoov-proxy"),
            ("instanceid", "ours"),
            ("instancekey", "key"),
        ])
    );
}

#[test]
fn via_is_appended_after_the_hops_before() {
    let mut headers = map([("via", "1.0 fred")]);
    clean_request(&mut headers, Authorization::Dropped);
    let vias: Vec<_> = headers.get_all("via").iter().collect();
    assert_eq!(vias, ["1.0 fred", "1.1 damoov-proxy"]);
}

#[test]
fn an_answer_loses_its_hop_and_its_cookies_and_says_what_was_done() {
    for (passed, status) in [
        (Renewal::None, "damoov-proxy"),
        (Renewal::Before, "damoov-proxy; details=\"renewed\""),
        (Renewal::Replayed, "damoov-proxy; details=\"replayed\""),
    ] {
        let mut headers = map([
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "x"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-anything", "x"),
            ("proxy-status", "damoov-proxy; error=forged"),
            ("content-length", "5"),
            ("content-type", "application/json"),
        ]);
        clean_answer(&mut headers, passed);
        assert_eq!(
            headers,
            map([
                ("content-length", "5"),
                ("content-type", "application/json"),
                ("via", "1.1 damoov-proxy"),
                ("proxy-status", status),
            ])
        );
    }
}

#[test]
fn the_bearer_is_that_of_the_only_authorization() {
    let bearer_of = |lines: &[&'static str]| {
        let headers = map(lines.iter().map(|line| ("authorization", *line)));
        bearer(&headers).map(str::to_owned)
    };
    for (lines, found) in [
        (&["Bearer a.b"][..], Some("a.b")),
        (&["bearer  a.b "], Some("a.b")),
        (&["BEARER "], Some("")),
        (&["Bearer a", "Bearer a"], Some("")),
        (&["Basic eA==", "Bearer a"], Some("")),
        (&["Basic eA=="], None),
        (&["Bearer"], None),
        (&[], None),
    ] {
        assert_eq!(bearer_of(lines).as_deref(), found, "{lines:?}");
    }
}

proptest! {
    #[test]
    fn no_nomination_lets_a_forbidden_field_through(
        present in proptest::sample::subsequence(FORBIDDEN.to_vec(), 0..=FORBIDDEN.len()),
        nominations in proptest::collection::vec("[\\x20-\\x7e]{0,40}", 0..4),
        lists in proptest::collection::vec(
            proptest::sample::subsequence(FORBIDDEN.to_vec(), 0..4), 0..4),
    ) {
        let lists: Vec<String> = lists.iter().map(|names| names.join(" ,")).collect();
        let connections = nominations.iter().chain(&lists).map(|line| ("connection", line.as_str()));
        let mut headers = map(present.iter().map(|name| (*name, "x")).chain(connections));
        clean_request(&mut headers, Authorization::Dropped);
        for name in FORBIDDEN {
            prop_assert!(!headers.contains_key(name), "{name}");
        }
        prop_assert_eq!(headers.len(), 1);
    }
}
