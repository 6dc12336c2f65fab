//! Answers: the envelope that each of them has, and the ways in which one can be cut off.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

/// An answer on its way to hyper.
pub(super) type Answer = Response<Content>;

/// The content of an answer.
pub(super) type Content = UnsyncBoxBody<Bytes, Cut>;

/// How a connection ends without a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// A TCP reset.
    #[error("the simulator resets this connection")]
    Reset,
    /// An orderly close at the wrong time.
    #[error("the simulator closes this connection")]
    Close,
}

/// How the API spells the envelope's names (damoov/API.md, "Hosts and credentials").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// `Result`, `Status`: everywhere but there.
    Upper,
    /// `result`, `status`: portal-apis.telematicssdk.com.
    Lower,
}

/// The envelope of a success.
pub(super) fn success(result: Value) -> Value {
    json!({"Result": result, "Status": 200, "Title": "", "Errors": []})
}

/// The envelope of a success that has no `Result`.
pub(super) fn done() -> Value {
    json!({"Status": 200, "Title": "", "Errors": []})
}

/// The envelope of a failure; an empty `message` is the API's "no useful message".
pub(super) fn failure(status: StatusCode, key: &str, message: &str) -> Value {
    let errors = match message {
        "" => json!([]),
        message => json!([{"Key": key, "Message": message}]),
    };
    json!({"Result": null, "Status": status.as_u16(), "Title": "", "Errors": errors})
}

/// An answer whose HTTP status is the one that its envelope says.
pub(super) fn enveloped(envelope: Value, names: Names) -> Answer {
    let status = envelope["Status"]
        .as_u64()
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
        .unwrap_or(StatusCode::OK);
    json_answer(
        status,
        &match names {
            Names::Upper => envelope,
            Names::Lower => lower_case(envelope),
        },
    )
}

/// Any JSON with any status.
pub(super) fn json_answer(status: StatusCode, content: &Value) -> Answer {
    // Not by its Display, which writes it piece by piece through a formatter.
    let content = serde_json::to_vec(content).expect("a Value always serialises");
    fixed(status, "application/json", content)
}

/// Any content with any status.
pub(super) fn fixed(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Answer {
    let content = Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Cuts the content off after half of its announced length, or after its first piece.
pub(super) fn halved(answer: Answer) -> Answer {
    let (mut head, content) = answer.into_parts();
    let length = content.size_hint().exact();
    if let Some(length) = length {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    let left = length.map_or(1, |length| {
        usize::try_from(length / 2).unwrap_or(usize::MAX)
    });
    let pieces = futures_util::stream::unfold((content, left), |(mut content, left)| async move {
        if left == 0 {
            // hyper flushes what it has only when it must wait for more.
            tokio::task::yield_now().await;
            return Some((Err(Cut::Close), (content, 0)));
        }
        let mut piece = match content.frame().await?.map(Frame::into_data) {
            Ok(Ok(piece)) => piece,
            Ok(Err(_)) => return None,
            Err(cut) => return Some((Err(cut), (content, 0))),
        };
        piece.truncate(left);
        let left = left - piece.len();
        Some((Ok(Frame::data(piece)), (content, left)))
    });
    Response::from_parts(head, StreamBody::new(pieces).boxed_unsync())
}

/// The same envelope with the first letter of its own names in lower case.
fn lower_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let (first, rest) = name.split_at(name.len().min(1));
                (first.to_ascii_lowercase() + rest, lower_case(value))
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(lower_case).collect(),
        other => other,
    }
}
