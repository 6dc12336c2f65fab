//! What a request of `[admin]` must be before anything is told or done: from a page of this very listener
//! or from no page at all, short, and marked if it changes something. Knows nothing of what is asked.

use std::time::Duration;

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use crate::error::Error;
use crate::head::{self, Rejection, Seen};
use crate::replay;

/// The most content that a request may have.
const LONGEST: usize = 64 * 1024;
/// How long it may take to come.
const CONTENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What marks a request that changes something: a web page of another origin cannot send it without a
/// preflight, which is never answered.
const MARK: HeaderName = HeaderName::from_static("x-damoov-proxy");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Where a request may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Pages of this listener, and programs.
    SameOrigin,
    /// Those, and a person who follows a link from another page: the answer is a page to look at.
    Links,
}

/// Checks the head of a request: its Host, and the page that it comes from.
pub(super) fn check(head: &Parts, from: Source, settings: &head::Settings) -> Result<(), Error> {
    let seen = Seen {
        // Those of `allowed_origins` may call the API, and have no business here.
        origin: false,
        ..Seen::of(&head.headers)
    };
    head::check(head, seen, settings)?;
    match is_of_this_origin(&head.headers) || (from == Source::Links && follows_a_link(head)) {
        true => Ok(()),
        false => Err(Rejection::Origin.into()),
    }
}

/// Whether no web page sent it, or one of this listener.
fn is_of_this_origin(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let is_own = |origin: &[u8]| {
        let authority = [&b"http://"[..], b"https://"]
            .iter()
            .find_map(|scheme| origin.strip_prefix(*scheme));
        authority.is_some() && authority == host
    };
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    origins.all(|origin| is_own(origin.as_bytes()))
        && sites.all(|site| site == "none" || site == "same-origin")
}

/// Whether a browser opens it in a tab of its own because somebody followed a link.
fn follows_a_link(head: &Parts) -> bool {
    let is = |name, value| head.headers.get(&name).is_some_and(|found| found == value);
    head.method == Method::GET
        && !head.headers.contains_key(header::ORIGIN)
        && is(SEC_FETCH_MODE, "navigate")
        && is(SEC_FETCH_DEST, "document")
}

/// Refuses a request that changes something and is not marked.
pub(super) fn check_mark(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(&MARK).is_some_and(|mark| mark == "1") {
        true => Ok(()),
        false => Err(Error::MarkMissing),
    }
}

/// Reads the content to its end, and refuses what is longer than 64 KiB. Nothing that is asked here needs
/// any; what is sent anyway must not be taken for the next request.
pub(super) async fn discard(content: Incoming) -> Result<(), Error> {
    if content.is_end_stream() {
        return Ok(());
    }
    if content.size_hint().lower() > LONGEST as u64 {
        return Err(Error::ContentTooLarge);
    }
    let reading = Limited::new(content, LONGEST).collect();
    match tokio::time::timeout(CONTENT_TIMEOUT, reading).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::ContentTooLarge),
        Ok(Err(_)) => Err(replay::Failure::Cut.into()),
        Err(_) => Err(replay::Failure::Idle.into()),
    }
}
