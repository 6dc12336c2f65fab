//! The requests that were recorded, so that a test can compare what arrived with what it sent.

use std::collections::VecDeque;
use std::sync::Mutex;

use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::{Serialize, Serializer};

use crate::principal::Principal;

use super::content::Received;

/// How many of the newest requests are kept.
const KEPT: usize = 20_000;

/// The header by which a test finds its own requests; a request that has it is recorded.
pub(super) const TEST_ID: &str = "x-test-id";

/// A request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    /// Its `X-Test-Id`.
    pub test_id: Option<String>,
    /// Its method.
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// Its fields in order; names in lower case.
    #[serde(serialize_with = "as_pairs")]
    pub headers: HeaderMap,
    /// How many bytes of content came.
    pub content_length: u64,
    /// SHA-256 of the content in lower-case hex.
    pub content_sha256: String,
    /// The content; `None` if it had more than 4 MiB, or was not read.
    #[serde(skip)]
    pub content: Option<bytes::Bytes>,
    /// Whose token came, alive or dead; `user:<DeviceToken>` or `account:<email>`.
    pub principal: Option<String>,
    /// The HTTP status it was answered with; 0 if the connection was cut instead.
    pub status: u16,
}

/// Keeps the recorded requests.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<VecDeque<Recorded>>);

impl Requests {
    /// Keeps one request, unless nothing asked for it to be kept.
    pub(super) fn record(
        &self,
        head: Parts,
        received: Received,
        principal: Option<&Principal>,
        status: Option<StatusCode>,
    ) {
        let test_id = head.headers.get(TEST_ID);
        let test_id = test_id.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let mut requests = self.0.lock().expect("no holder panics");
        if requests.len() == KEPT {
            requests.pop_front();
        }
        requests.push_back(Recorded {
            test_id,
            method: head.method.to_string(),
            target: target(&head).to_owned(),
            headers: head.headers,
            content_length: received.length,
            content_sha256: received.sha256,
            content: received.content,
            principal: principal.map(Principal::to_string),
            status: status.map_or(0, |status| status.as_u16()),
        });
    }

    /// The recorded requests in the order of their answers; of one test, if it is named.
    pub(super) fn list(&self, test_id: Option<&str>) -> Vec<Recorded> {
        let requests = self.0.lock().expect("no holder panics");
        requests
            .iter()
            .filter(|request| test_id.is_none() || request.test_id.as_deref() == test_id)
            .cloned()
            .collect()
    }

    pub(super) fn clear(&self) {
        self.0.lock().expect("no holder panics").clear();
    }
}

/// Whether a request is to be recorded.
pub(super) fn wanted(head: &Parts) -> bool {
    head.headers.contains_key(TEST_ID) || head.uri.path().starts_with("/mobilesdk/stage/echo")
}

/// Path and query as they came.
pub(super) fn target(head: &Parts) -> &str {
    head.uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
}

/// The value of a query's parameter, as it came; names without regard to case.
pub(super) fn parameter<'q>(query: &'q str, wanted: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case(wanted).then_some(value)
    })
}

fn as_pairs<S: Serializer>(headers: &HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))),
    )
}
