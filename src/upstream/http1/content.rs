//! Where the content of an answer ends: by its length, its chunks, or the connection's end (RFC 9112
//! §6.3, §7.1). Bytes in, pieces out; reads nothing itself. Strict where leniency would let two
//! readers see different ends.

use bytes::{Bytes, BytesMut};
use http_body::SizeHint;

use crate::headers::Framing;
use crate::upstream::Broken;

/// Chunk extensions and trailers of one answer, in bytes, together; they are dropped.
const OVERHEAD_LIMIT: usize = 16 * 1024;
/// Hexadecimal digits of a chunk's size: 60 bits.
const SIZE_DIGITS: u8 = 15;

/// Takes content off the front of what was read.
#[derive(Debug)]
pub(super) struct Decoder(Ending);

/// How the content ends.
#[derive(Debug)]
enum Ending {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunks(Chunks),
    /// With the connection.
    Close,
}

/// Where in the chunks.
#[derive(Debug)]
struct Chunks {
    state: State,
    /// Of the current chunk.
    left: u64,
    /// Bytes of extensions and trailers so far.
    overhead: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The size, of which this many digits have come.
    Size(u8),
    /// Blanks behind the size.
    Blanks,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// A trailer, or the end.
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Over,
}

impl Decoder {
    /// No content.
    pub(super) fn none() -> Decoder {
        Decoder(Ending::Length(0))
    }

    /// As the fields of the head say.
    pub(super) fn of(framing: Framing) -> Decoder {
        Decoder(match framing {
            Framing::CloseDelimited => Ending::Close,
            Framing::Length(length) => Ending::Length(length),
            Framing::Chunked => Ending::Chunks(Chunks {
                state: State::Size(0),
                left: 0,
                overhead: 0,
            }),
        })
    }

    /// The next piece of content; `None` if more must be read first, or if it is over.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Option<Bytes>, Broken> {
        match &mut self.0 {
            Ending::Length(left) => Ok(split(read, left)),
            Ending::Chunks(chunks) => chunks.take(read),
            Ending::Close => Ok((!read.is_empty()).then(|| read.split().freeze())),
        }
    }

    /// Whether nothing follows.
    pub(super) fn is_over(&self) -> bool {
        match &self.0 {
            Ending::Length(left) => *left == 0,
            Ending::Chunks(chunks) => chunks.state == State::Over,
            Ending::Close => false,
        }
    }

    /// Whether the end of the connection is the end of the content.
    pub(super) fn ends_with_the_connection(&self) -> bool {
        matches!(self.0, Ending::Close)
    }

    /// How many bytes to read at once, at most `most`.
    pub(super) fn wanted(&self, most: usize) -> usize {
        match self.0 {
            Ending::Length(left) => usize::try_from(left).unwrap_or(most).min(most),
            Ending::Chunks(_) | Ending::Close => most,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.0 {
            Ending::Length(left) => SizeHint::with_exact(left),
            Ending::Chunks(Chunks {
                state: State::Over, ..
            }) => SizeHint::with_exact(0),
            Ending::Chunks(_) | Ending::Close => SizeHint::default(),
        }
    }
}

impl Chunks {
    fn take(&mut self, read: &mut BytesMut) -> Result<Option<Bytes>, Broken> {
        loop {
            if self.state == State::Data {
                let piece = split(read, &mut self.left);
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                return Ok(piece);
            }
            let mut taken = 0;
            for byte in read.iter() {
                if matches!(self.state, State::Data | State::Over) {
                    break;
                }
                self.step(*byte)?;
                taken += 1;
            }
            let _ = read.split_to(taken);
            if self.state != State::Data {
                return Ok(None);
            }
        }
    }

    /// One byte between the data of two chunks.
    fn step(&mut self, byte: u8) -> Result<(), Broken> {
        use State::*;
        self.state = match (self.state, byte) {
            (Size(digits @ 0..SIZE_DIGITS), _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.left = self.left << 4 | digit;
                Size(digits + 1)
            }
            (Size(1..), b' ' | b'\t') | (Blanks, b' ' | b'\t') => self.count_overhead(Blanks)?,
            (Size(1..) | Blanks, b';') => self.count_overhead(Extension)?,
            (Size(1..) | Blanks | Extension, b'\r') => SizeLineFeed,
            (Extension, _) if byte != b'\n' => self.count_overhead(Extension)?,
            (SizeLineFeed, b'\n') if self.left == 0 => TrailerStart,
            (SizeLineFeed, b'\n') => Data,
            (DataReturn, b'\r') => DataLineFeed,
            (DataLineFeed, b'\n') => Size(0),
            (TrailerStart, b'\r') => LastLineFeed,
            (Trailer, b'\r') => TrailerLineFeed,
            (TrailerStart | Trailer, _) if byte != b'\n' => self.count_overhead(Trailer)?,
            (TrailerLineFeed, b'\n') => TrailerStart,
            (LastLineFeed, b'\n') => Over,
            _ => return Err(Broken::Chunks),
        };
        Ok(())
    }

    fn count_overhead(&mut self, next: State) -> Result<State, Broken> {
        self.overhead += 1;
        match self.overhead <= OVERHEAD_LIMIT {
            true => Ok(next),
            false => Err(Broken::Chunks),
        }
    }
}

/// Takes at most `left` bytes, and counts them.
fn split(read: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    if length == 0 {
        return None;
    }
    *left -= length as u64;
    Some(read.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunked() -> Decoder {
        Decoder::of(Framing::Chunked)
    }

    /// The content of `text`, given to the decoder in pieces of this size, and what is left.
    fn decoded(text: &[u8], size: usize) -> Result<(Vec<u8>, bool, Vec<u8>), Broken> {
        let mut decoder = chunked();
        let (mut read, mut content) = (BytesMut::new(), Vec::new());
        for piece in text.chunks(size) {
            read.extend_from_slice(piece);
            while let Some(piece) = decoder.take(&mut read)? {
                content.extend_from_slice(&piece);
            }
        }
        Ok((content, decoder.is_over(), read.to_vec()))
    }

    #[test]
    fn chunks_are_joined_and_what_stands_between_them_is_dropped() {
        for (text, content) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            (
                "3\r\nabc\r\n00a\r\n0123456789\r\n000\r\n\r\n",
                "abc0123456789",
            ),
            ("3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n", "abc"),
            ("3  ;a\r\nabc\r\n0 \r\n\r\n", "abc"),
            (
                "A\r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n",
                "0123456789",
            ),
        ] {
            for size in 1..=text.len() {
                let (decoded, over, left) = decoded(text.as_bytes(), size).unwrap();
                assert_eq!((&*decoded, over), (content.as_bytes(), true), "{text:?}");
                assert!(left.is_empty());
            }
        }
    }

    #[test]
    fn what_follows_the_last_chunk_is_left_alone() {
        let (content, over, left) = decoded(b"1\r\na\r\n0\r\n\r\nHTTP/1.1", 100).unwrap();
        assert_eq!(
            (&*content, over, &*left),
            (&b"a"[..], true, &b"HTTP/1.1"[..])
        );
    }

    #[test]
    fn doubtful_chunks_are_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            ";\r\n",
            "1\na\r\n",
            "1;a\n",
            "1 1\r\n",
            "1\r\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na0\r\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\n\ra",
            "0\r\nA: b\ra",
            "1234567890123456\r\n",
            "0000000000000000\r\n",
        ] {
            for size in 1..=text.len() {
                assert!(
                    matches!(decoded(text.as_bytes(), size), Err(Broken::Chunks)),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let filler = "x".repeat(OVERHEAD_LIMIT);
        assert!(decoded(format!("0;{}\r\n\r\n", &filler[1..]).as_bytes(), 1024).is_ok());
        for text in [
            format!("0;{filler}"),
            format!("0\r\nA{filler}"),
            "1;x\r\na\r\n".repeat(OVERHEAD_LIMIT),
        ] {
            assert!(matches!(
                decoded(text.as_bytes(), 1024),
                Err(Broken::Chunks)
            ));
        }
    }

    #[test]
    fn a_length_is_kept_to_and_a_close_takes_all() {
        let mut decoder = Decoder::of(Framing::Length(5));
        assert_eq!(decoder.size_hint().exact(), Some(5));
        let mut read = BytesMut::from("abc");
        assert_eq!(decoder.take(&mut read).unwrap().unwrap(), "abc");
        assert!(!decoder.is_over());
        read.extend_from_slice(b"defg");
        assert_eq!(decoder.take(&mut read).unwrap().unwrap(), "de");
        assert!(decoder.is_over());
        assert_eq!(&read[..], b"fg");
        assert!(decoder.take(&mut read).unwrap().is_none());

        let mut decoder = Decoder::of(Framing::CloseDelimited);
        assert!(decoder.ends_with_the_connection() && !decoder.is_over());
        assert_eq!(decoder.take(&mut read).unwrap().unwrap(), "fg");
        assert!(!decoder.is_over());
    }

    proptest! {
        #[test]
        fn whatever_was_chunked_comes_out_again(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..100), 0..10),
            size in 1..200_usize,
        ) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let (content, over, left) = decoded(&text, size).unwrap();
            prop_assert_eq!(content, pieces.concat());
            prop_assert!(over && left.is_empty());
        }

        /// However it is cut into reads, it means the same.
        #[test]
        fn cuts_change_nothing(
            text in "[0-9a-f;\r\n \tx:]{0,60}",
            size in 1..60_usize,
        ) {
            let whole = decoded(text.as_bytes(), usize::MAX).ok();
            let cut = decoded(text.as_bytes(), size).ok();
            prop_assert_eq!(whole, cut);
        }
    }
}
