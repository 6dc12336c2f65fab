//! A 401 inside an answer whose status is a success: where one may stand, and whether one does.

use http::header;
use http::{Response, StatusCode};
use http_body::Body;

use crate::content_coding::{self, BEGINNING, Coding};
use crate::damoov::in_band::says_401;

/// How JSON is coded in which a 401 may stand although the answer is a success; `None` where none
/// may, or where it could not be told. HEAD and 204 may announce content that never comes, and a
/// part of a document need not be its beginning.
pub(in crate::proxy) fn may_hold_a_401<C: Body>(answer: &Response<C>) -> Option<Option<Coding>> {
    if !answer.status().is_success()
        || answer.status() == StatusCode::PARTIAL_CONTENT
        || answer.body().is_end_stream()
    {
        return None;
    }
    // One look at each name takes less than to ask for these two.
    let (mut is_json, mut is_coded) = (false, false);
    for (name, value) in answer.headers() {
        if name == header::CONTENT_TYPE {
            is_json = names_json(value.as_bytes());
        } else if name == header::CONTENT_ENCODING {
            is_coded = true;
        }
    }
    match (is_json, is_coded) {
        (false, _) => None,
        (true, false) => Some(None),
        (true, true) => content_coding::only_coding(answer.headers()).ok(),
    }
}

/// Whether a media type is JSON, as it is or below another name (RFC 6839 §3.1).
fn names_json(media_type: &[u8]) -> bool {
    const USUAL: &[u8] = b"application/json";
    if let Some(rest) = media_type.strip_prefix(USUAL)
        && matches!(rest.first(), None | Some(b';'))
    {
        return true;
    }
    let end = memchr::memchr(b';', media_type);
    let essence = media_type[..end.unwrap_or(media_type.len())].trim_ascii();
    let ends_with = |suffix: &[u8]| {
        let start = essence.len().checked_sub(suffix.len());
        start.is_some_and(|start| essence[start..].eq_ignore_ascii_case(suffix))
    };
    essence.eq_ignore_ascii_case(USUAL) || ends_with(b"+json")
}

/// Whether content that begins with `piece` says 401 where the status does not.
pub(super) fn begins_with_401(coding: Option<Coding>, piece: &[u8]) -> bool {
    match coding {
        None => says_401(&piece[..piece.len().min(BEGINNING)]),
        Some(coding) => says_401(content_coding::beginning(
            coding,
            piece,
            &mut [0; BEGINNING],
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body::Frame;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// Content that says this of itself.
    struct Said {
        ended: bool,
    }

    impl Body for Said {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn is_end_stream(&self) -> bool {
            self.ended
        }
    }

    #[test]
    fn json_of_a_success_is_looked_into_whatever_its_length_and_coding() {
        let looked = |status: u16, fields: &[(&str, &str)], ended| {
            let mut answer = Response::new(Said { ended });
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in fields {
                let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
            may_hold_a_401(&answer)
        };
        let json = ("content-type", "application/json");
        for kind in [
            "application/json",
            "Application/JSON ; charset=utf-8",
            "application/problem+json",
            "application/vnd.damoov.v1+JSON;a=b",
        ] {
            let json = ("content-type", kind);
            assert_eq!(looked(200, &[json], false), Some(None), "{kind}");
        }
        for (coding, known) in [
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            ("X-GZIP", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
        ] {
            let fields = [json, ("content-encoding", coding)];
            assert_eq!(looked(207, &fields, false), Some(known), "{coding}");
        }
        for (status, fields) in [
            (401, &[json][..]),
            (206, &[json]),
            (200, &[]),
            (200, &[("content-type", "text/html")]),
            (200, &[("content-type", "application/jsonp")]),
            (200, &[("content-type", "json")]),
            (200, &[json, ("content-encoding", "br")]),
            (200, &[json, ("content-encoding", "zstd")]),
            (200, &[json, ("content-encoding", "gzip, deflate")]),
        ] {
            assert_eq!(looked(status, fields, false), None, "{fields:?}");
        }
        // An answer to HEAD.
        assert_eq!(looked(200, &[json], true), None);
    }

    #[test]
    fn a_401_counts_within_the_first_512_bytes_alone() {
        let after = |blanks: usize| {
            let blanks = " ".repeat(blanks);
            format!(
                "{{{blanks}\"Status\":401,\"Errors\":[\"{}\"]}}",
                "x".repeat(999)
            )
        };
        let last = BEGINNING - "{\"Status\":401,".len();
        assert!(begins_with_401(None, after(last).as_bytes()));
        assert!(!begins_with_401(None, after(last + 1).as_bytes()));
    }
}
