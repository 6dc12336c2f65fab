//! What the API does with one request, by chance.

use std::cell::Cell;
use std::time::Duration;

use fastrand::Rng;
use http::Method;

use super::said::{good, hostile};

/// Request content that fits in no buffer, so that an answer can come before all of it was sent.
const LONG: usize = 256 * 1024;

/// What the API does with one request.
pub struct Plan {
    pub tag: String,
    pub method: Method,
    /// Of the request's content, in bytes.
    pub length: usize,
    /// Whether the answer is written before the request's content is read.
    pub early: bool,
    pub said: Vec<u8>,
    /// What is written at once.
    pub piece: usize,
    /// The content that the request must get; `None` if the answer is none that must be believed.
    pub must: Option<Vec<u8>>,
    /// What happens on the connection after the answer has been taken.
    pub then: Then,
    /// Whether that happens in the very moment before the next request, which nobody can have been
    /// told of.
    pub at_once: bool,
    /// Whether the request has got its answer, or an error.
    pub taken: Cell<bool>,
}

/// After an answer.
pub enum Then {
    Nothing,
    /// Bytes that nobody asked for.
    Says(Vec<u8>),
    Closes,
    Resets,
}

/// Tells two requests apart, and is nothing that chance brings about.
fn tag(seed: u64, number: u64) -> String {
    let mut mixed = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    format!("{:016x}", mixed ^ (mixed >> 31))
}

impl Plan {
    pub fn new(rng: &mut Rng, seed: u64, number: u64) -> Plan {
        let tag = tag(seed, number);
        let (method, length) = match rng.u8(..16) {
            0..9 => (Method::GET, 0),
            9..11 => (Method::HEAD, 0),
            11..15 => (Method::POST, rng.usize(..100)),
            _ => (Method::POST, LONG),
        };
        let content = format!("~{tag}~").repeat(rng.usize(..6)).into_bytes();
        let is_good = rng.u8(..10) < 3;
        let said = match is_good {
            true => good(rng, &tag, &content),
            false => hostile(rng, &tag, &content),
        };
        let is_early = !is_good && rng.bool();
        let has_content = method != Method::HEAD;
        let piece = match rng.u8(..8) {
            0 => rng.usize(1..64),
            _ => said.len().max(1),
        };
        Plan {
            early: is_early && length == LONG,
            piece,
            // In pieces, more of it may come once the request has what it takes for its answer.
            at_once: rng.bool() && piece >= said.len(),
            must: is_good.then(|| if has_content { content } else { Vec::new() }),
            said: match is_good && !has_content {
                true => head_of(&said),
                false => said,
            },
            then: Then::new(rng, &tag),
            taken: Cell::new(false),
            tag,
            method,
            length,
        }
    }
}

impl Plan {
    /// A busy kernel hands over what loopback carries a little later than it was written; what comes
    /// once the next request is on its way is, to every client of HTTP/1.1, the answer to that one. The
    /// runtime of the proxy does not run meanwhile.
    pub fn let_it_arrive(&self) {
        if !matches!(self.then, Then::Nothing) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Then {
    pub fn new(rng: &mut Rng, tag: &str) -> Then {
        let late = good(rng, tag, format!("~{tag}~").as_bytes());
        match rng.u8(..12) {
            0 => Then::Says(late),
            1 => Then::Says(late[..rng.usize(1..late.len())].to_vec()),
            2 => Then::Says(hostile(rng, tag, format!("~{tag}~").as_bytes())),
            3 => Then::Says(b"\r\n".to_vec()),
            4 => {
                let timeout = format!("HTTP/1.1 408 Request Timeout\r\nX-Tag: ~{tag}~\r\n");
                Then::Says((timeout + "Content-Length: 0\r\nConnection: close\r\n\r\n").into())
            }
            5 => Then::Closes,
            6 => Then::Resets,
            _ => Then::Nothing,
        }
    }
}

fn head_of(said: &[u8]) -> Vec<u8> {
    let end = said.windows(4).position(|end| end == b"\r\n\r\n");
    said[..end.map_or(said.len(), |end| end + 4)].to_vec()
}
