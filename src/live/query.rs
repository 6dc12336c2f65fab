//! The token that a handshake may have in its query, `?token=`, where a client cannot set fields.
//! Pure; knows no other part of a query.

use http::uri::{InvalidUri, PathAndQuery};

use crate::handed_out;
use crate::percent::{decoded, escaped};

const NAME: &[u8] = b"token";

/// The tokens in a checked query; an empty one if it has the name and no value.
pub(super) fn tokens(query: Option<&str>) -> impl Iterator<Item = String> {
    parts(query).filter(|part| is_token(part)).map(|part| {
        let value = part.split_once('=').map_or("", |(_, value)| value);
        String::from_utf8_lossy(&decoded(value).collect::<Vec<_>>()).into_owned()
    })
}

/// The target with `token` in the place of every token in its query; all else stays as it is. An
/// error if it becomes longer than a target can be.
pub(super) fn with_token(target: &PathAndQuery, token: &str) -> Result<PathAndQuery, InvalidUri> {
    let query: Vec<_> = parts(target.query())
        .map(|part| match is_token(part) {
            true => format!("token={}", escaped(token)),
            false => part.to_owned(),
        })
        .collect();
    PathAndQuery::try_from(format!("{}?{}", target.path(), query.join("&")))
}

/// Whether a token of the proxy's own stands anywhere else in the query.
pub(super) fn holds_own_token(query: Option<&str>) -> bool {
    let mut others = parts(query).filter(|part| !is_token(part));
    others.any(|part| handed_out::is_within(&decoded(part).collect::<Vec<_>>()))
}

fn parts(query: Option<&str>) -> impl Iterator<Item = &str> {
    query.into_iter().flat_map(|query| query.split('&'))
}

/// Servers differ in whether a name's case matters: what may be read as a token is one.
fn is_token(part: &str) -> bool {
    let name = part.split('=').next().unwrap_or_default();
    decoded(name)
        .map(|byte| byte.to_ascii_lowercase())
        .eq(NAME.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> PathAndQuery {
        text.parse().unwrap()
    }

    #[test]
    fn every_spelling_of_a_token_is_found_and_decoded() {
        for (query, found) in [
            ("token=a.b-c", vec!["a.b-c"]),
            ("x=1&token=a%2Bb&y", vec!["a+b"]),
            ("%74oken=a&Token=b", vec!["a", "b"]),
            ("token", vec![""]),
            ("token=", vec![""]),
            ("token=a=b", vec!["a=b"]),
            ("xtoken=a&tokens=b&t=token", vec![]),
        ] {
            assert_eq!(tokens(Some(query)).collect::<Vec<_>>(), found, "{query}");
        }
        assert_eq!(tokens(None).count(), 0);
    }

    #[test]
    fn only_tokens_are_replaced() {
        for (before, after) in [
            ("/a?token=x", "/a?token=n%26%2B%20"),
            (
                "/a?x=%zz&token=x&&y=1=2",
                "/a?x=%zz&token=n%26%2B%20&&y=1=2",
            ),
            ("/a?token&%54oken=b", "/a?token=n%26%2B%20&token=n%26%2B%20"),
            ("/a?x", "/a?x"),
        ] {
            assert_eq!(
                with_token(&target(before), "n&+ ").unwrap(),
                target(after),
                "{before}"
            );
        }
    }
}
