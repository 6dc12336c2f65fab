//! The forms of strings: names, hosts, paths, methods. Each reader returns what would be valid if the
//! text is not.

use std::net::SocketAddr;

use http::{Method, Uri};

use super::tree::{Node, Value};
use crate::principal::InstanceId;
use crate::upstream::{Redirect, Scheme};

/// Any string except the empty one.
pub(super) fn text(node: &Node) -> Result<String, String> {
    match node.text() {
        Some("") => Err("expected some text, found \"\"".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("expected a string, found {}", node.value.kind())),
    }
}

/// `true` or `false`.
pub(super) fn flag(node: &Node) -> Result<bool, String> {
    match node.value {
        Value::Boolean(flag) => Ok(flag),
        _ => Err(format!(
            "expected true or false, found {}",
            node.value.kind()
        )),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let text = node.text().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            format!("expected one of {}", words.join(", "))
        })
    }
}

/// A name that can stand in a path, a log and a metric.
pub(super) fn name(node: &Node) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let valid = |name: &&str| (1..=64).contains(&name.len()) && name.chars().all(allowed);
    let name = node.text().filter(valid).map(str::to_owned);
    name.ok_or_else(|| "expected 1 to 64 letters, digits, `-`, `_` or `.`".to_owned())
}

/// An InstanceId.
pub(super) fn instance_id(text: &str) -> Result<InstanceId, String> {
    InstanceId::parse(text)
        .map_err(|_| "expected a UUID, such as \"11111111-1111-4111-8111-111111111111\"".to_owned())
}

/// The e-mail address of an account, roughly.
pub(super) fn email(text: &str) -> Result<String, String> {
    let valid = text
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    let email = valid.then(|| text.to_owned());
    email.ok_or_else(|| "expected an e-mail address, such as \"ops@example.com\"".to_owned())
}

/// An IP address and port.
pub(super) fn address(node: &Node) -> Result<SocketAddr, String> {
    let parsed = node.text().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        "expected an address such as \"127.0.0.1:8080\", \"[::1]:8080\", or { unix = \"PATH\" }"
            .to_owned()
    })
}

/// A file mode in octal.
pub(super) fn mode(node: &Node) -> Result<u32, String> {
    let parsed = node
        .text()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o777);
    parsed.ok_or_else(|| "expected a file mode in octal, such as \"0660\"".to_owned())
}

/// The name of a host, without port, in lower case.
pub(super) fn host(node: &Node) -> Result<String, String> {
    host_name(node.text().unwrap_or_default())
}

/// See [`host`].
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let allowed = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if text.len() <= 253 && text.split('.').all(allowed) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected the name of a host, such as \"api.telematicssdk.com\"".to_owned())
    }
}

/// Where a host is reached instead: `http` or `https`, host, port, nothing more.
pub(super) fn redirect(node: &Node) -> Result<Redirect, String> {
    let parsed = node.text().and_then(bare_url);
    parsed.ok_or_else(|| {
        "expected a URL without a path, such as \"http://127.0.0.1:19090\"".to_owned()
    })
}

/// A web origin as browsers send it: scheme, host, and a port that is not the scheme's own.
pub(super) fn web_origin(node: &Node) -> Result<String, String> {
    let text = node.text().unwrap_or_default();
    match bare_url(text) {
        Some(_) if !text.ends_with('/') => Ok(text.to_ascii_lowercase()),
        _ => Err("expected an origin, such as \"https://app.example.com\"".to_owned()),
    }
}

fn bare_url(text: &str) -> Option<Redirect> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let bare = !authority.contains('@') && rest.trim_end_matches('/').len() == authority.len();
    bare.then(|| Redirect {
        scheme,
        authority: authority.to_owned(),
    })
}

/// A method of HTTP that can be forwarded.
pub(super) fn method(node: &Node) -> Result<Method, String> {
    const FORWARDED: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let text = node.text().unwrap_or_default();
    let found = FORWARDED.iter().find(|method| method.as_str() == text);
    found.cloned().ok_or_else(|| {
        format!(
            "expected one of {}",
            FORWARDED.map(|m| format!("\"{m}\"")).join(", ")
        )
    })
}

/// The path of a route: whole segments, `*` for any one, `$` at the end for "exactly this".
pub(super) fn route_path(node: &Node) -> Result<String, String> {
    let path = node.text().unwrap_or_default();
    let literal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let segment = |segment: &str| {
        segment == "*"
            || !segment.is_empty()
                && segment.chars().all(literal)
                && !segment.bytes().all(|b| b == b'.')
    };
    let segments = path.strip_suffix('$').unwrap_or(path).strip_prefix('/');
    if segments.is_some_and(|segments| segments.split('/').all(segment)) {
        Ok(path.to_owned())
    } else {
        Err(
            "expected a path of whole segments, such as \"/custom/*/data\" or \"/exactly/this$\""
                .to_owned(),
        )
    }
}
