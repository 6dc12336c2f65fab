//! The head of an answer: found, checked, and turned into what the path works with.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use crate::headers::{Framing, framing, wants_close};
use crate::upstream::{Broken, Error};

/// The longest head of an answer, in bytes, and the most of interim answers before it.
const LONGEST_HEAD: usize = 64 * 1024;
/// The most fields of an answer.
const FIELD_LIMIT: usize = 100;
/// Room for what the path adds.
const FIELDS_TO_COME: usize = 4;

/// Looks for the head of an answer at the front of what was read.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// No head ends before this.
    searched: usize,
    /// Bytes of interim answers so far: however many come, they end within the limit of a head.
    interim: usize,
}

impl Finder {
    /// Takes the head, once it is there whole. Interim answers (RFC 9110 §15.2) before it are
    /// dropped.
    pub(super) fn take(
        &mut self,
        read: &mut BytesMut,
    ) -> Result<Option<(Response<()>, Framing)>, Error> {
        if is_http2(read) {
            return Err(Error::Broken(Broken::Http2));
        }
        while let Some(end) = self.end(read) {
            let answer = parse(&read.split_to(end).freeze()).map_err(Error::Broken)?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Error::Switched);
            }
            if answer.status().is_informational() {
                if announces_content(framing(answer.headers(), answer.version())) {
                    return Err(Error::Framing);
                }
                self.interim += end;
                if self.interim > LONGEST_HEAD {
                    return Err(Error::Broken(Broken::HeadTooLong));
                }
                continue;
            }
            return match framing(answer.headers(), answer.version()) {
                Some(framing) => Ok(Some((answer, framing))),
                None => Err(Error::Framing),
            };
        }
        match read.len() > LONGEST_HEAD {
            true => Err(Error::Broken(Broken::HeadTooLong)),
            false => Ok(None),
        }
    }

    /// Where the head ends: behind the first empty line. Nothing is searched twice, however slowly
    /// it comes.
    fn end(&mut self, read: &[u8]) -> Option<usize> {
        let new = &read[self.searched..];
        let end = memchr::memchr_iter(b'\n', new).find_map(|line_end| match &new[line_end + 1..] {
            [b'\n', ..] => Some(line_end + 2),
            [b'\r', b'\n', ..] => Some(line_end + 3),
            _ => None,
        });
        match end {
            Some(end) => {
                let end = self.searched + end;
                self.searched = 0;
                Some(end)
            }
            None => {
                // The last two bytes may be the beginning of it.
                self.searched = read.len().saturating_sub(2);
                None
            }
        }
    }
}

/// Whether this begins with what a host says that speaks HTTP/2 alone: SETTINGS, or GOAWAY, of the
/// connection itself (RFC 9113 §4.1).
fn is_http2(read: &[u8]) -> bool {
    matches!(read, [0, _, _, 4 | 7, _, 0, 0, 0, 0, ..])
}

/// Whether the connection can be used again after an answer with this framing. It cannot after an
/// answer that must have no content and yet announces some: it may come all the same, and must not be
/// taken for the next answer.
pub(super) fn keeps_alive(answer: &Response<()>, framing: Framing) -> bool {
    let contradicts_itself = has_no_content(answer.status()) && announces_content(Some(framing));
    answer.version() == Version::HTTP_11 && !wants_close(answer.headers()) && !contradicts_itself
}

/// Whether an answer of this status has no content, whatever was asked for (RFC 9110 §15.3.5,
/// §15.3.6, §15.4.5).
pub(super) fn has_no_content(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

/// Whether the fields of a head say that content follows, or leave it in doubt.
fn announces_content(framing: Option<Framing>) -> bool {
    !matches!(framing, Some(Framing::CloseDelimited | Framing::Length(0)))
}

/// Reads a head; its fields share the bytes.
fn parse(head: &Bytes) -> Result<Response<()>, Broken> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut parsed = httparse::Response::new(&mut []);
    let parsing = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        head,
        &mut fields,
    );
    if parsing.map_err(Broken::Head)? != httparse::Status::Complete(head.len()) {
        return Err(Broken::Head(httparse::Error::Status));
    }
    let mut answer = Response::new(());
    *answer.version_mut() = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *answer.status_mut() = status.ok_or(Broken::Head(httparse::Error::Status))?;
    let reason = parsed.reason.unwrap_or_default();
    if answer.status().canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        answer.extensions_mut().insert(reason);
    }
    *answer.headers_mut() = HeaderMap::with_capacity(parsed.headers.len() + FIELDS_TO_COME);
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        answer.headers_mut().append(
            name.map_err(|_| Broken::Head(httparse::Error::HeaderName))?,
            value.map_err(|_| Broken::Head(httparse::Error::HeaderValue))?,
        );
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(head: &str) -> Result<Option<Response<()>>, Error> {
        let taken = Finder::default().take(&mut head.into())?;
        Ok(taken.map(|(answer, _)| answer))
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let head = "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 3\r\n\r\n";
        let whole = format!("{head}abc");
        for cut in 0..whole.len() {
            let mut finder = Finder::default();
            let mut read = BytesMut::from(&whole[..cut]);
            let first = finder.take(&mut read).unwrap();
            assert_eq!(first.is_some(), cut >= head.len(), "{cut}");
            if first.is_none() {
                read.extend_from_slice(&whole.as_bytes()[cut..]);
                let (answer, framing) = finder.take(&mut read).unwrap().unwrap();
                assert_eq!(framing, Framing::Length(3));
                assert_eq!(answer.headers()["a"], "1");
                assert_eq!(&read[..], b"abc");
            }
        }
    }

    #[test]
    fn interim_answers_are_dropped_and_a_switch_is_an_error() {
        let answer = "HTTP/1.1 204 No Content\r\n\r\n";
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let found = taken(&format!("{interim}{answer}")).unwrap().unwrap();
        assert_eq!(found.status(), 204);
        assert!(found.headers().is_empty());
        assert!(taken(interim).unwrap().is_none());
        for announced in [
            "Content-Length: 1",
            "Transfer-Encoding: chunked",
            "Content-Length: x",
        ] {
            let interim = format!("HTTP/1.1 100 Continue\r\n{announced}\r\n\r\n");
            assert!(
                matches!(taken(&interim), Err(Error::Framing)),
                "{announced}"
            );
        }
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
        assert!(matches!(taken(switch), Err(Error::Switched)));
    }

    #[test]
    fn frames_of_http_2_are_known_at_once_whatever_is_in_them() {
        let settings: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
        let with_an_empty_line: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\n\n\0\0";
        let goaway: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        for frame in [settings, with_an_empty_line, goaway] {
            let mut finder = Finder::default();
            for end in 0..9 {
                assert!(finder.take(&mut frame[..end].into()).unwrap().is_none());
            }
            let taken = finder.take(&mut frame.into());
            assert!(matches!(taken, Err(Error::Broken(Broken::Http2))));
        }
    }

    #[test]
    fn a_reason_of_its_own_is_kept_and_a_usual_one_costs_nothing() {
        let reason = |line: &str| {
            let answer = taken(&format!("{line}\r\n\r\n")).unwrap().unwrap();
            let reason = answer.extensions().get::<ReasonPhrase>();
            reason.map(|reason| reason.as_bytes().to_vec())
        };
        assert_eq!(reason("HTTP/1.1 200 OK"), None);
        assert_eq!(reason("HTTP/1.1 200 Fine").unwrap(), b"Fine");
        assert_eq!(reason("HTTP/1.1 599 Odd").unwrap(), b"Odd");
        assert_eq!(reason("HTTP/1.1 200").unwrap(), b"");
    }

    #[test]
    fn a_head_has_an_end() {
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(LONGEST_HEAD));
        assert!(matches!(
            taken(&endless),
            Err(Error::Broken(Broken::HeadTooLong))
        ));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let endless = interim.repeat(LONGEST_HEAD / interim.len() + 1);
        assert!(taken(&endless[interim.len()..]).unwrap().is_none());
        assert!(matches!(
            taken(&endless),
            Err(Error::Broken(Broken::HeadTooLong))
        ));
        let fields = |count| {
            let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: 1\r\n".repeat(count));
            taken(&head).map(|answer| answer.unwrap().headers().len())
        };
        assert_eq!(fields(FIELD_LIMIT).unwrap(), FIELD_LIMIT);
        assert!(fields(FIELD_LIMIT + 1).is_err());
    }

    #[test]
    fn a_connection_lasts_unless_the_answer_says_otherwise() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", false),
            (
                "HTTP/1.1 200 OK\r\nConnection: a\r\nConnection: b , close\r\n\r\n",
                false,
            ),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 205 Reset\r\nContent-Length: 1\r\n\r\n", false),
            ("HTTP/1.1 304 Not\r\n\r\n", true),
            (
                "HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
            ),
        ] {
            let (answer, framing) = Finder::default().take(&mut head.into()).unwrap().unwrap();
            assert_eq!(keeps_alive(&answer, framing), expected, "{head}");
        }
    }
}
