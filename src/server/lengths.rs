//! Several Content-Lengths in one head (RFC 9112 §6.3). hyper takes those of the same number for one,
//! `1` and `01` too, and shows only the first: a proxy in front of this one may have read
//! another. So the bytes of a head are looked at before hyper gets them. Knows nothing else of a
//! request.
//!
//! GET and HEAD are left to hyper: hardly any has content, they are nearly all there is, and a
//! request goes on with a framing of the proxy's own. So is a head that comes before the answer
//! to the one before it has ended.

/// The longest head that is kept while it comes in pieces; hyper refuses it by then.
const LONGEST: usize = 32 * 1024;
const NAME: &[u8] = b"content-length";

/// Looks at the heads of one connection, one after the other.
#[derive(Debug, Default)]
pub(super) struct Lengths(State);

#[derive(Debug, Default)]
enum State {
    /// Nothing of the head has come.
    #[default]
    Awaited,
    /// This much has come.
    Begun(Vec<u8>),
    /// There is nothing more to look for.
    Known { are_several: bool },
}

impl Lengths {
    /// What comes next begins a head.
    pub(super) fn reset(&mut self) {
        self.0 = State::Awaited;
    }

    /// More of a head has come, and perhaps of what follows it.
    pub(super) fn read(&mut self, piece: &[u8]) {
        let known = match &mut self.0 {
            State::Known { .. } => return,
            State::Awaited if piece.starts_with(b"GET ") || piece.starts_with(b"HEAD ") => Some(0),
            State::Awaited => {
                let known = count(piece);
                if known.is_none() {
                    self.0 = State::Begun(piece.to_vec());
                }
                known
            }
            State::Begun(head) if head.len() > LONGEST => Some(0),
            State::Begun(head) => {
                head.extend_from_slice(piece);
                count(head)
            }
        };
        if let Some(lengths) = known {
            let are_several = lengths > 1;
            self.0 = State::Known { are_several };
        }
    }

    /// Whether the head that came last has several.
    pub(super) fn are_several(&self) -> bool {
        matches!(self.0, State::Known { are_several: true })
    }
}

/// How many lines of a head are Content-Lengths; `None` if it is not whole. Empty lines before it do
/// not count (RFC 9112 §2.2).
fn count(head: &[u8]) -> Option<usize> {
    let begins = head.iter().position(|byte| !b"\r\n".contains(byte))?;
    let head = &head[begins..];
    let mut lengths = 0;
    for end in memchr::memchr_iter(b'\n', head) {
        let line = &head[end + 1..];
        match line {
            [b'\n', ..] | [b'\r', b'\n', ..] => return Some(lengths),
            [b'c' | b'C', ..] => {
                let split = line.split_at_checked(NAME.len());
                let is_length = split.is_some_and(|(name, rest)| {
                    name.eq_ignore_ascii_case(NAME) && rest.starts_with(b":")
                });
                lengths += usize::from(is_length);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "POST / HTTP/1.1\r\nContent-Length: 1\r\nA: b\r\ncontent-LENGTH: 01\r\n\r\na";
    const ONE: &str = "POST / HTTP/1.1\r\nContent-Length-X: 1\r\nContent-Length: 1\r\nA: Content-Length: 1\r\n\r\n\
        \r\nContent-Length: 1\r\n";

    #[test]
    fn several_lengths_of_a_head_are_seen_however_it_is_cut() {
        for (text, expected) in [
            (TWO, true),
            (ONE, false),
            (
                "POST / HTTP/1.1\nContent-Length: 1\nContent-Length: 1\n\n",
                true,
            ),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\nC: d\r\n\r\n",
                true,
            ),
            (
                "PUT / HTTP/1.1\r\n\r\n\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                false,
            ),
            (
                "\r\n\r\n\nPUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                true,
            ),
        ] {
            for size in 1..=text.len() {
                let mut lengths = Lengths::default();
                for piece in text.as_bytes().chunks(size) {
                    lengths.read(piece);
                }
                assert_eq!(lengths.are_several(), expected, "{text:?} {size}");
            }
        }
    }

    #[test]
    fn each_head_stands_for_itself() {
        let mut lengths = Lengths::default();
        for (text, expected) in [(TWO, true), (ONE, false), (TWO, true)] {
            lengths.reset();
            assert!(!lengths.are_several());
            lengths.read(text.as_bytes());
            assert_eq!(lengths.are_several(), expected);
        }
    }

    #[test]
    fn what_never_ends_is_not_kept_for_ever() {
        let mut lengths = Lengths::default();
        for _ in 0..1000 {
            lengths.read(&[b'x'; 1024]);
        }
        assert!(!lengths.are_several());
        assert!(matches!(lengths.0, State::Known { .. }));
    }
}
