//! Answers that are whole: nobody keeps them, and nobody guesses what they are.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

/// What is told, as JSON.
pub(super) fn json(told: &impl Serialize) -> Response<Bytes> {
    let content = serde_json::to_vec(told).expect("strings, numbers and lists are JSON");
    whole(StatusCode::OK, "application/json", content.into())
}

/// An answer that nobody keeps.
pub(super) fn whole(status: StatusCode, kind: &'static str, content: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}
