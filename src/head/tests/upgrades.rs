//! Upgrades, and pages of browsers.

use super::*;

/// A good handshake, except for the fields named here, which are as given instead.
fn handshake(instead: &[(&'static str, &'static str)]) -> Parts {
    let mut fields = vec![
        GOOD_HOST,
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    fields.retain(|(name, _)| instead.iter().all(|(other, _)| other != name));
    fields.extend(instead.iter().filter(|(_, value)| !value.is_empty()));
    head("/x", &fields)
}

#[test]
fn an_upgrade_is_ignored_unless_it_asks_for_websocket_which_one_route_has() {
    for value in ["h2c", "TLS/1.0", "websockets"] {
        let head = handshake(&[("upgrade", value)]);
        assert_eq!(asks_for(&head, true), Ok(false), "{value}");
        assert_eq!(asks_for(&head, false), Ok(false), "{value}");
    }
    for value in ["websocket", "WebSocket", "h2c, websocket/13"] {
        let head = handshake(&[("upgrade", value)]);
        assert_eq!(asks_for(&head, true), Ok(true), "{value}");
        let elsewhere = asks_for(&head, false);
        assert_eq!(elsewhere, Err(Rejection::Upgrade), "{value}");
    }
    let lines = handshake(&[("upgrade", "h2c"), ("upgrade", "websocket")]);
    assert_eq!(asks_for(&lines, true), Ok(true));
}

#[test]
fn a_handshake_that_is_not_rfc_6455s_is_refused() {
    let bad = |head: &Parts| assert_eq!(asks_for(head, true), Err(Rejection::Handshake));
    for instead in [
        &[("connection", "")][..],
        &[("connection", "close")],
        &[("sec-websocket-key", "")],
        &[("sec-websocket-key", "short")],
        &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ")],
        &[
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
        &[("sec-websocket-version", "")],
        &[("sec-websocket-version", "8")],
        &[
            ("sec-websocket-version", "13"),
            ("sec-websocket-version", "13"),
        ],
        &[("content-length", "1")],
        &[("transfer-encoding", "chunked")],
    ] {
        bad(&handshake(instead));
    }
    let mut post = handshake(&[]);
    post.method = Method::POST;
    bad(&post);
    let mut old = handshake(&[]);
    old.version = Version::HTTP_10;
    bad(&old);
    assert_eq!(
        asks_for(&handshake(&[("content-length", "0")]), true),
        Ok(true)
    );
}

#[test]
fn a_page_may_call_only_from_an_allowed_origin() {
    let allowed = ("origin", "https://app.example");
    for fields in [
        &[allowed][..],
        &[allowed, ("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", "HTTPS://App.Example")],
        &[("origin", "https://app.example:443")],
    ] {
        assert_eq!(with(fields), Ok(()), "{fields:?}");
    }
    for fields in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", "https://app.example.evil")],
        &[("origin", "http://app.example")],
        &[("origin", "https://app.example:80")],
        &[("origin", "https://app.example:8443")],
        &[("origin", "https://app.example/")],
        &[("origin", "app.example")],
        &[("origin", "*")],
        &[allowed, allowed],
        &[allowed, ("origin", "https://evil.example")],
        &[("origin", "null"), ("sec-fetch-site", "none")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none"), ("sec-fetch-site", "same-site")],
    ] {
        assert_eq!(with(fields), Err(Rejection::Origin), "{fields:?}");
    }
}
