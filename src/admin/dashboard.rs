//! The dashboard: one file, which is in the binary. The page asks the API of its own listener for everything,
//! and nobody else for anything.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

/// The page, with one style and one script.
const PAGE: &str = include_str!("dashboard.html");

/// What a browser lets the page do. Made once, of the page itself.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = policy(PAGE).expect("the page has one style and one script");
    HeaderValue::from_str(&policy).expect("base64 and the words around it are visible ASCII")
});

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The page as an answer.
pub(super) fn answer() -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from_static(PAGE.as_bytes()));
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    answer
}

/// It runs its own script and style and no other, shows icons that it draws, and asks its own listener. It
/// cannot be shown within another page. `None` if `page` does not have exactly one of each.
fn policy(page: &str) -> Option<String> {
    let style = hash(only(page, "<style>", "</style>")?);
    let script = hash(only(page, "<script>", "</script>")?);
    Some(format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'"
    ))
}

/// What stands between `open` and `close`, if each is there once.
fn only<'p>(page: &'p str, open: &str, close: &str) -> Option<&'p str> {
    let (_, rest) = page.split_once(open)?;
    let (within, after) = rest.split_once(close)?;
    (!after.contains(open)).then_some(within)
}

/// As a policy names it (CSP 3, §2.3.1).
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_nobody_but_its_own_listener() {
        assert!(PAGE.len() <= 64 * 1024, "{} bytes", PAGE.len());
        let policy = POLICY.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        for word in ["frame-ancestors 'none'", "connect-src 'self'"] {
            assert!(policy.contains(word), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn one_style_and_one_script_are_allowed_by_their_hash() {
        let page = "<style>a</style><script>b</script>";
        let said = policy(page).unwrap();
        // printf a | openssl dgst -sha256 -binary | base64
        let hash = "sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=";
        assert!(said.contains(&format!("style-src '{hash}';")), "{said}");
        for none in ["", "<style>a</style>", &format!("{page}<script>c</script>")] {
            assert_eq!(policy(none), None, "{none}");
        }
    }
}
