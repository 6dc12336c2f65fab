//! Which path goes to which host with which kind of credential: the built-in table and what
//! `[[route]]` adds to it. Pure.

mod built_in;
mod suggestion;

pub use suggestion::Suggestion;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use built_in::{LIVE, built_in};

use crate::percent::decoded;

/// All routes of a running proxy, the most specific first.
#[derive(Debug)]
pub struct Table {
    /// In order of precedence.
    rows: Vec<Row>,
    /// For each letter that a row has after the slash, in lower case: the places of those that a
    /// path with this letter may match. A handful each, which fail on their last byte or length.
    by_initial: Vec<(u8, Vec<usize>)>,
    /// The same for any other letter.
    other_initials: Vec<usize>,
}

/// A route as configured or built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A prefix of whole segments; `*` matches one segment; a `$` at the end means exactly this
    /// path. Matched without regard to case. Shared, because it is the route's label in metrics.
    pub path: Arc<str>,
    /// The upstream host it goes to, by its public name.
    pub host: String,
    /// What is attached.
    pub credential: Credential,
    /// Only these methods; empty: all.
    pub methods: Vec<Method>,
    /// Whether a 401 renews and replays.
    pub replay: Replay,
    /// How long a request waits for the head of its answer; `None`: as long as on any other route.
    pub response_timeout: Option<Duration>,
}

/// What a route attaches to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The user JWT of the DeviceToken that the caller names.
    User,
    /// The admin JWT of an account.
    Admin,
    /// The user's JWT if the caller names a DeviceToken, else that of the account that it names.
    UserOrAdmin,
    /// The headers InstanceId and InstanceKey; no JWT.
    Instance,
    /// The caller's own Authorization.
    Passthrough,
    /// The proxy answers itself: the Auth endpoints.
    Answer,
}

/// As a `[[route]]` writes it.
impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::User => "user",
            Credential::Admin => "admin",
            Credential::UserOrAdmin => "user_or_admin",
            Credential::Instance => "instance",
            Credential::Passthrough => "passthrough",
            Credential::Answer => "answer",
        })
    }
}

/// What happens after a 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Renew and send once more.
    On401,
    /// Renew for the next request; pass the 401 on.
    Never,
}

/// What is wrong with the path of a configured route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Relative, or empty.
    #[error("a route's path starts with `/`")]
    NoLeadingSlash,
    /// `//`, or a slash at the end.
    #[error("a route's path has no empty segments and does not end with `/`")]
    EmptySegment,
    /// `.` or `..`.
    #[error("a route's path has no `.` or `..` segments")]
    DotSegment,
    /// `a*`.
    #[error("`*` stands for one whole segment, as in `/custom/*/data`")]
    PartialWildcard,
    /// `$` before the end, or after a slash.
    #[error("`$` may only follow the last segment, as in `/custom/data$`")]
    MisplacedDollar,
    /// A query, an escape, a space, a control, or anything beyond ASCII.
    #[error("a route's path is written plainly: letters, digits and any of `-._~:@!&'()+,=`")]
    Character,
}

impl Table {
    /// The built-in routes, the `configured` ones, which win if both are equally specific, and,
    /// if there is a `default_host`, a last route that sends everything else there for a user.
    ///
    /// Every configured path has passed [`Route::check`].
    pub fn new(configured: Vec<Route>, default_host: Option<String>) -> Table {
        let everything = default_host.map(|host| Route {
            path: "/".into(),
            host,
            credential: Credential::User,
            methods: Vec::new(),
            replay: Replay::On401,
            response_timeout: None,
        });
        let mut rows: Vec<Row> = configured
            .into_iter()
            .chain(built_in())
            .chain(everything)
            .map(Row::new)
            .collect();
        // The sort is stable, so that among equals the order above decides.
        rows.sort_by_key(|row| Reverse(row.precedence()));
        let places = |initial: Option<u8>| -> Vec<usize> {
            let may_match = |row: &Row| row.initial.is_none() || row.initial == initial;
            (0..rows.len())
                .filter(|place| may_match(&rows[*place]))
                .collect()
        };
        let mut initials: Vec<_> = rows.iter().filter_map(|row| row.initial).collect();
        initials.sort_unstable();
        initials.dedup();
        Table {
            by_initial: initials
                .into_iter()
                .map(|initial| (initial, places(Some(initial))))
                .collect(),
            other_initials: places(None),
            rows,
        }
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.rows.iter().map(|row| &*row.route)
    }

    /// The host of each route.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.routes().map(|route| route.host.as_str())
    }

    /// The route of a path that has passed the checks of the request head; `None` if no route
    /// has this path and method. Case, a slash at the end, and escapes of plain characters do not
    /// matter: the API takes all of these spellings for the same path. Allocates nothing.
    pub fn find(&self, path: &str, method: &Method) -> Option<&Arc<Route>> {
        let found = if memchr::memchr(b'%', path.as_bytes()).is_some() {
            let mut rows = self.rows.iter();
            rows.find(|row| row.takes(method) && row.matches(path))
        } else {
            // A checked path has no empty segments; without escapes it is compared as it stands.
            let mut rows = self.places(path).iter().map(|place| &self.rows[*place]);
            rows.find(|row| row.takes(method) && row.matches_plainly(path))
        };
        found.map(|row| &row.route)
    }

    /// The routes of a path that has passed the checks, whatever the method, in their order.
    pub fn of_path<'t, 'p>(
        &'t self,
        path: &'p str,
    ) -> impl Iterator<Item = &'t Arc<Route>> + use<'t, 'p> {
        let rows = self.rows.iter().filter(|row| row.matches(path));
        rows.map(|row| &row.route)
    }

    /// The places of the rows that a path without escapes may match, in their order.
    fn places(&self, path: &str) -> &[usize] {
        let initial = path.as_bytes().get(1).map(u8::to_ascii_lowercase);
        let mut known = self.by_initial.iter();
        let found = known.find(|(known, _)| Some(*known) == initial);
        found.map_or(&self.other_initials, |(_, places)| places)
    }
}

impl Route {
    /// Whether the path is one that a table can match.
    pub fn check(&self) -> Result<(), PathError> {
        let path = self.path.strip_suffix('$').unwrap_or(&self.path);
        let Some(segments) = path.strip_prefix('/') else {
            return Err(PathError::NoLeadingSlash);
        };
        if segments.is_empty() {
            return Ok(());
        }
        for segment in segments.split('/') {
            match segment {
                "" if path.len() != self.path.len() => return Err(PathError::MisplacedDollar),
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::DotSegment),
                "*" => {}
                _ if segment.contains('*') => return Err(PathError::PartialWildcard),
                _ if segment.contains('$') => return Err(PathError::MisplacedDollar),
                _ if !segment.bytes().all(is_plain) => return Err(PathError::Character),
                _ => {}
            }
        }
        Ok(())
    }

    /// The methods that it takes; empty: all.
    pub fn taken_methods(&self) -> &[Method] {
        const POST: &[Method] = &[Method::POST];
        match self.credential {
            // Logins and refreshes are nothing else.
            Credential::Answer => POST,
            _ => &self.methods,
        }
    }

    /// Whether its requests may switch to WebSocket.
    pub fn is_live(&self) -> bool {
        self.path.eq_ignore_ascii_case(LIVE)
    }

    /// What metrics and logs call the route: its path as configured, so that the label stays
    /// bounded whatever callers ask for.
    pub fn label(&self) -> &Arc<str> {
        &self.path
    }
}

/// What may stand in a segment and means itself everywhere.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:@!&'()+,=".contains(&byte)
}

/// A route and its path, taken apart once.
#[derive(Debug)]
struct Row {
    /// In lower case; `*` matches any.
    segments: Vec<Box<str>>,
    /// The first letter after the slash, in lower case; `None` if any may stand there.
    initial: Option<u8>,
    beginning: Beginning,
    /// Whether nothing may follow.
    exact: bool,
    route: Arc<Route>,
}

/// How a path without escapes that matches begins, in lower case.
#[derive(Debug)]
enum Beginning {
    /// With the route's whole path, which has no `*` in it; without a slash at the end.
    Whole(Box<str>),
    /// With what stands before the first `*`.
    ToWildcard(Box<str>),
}

impl Row {
    fn new(route: Route) -> Row {
        let exact = route.path.ends_with('$');
        let path = route.path.trim_end_matches('$').to_ascii_lowercase();
        Row {
            segments: segments(&path).map(Box::from).collect(),
            initial: path
                .as_bytes()
                .get(1)
                .copied()
                .filter(|letter| *letter != b'*'),
            beginning: match path.split_once('*') {
                None => Beginning::Whole(path.trim_end_matches('/').into()),
                Some((literal, _)) => Beginning::ToWildcard(literal.into()),
            },
            exact,
            route: Arc::new(route),
        }
    }

    /// More literal segments, then `$`, then `methods`.
    fn precedence(&self) -> (usize, bool, bool) {
        let literals = self.segments.iter().filter(|s| &***s != "*").count();
        (literals, self.exact, !self.route.methods.is_empty())
    }

    /// Whether a path without escapes shows the segments.
    fn matches_plainly(&self, path: &str) -> bool {
        match &self.beginning {
            Beginning::Whole(all) => self.matches_literally(path, all),
            Beginning::ToWildcard(some) => begins(path, some) && self.matches(path),
        }
    }

    /// Whether a path without escapes begins with the segments of `literal`, and ends there if it
    /// must.
    fn matches_literally(&self, path: &str, literal: &str) -> bool {
        let Some((beginning, rest)) = path.as_bytes().split_at_checked(literal.len()) else {
            return false;
        };
        let ends_well = match rest {
            [] | [b'/'] => true,
            [b'/', ..] => !self.exact,
            [..] => false,
        };
        // What versions of one path differ in comes last.
        let last = beginning.last().map(u8::to_ascii_lowercase);
        ends_well && last == literal.as_bytes().last().copied() && begins(path, literal)
    }

    fn takes(&self, method: &Method) -> bool {
        self.route.methods.is_empty() || self.route.methods.contains(method)
    }

    /// Whether a path shows the segments, however they are escaped.
    fn matches(&self, path: &str) -> bool {
        let mut actual = segments(path);
        let prefix = self.segments.iter().all(|wanted| {
            actual.next().is_some_and(|segment| {
                &**wanted == "*"
                    || decoded(segment)
                        .map(|byte| byte.to_ascii_lowercase())
                        .eq(wanted.bytes())
            })
        });
        prefix && (!self.exact || actual.next().is_none())
    }
}

fn begins(path: &str, literal: &str) -> bool {
    let beginning = path.as_bytes().get(..literal.len());
    beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(literal.as_bytes()))
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests;
