//! Content in both directions: what came with a request, counted and hashed; large answers.

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::answer::{Answer, Cut};

/// The most of a request's content that is kept for `/_control/requests`: 4 MiB.
pub(super) const KEPT: usize = 4 << 20;

/// The most that an endpoint reads of a request's content: 64 KiB.
pub(super) const READ: usize = 64 << 10;

/// One piece of a large answer.
static PIECE: [u8; 64 << 10] = [b'd'; 64 << 10];

/// A request's content once all of it has come.
#[derive(Debug)]
pub(super) struct Received {
    /// In bytes.
    pub(super) length: u64,
    /// In lower-case hex.
    pub(super) sha256: String,
    /// The content itself; `None` if it was longer than what the caller wanted kept.
    pub(super) content: Option<Bytes>,
}

impl Received {
    /// Content that came whole.
    pub(super) fn of(content: Bytes) -> Received {
        Received {
            length: content.len() as u64,
            sha256: hex(&Sha256::digest(&content)),
            content: Some(content),
        }
    }

    /// What stands for content that was never read.
    pub(super) fn nothing() -> Received {
        Received {
            length: 0,
            sha256: hex(&Sha256::digest([])),
            content: None,
        }
    }

    /// The content as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        let content = self.content.as_deref().unwrap_or_default();
        serde_json::from_slice(content).unwrap_or_default()
    }
}

/// Reads all of `body`; keeps it if it has at most `keep` bytes. Fails when the client breaks off.
pub(super) async fn receive(mut body: Incoming, keep: usize) -> Result<Received, Cut> {
    let (mut length, mut hash, mut kept) = (0, Sha256::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        // Trailers are no content.
        let Ok(piece) = frame.map_err(|_| Cut::Close)?.into_data() else {
            continue;
        };
        length += piece.len() as u64;
        hash.update(&piece);
        if length <= keep as u64 {
            kept.extend_from_slice(&piece);
        }
    }
    Ok(Received {
        length,
        sha256: hex(&hash.finalize()),
        content: (length <= keep as u64).then(|| kept.into()),
    })
}

/// An answer of `length` bytes, all `d`, with Content-Length.
pub(super) fn sized(length: u64) -> Answer {
    let mut answer = chunked(length);
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    answer
}

/// An answer of `length` bytes, all `d`, whose length is not announced.
pub(super) fn chunked(length: u64) -> Answer {
    let pieces = futures_util::stream::unfold(length, |left| async move {
        let size = usize::try_from(left).map_or(PIECE.len(), |left| left.min(PIECE.len()));
        let piece = Frame::data(Bytes::from_static(&PIECE[..size]));
        (size > 0).then(|| (Ok(piece), left - size as u64))
    });
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}
