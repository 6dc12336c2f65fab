//! Which `[[route]]` would serve a path that no route has. Pure.

use std::fmt;

use super::{Credential, Table, segments};
use crate::percent::decoded;

/// The host that is suggested if no route resembles the path.
const FALLBACK: &str = "api.telematicssdk.com";
/// Areas of hosts that no built-in route leads to.
const OTHER_AREAS: [(&[&str], &str); 1] = [(&["api", "carservice"], "services.telematicssdk.com")];
/// The longest path that is suggested. A path is a prefix: the rest of a longer one follows it.
const LONGEST: usize = 120;
/// The longest segment that is repeated as it is.
const LONGEST_SEGMENT: usize = 40;

/// A `[[route]]`, written as it would stand in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    path: String,
    host: String,
    credential: Credential,
}

impl Table {
    /// What would serve a path that has passed the checks of the request head, on the host of what
    /// is nearest to it. Nothing is repeated of the path but plain segments.
    pub fn suggestion(&self, path: &str) -> Suggestion {
        let (host, credential) = self.neighbourhood(path);
        let mut suggested = String::new();
        for segment in segments(path) {
            let segment = if is_plain(segment) { segment } else { "*" };
            if suggested.len() + 1 + segment.len() > LONGEST {
                break;
            }
            suggested.extend(["/", segment]);
        }
        if suggested.is_empty() {
            suggested.push('/');
        }
        Suggestion {
            path: suggested,
            host,
            credential,
        }
    }

    /// The host and the credential of the routes that have the most first segments in common with
    /// this path; the fallback if there are none, or if they lead to several hosts.
    fn neighbourhood(&self, path: &str) -> (String, Credential) {
        let elsewhere = OTHER_AREAS
            .iter()
            .find(|(area, _)| shared(path, area.iter().copied()) == area.len());
        if let Some((_, host)) = elsewhere {
            return ((*host).to_owned(), Credential::User);
        }
        let common = |row: &super::Row| shared(path, row.segments.iter().map(|s| &**s));
        let most = self.rows.iter().map(common).max().unwrap_or(0);
        let mut nearest = self.rows.iter().filter(|row| common(row) == most);
        let fallback = || (FALLBACK.to_owned(), Credential::User);
        let Some(first) = nearest.next().filter(|_| most > 0) else {
            return fallback();
        };
        let mut preferred = first.route.credential;
        for row in nearest {
            if row.route.host != first.route.host {
                return fallback();
            }
            if rank(row.route.credential) < rank(preferred) {
                preferred = row.route.credential;
            }
        }
        let credential = match preferred {
            // What the proxy answers itself it does not answer here.
            Credential::Answer => Credential::Passthrough,
            other => other,
        };
        (first.route.host.clone(), credential)
    }
}

/// As it is pasted into the file.
impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Suggestion {
            path,
            host,
            credential,
        } = self;
        write!(
            f,
            "[[route]]\npath = \"{path}\"\nhost = \"{host}\"\ncredential = \"{credential}\""
        )
    }
}

/// How many segments a path begins with of these, which are in lower case.
fn shared<'s>(path: &str, wanted: impl Iterator<Item = &'s str>) -> usize {
    let is = |segment: &str, wanted: &str| {
        decoded(segment)
            .map(|byte| byte.to_ascii_lowercase())
            .eq(wanted.bytes())
    };
    let both = segments(path).zip(wanted);
    both.take_while(|(segment, wanted)| is(segment, wanted))
        .count()
}

/// Which credential serves most callers, where neighbours differ: the lowest.
fn rank(credential: Credential) -> u8 {
    match credential {
        Credential::User => 0,
        Credential::UserOrAdmin => 1,
        Credential::Admin => 2,
        Credential::Instance => 3,
        Credential::Passthrough => 4,
        Credential::Answer => 5,
    }
}

/// Whether a segment may be repeated: it is short, and means itself in TOML, JSON and HTML.
fn is_plain(segment: &str) -> bool {
    segment.len() <= LONGEST_SEGMENT
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::super::{Replay, Route};
    use super::*;
    use http::Method;

    fn suggested(path: &str) -> String {
        Table::new(Vec::new(), None).suggestion(path).to_string()
    }

    #[test]
    fn the_host_is_that_of_the_nearest_routes() {
        use Credential::{Admin, Instance, Passthrough, User};
        for (path, host, credential) in [
            ("/custom/7/data", "api.telematicssdk.com", User),
            ("/Indicators/v4/Scores", "api.telematicssdk.com", User),
            ("/v1/Registration/other", "user.telematicssdk.com", Instance),
            ("/v1/auth/Logout", "user.telematicssdk.com", Passthrough),
            ("/v1/Something", "api.telematicssdk.com", User),
            ("/auth/other", "portal-apis.telematicssdk.com", Admin),
            ("/api/carservice/v1", "services.telematicssdk.com", User),
            ("/api/other", "mobilesdk.telematicssdk.com", User),
        ] {
            let expected = format!(
                "[[route]]\npath = \"{path}\"\nhost = \"{host}\"\ncredential = \"{credential}\""
            );
            assert_eq!(suggested(path), expected);
        }
    }

    #[test]
    fn of_a_path_nothing_is_repeated_that_is_not_plain() {
        let long = "x".repeat(41);
        for (path, pattern) in [
            ("/", "/"),
            ("/a/", "/a"),
            ("/a/%3Cb%3E/c", "/a/*/c"),
            ("/a/'b'/(c)/d,e", "/a/*/*/*"),
            (&*format!("/a/{long}/b"), "/a/*/b"),
            ("/~x", "/*"),
        ] {
            let line = format!("path = \"{pattern}\"\n");
            assert!(suggested(path).contains(&line), "{}", suggested(path));
        }
        assert!(suggested(&"/abcdefg".repeat(1000)).len() < 300);
    }

    proptest::proptest! {
        #[test]
        fn what_is_suggested_serves_the_path(path in "(/[a-zA-Z0-9._~!$&'()*+,=:@%-]{1,50}){1,30}") {
            let dots = |segment: &str| matches!(segment, "." | "..");
            proptest::prop_assume!(!path.split('/').any(dots));
            let Suggestion { path: pattern, host, credential } =
                Table::new(Vec::new(), None).suggestion(&path);
            let route = Route {
                path: pattern.into(),
                host,
                credential,
                methods: Vec::new(),
                replay: Replay::Never,
                response_timeout: None,
            };
            proptest::prop_assert_eq!(route.check(), Ok(()));
            let table = Table::new(vec![route], None);
            proptest::prop_assert!(table.find(&path, &Method::PATCH).is_some());
        }
    }
}
