//! Content without its coding (RFC 9110 §8.4.1) and its byte order mark. Proxies and CDNs compress
//! answers for which no compression was asked, and some servers mark UTF-8: answers that the proxy must
//! understand are understood all the same, within bounds. Pure; knows nothing of what the content means.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::{Decompress, FlushDecompress, Status};
use http::header::{self, HeaderMap};

use crate::headers;

/// The longest content that is understood, in bytes: as it comes, and decoded.
pub const LONGEST: usize = 64 * 1024;
/// The most of the beginning of content that is looked at, in decoded bytes.
pub const BEGINNING: usize = 512;

/// The most codings on top of one another.
const MOST_CODINGS: usize = 2;
/// As much of compressed content as is decoded for its beginning: enough for [`BEGINNING`], unless
/// the content was hardly compressible.
const COMPRESSED_BEGINNING: usize = 1024;
/// The byte order mark in UTF-8. RFC 8259 §8.1 forbids it in JSON, and lets readers skip it.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A content coding that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, also as `x-gzip`.
    Gzip,
    /// `deflate`: in the zlib format or, as some servers send it, without.
    Deflate,
}

/// Why content cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A coding besides gzip and deflate, or more than two.
    #[error("its Content-Encoding is neither gzip nor deflate")]
    CodingUnknown,
    /// More than [`LONGEST`], compressed or decoded.
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// It is cut, or does not have the coding that its head says.
    #[error("its coding is damaged")]
    Damaged,
}

/// The content of a message with these `headers`, decoded, without a byte order mark. No more than
/// [`LONGEST`] bytes are ever decoded.
///
/// # Errors
///
/// Whatever keeps it from being understood whole.
pub fn understood(headers: &HeaderMap, content: Bytes) -> Result<Bytes, Unreadable> {
    if content.len() > LONGEST {
        return Err(Unreadable::TooLong);
    }
    let mut content = content;
    for coding in codings(headers)?.into_iter().rev().flatten() {
        // What has no content has no coding either, whatever its head says.
        if !content.is_empty() {
            content = coding.decode(&content)?.into();
        }
    }
    if content.starts_with(MARK) {
        content = content.slice(MARK.len()..);
    }
    Ok(content)
}

/// The content without its byte order mark.
pub fn unmarked(content: &[u8]) -> &[u8] {
    content.strip_prefix(MARK).unwrap_or(content)
}

/// The only coding of a message with these `headers`; `None` if it has none.
///
/// # Errors
///
/// [`Unreadable::CodingUnknown`] for several, too.
pub fn only_coding(headers: &HeaderMap) -> Result<Option<Coding>, Unreadable> {
    match codings(headers)? {
        [coding, None] => Ok(coding),
        [..] => Err(Unreadable::CodingUnknown),
    }
}

/// Decodes the beginning of content with this coding, of which `piece` came first, into `room`.
/// Returns as much as can be told from the piece.
pub fn beginning<'r>(coding: Coding, piece: &[u8], room: &'r mut [u8; BEGINNING]) -> &'r [u8] {
    let piece = &piece[..piece.len().min(COMPRESSED_BEGINNING)];
    match coding {
        Coding::Gzip => read_some(MultiGzDecoder::new(piece), room),
        Coding::Deflate if has_zlib_header(piece) => read_some(ZlibDecoder::new(piece), room),
        Coding::Deflate => read_some(DeflateDecoder::new(piece), room),
    }
}

/// Reads until `room` is full, or the decoder does not get any further.
fn read_some(mut decoder: impl Read, room: &mut [u8; BEGINNING]) -> &[u8] {
    let mut filled = 0;
    while let Ok(read @ 1..) = decoder.read(&mut room[filled..]) {
        filled += read;
    }
    &room[..filled]
}

/// The codings in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<[Option<Coding>; MOST_CODINGS], Unreadable> {
    let mut codings = [None; MOST_CODINGS];
    let mut places = codings.iter_mut();
    for name in headers::list(headers, &header::CONTENT_ENCODING) {
        let is = |coding: &str| name.eq_ignore_ascii_case(coding.as_bytes());
        if name.is_empty() || is("identity") {
            continue;
        }
        let coding = if is("gzip") || is("x-gzip") {
            Coding::Gzip
        } else if is("deflate") {
            Coding::Deflate
        } else {
            return Err(Unreadable::CodingUnknown);
        };
        *places.next().ok_or(Unreadable::CodingUnknown)? = Some(coding);
    }
    Ok(codings)
}

impl Coding {
    fn decode(self, content: &[u8]) -> Result<Vec<u8>, Unreadable> {
        match self {
            Coding::Gzip => gunzip(content),
            Coding::Deflate => inflate(content),
        }
    }
}

/// One member of gzip or several (RFC 1952 §2.2), each checked.
fn gunzip(content: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut decoded = Vec::new();
    let mut decoder = MultiGzDecoder::new(content).take(LONGEST as u64 + 1);
    match decoder.read_to_end(&mut decoded) {
        Ok(length) if length > LONGEST => Err(Unreadable::TooLong),
        Ok(_) => Ok(decoded),
        Err(_) => Err(Unreadable::Damaged),
    }
}

/// Not by flate2's readers: to them a stream that is cut looks like one that has ended.
fn inflate(content: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut decoded = vec![0; LONGEST + 1];
    let mut state = Decompress::new(has_zlib_header(content));
    let status = state.decompress(content, &mut decoded, FlushDecompress::Finish);
    let length = state.total_out() as usize;
    let is_all = state.total_in() == content.len() as u64;
    match status {
        _ if length > LONGEST => Err(Unreadable::TooLong),
        Ok(Status::StreamEnd) if is_all => {
            decoded.truncate(length);
            Ok(decoded)
        }
        _ => Err(Unreadable::Damaged),
    }
}

/// Whether it begins as RFC 1950 §2.2 says. A raw deflate stream never does by chance: its first
/// byte would announce a stored block, and pad it with a bit that is zero in every encoder's.
fn has_zlib_header(content: &[u8]) -> bool {
    match content {
        [method, flags, ..] => {
            method & 0x8f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;
    use proptest::prelude::*;

    type Encode = fn(&[u8]) -> Vec<u8>;

    const FORMS: [(&str, Encode); 5] = [
        ("gzip", gzip),
        ("X-GZip", gzip),
        ("deflate", zlib),
        ("deflate", raw),
        ("identity", <[u8]>::to_vec),
    ];

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(content: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(lines: &[&'static str], content: Vec<u8>) -> Result<Bytes, Unreadable> {
        let line = |line: &&'static str| (header::CONTENT_ENCODING, HeaderValue::from_static(line));
        let headers = lines.iter().map(line).collect();
        understood(&headers, content.into())
    }

    #[test]
    fn every_coding_and_mark_says_the_same() {
        for (name, encode) in FORMS {
            for content in ["{\"a\":1}", ""] {
                assert_eq!(read(&[name], encode(content.as_bytes())).unwrap(), content);
                let marked = format!("\u{feff}{content}");
                assert_eq!(read(&[name], encode(marked.as_bytes())).unwrap(), content);
            }
        }
        assert_eq!(read(&[], b"{}".to_vec()).unwrap(), "{}");
        assert_eq!(read(&["gzip"], Vec::new()).unwrap(), "");
    }

    #[test]
    fn two_codings_are_undone_in_their_order_and_three_are_unknown() {
        let content = gzip(&zlib(b"both"));
        assert_eq!(read(&["deflate, gzip"], content.clone()).unwrap(), "both");
        assert_eq!(read(&["deflate", "gzip"], content.clone()).unwrap(), "both");
        assert_eq!(
            read(&["identity,deflate , ,gzip"], content.clone()).unwrap(),
            "both"
        );
        assert!(read(&["gzip, deflate"], content).is_err());
        for lines in [
            &["gzip, gzip, gzip"][..],
            &["br"],
            &["gzip, br"],
            &["zstd", "gzip"],
        ] {
            let refused = read(lines, gzip(b"x")).unwrap_err();
            assert_eq!(refused, Unreadable::CodingUnknown);
        }
    }

    #[test]
    fn members_of_gzip_are_joined_and_nothing_may_follow_them() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(read(&["gzip"], two.clone()).unwrap(), "one two");
        for encode in [gzip, zlib, raw] {
            let name = if encode(b"x") == gzip(b"x") {
                "gzip"
            } else {
                "deflate"
            };
            let longer = [encode(b"x"), b"more".to_vec()].concat();
            assert_eq!(read(&[name], longer).unwrap_err(), Unreadable::Damaged);
        }
    }

    #[test]
    fn what_is_cut_or_damaged_anywhere_is_never_taken_for_whole() {
        let content: Vec<u8> = (0..400_u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        for (name, encode) in FORMS.into_iter().filter(|(name, _)| *name != "identity") {
            let whole = encode(&content);
            for cut in 1..whole.len() {
                let cut = read(&[name], whole[..cut].to_vec());
                assert_eq!(cut.unwrap_err(), Unreadable::Damaged, "{name}");
            }
            let plain = read(&[name], content.clone());
            assert_eq!(plain.unwrap_err(), Unreadable::Damaged, "{name}");
        }
    }

    #[test]
    fn decoding_stops_at_64_kib_however_small_it_comes() {
        for (name, encode) in FORMS {
            let longest = vec![b' '; LONGEST];
            assert_eq!(read(&[name], encode(&longest)).unwrap().len(), LONGEST);
            for longer in [LONGEST + 1, 20 * LONGEST] {
                let refused = read(&[name], encode(&vec![b' '; longer])).unwrap_err();
                assert_eq!(refused, Unreadable::TooLong, "{name} {longer}");
            }
        }
        let many = gzip(&[b' '; LONGEST / 2]).repeat(3);
        assert_eq!(read(&["gzip"], many).unwrap_err(), Unreadable::TooLong);
        let nested = gzip(&gzip(&vec![b' '; 100 * LONGEST]));
        assert_eq!(
            read(&["gzip, gzip"], nested).unwrap_err(),
            Unreadable::TooLong
        );
    }

    #[test]
    fn a_beginning_is_what_a_piece_tells_and_no_more_than_512_bytes() {
        let content: Vec<u8> = (0..4000_u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        for (coding, encode) in [
            (Coding::Gzip, gzip as Encode),
            (Coding::Deflate, zlib),
            (Coding::Deflate, raw),
        ] {
            let whole = encode(&content);
            let mut room = [0; BEGINNING];
            let read = beginning(coding, &whole, &mut room);
            assert_eq!(read, &content[..BEGINNING]);
            for cut in 0..=600 {
                let mut room = [0; BEGINNING];
                assert!(content.starts_with(beginning(coding, &whole[..cut], &mut room)));
            }
            let mut room = [0; BEGINNING];
            assert_eq!(beginning(coding, &encode(b"short"), &mut room), b"short");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_encoded_comes_out_again(
            content: Vec<u8>,
            form in 0..FORMS.len(),
        ) {
            let (name, encode) = FORMS[form];
            let expected = unmarked(&content).to_vec();
            prop_assert_eq!(read(&[name], encode(&content)).unwrap(), expected);
        }

        #[test]
        fn no_content_makes_decoding_panic(content: Vec<u8>, form in 0..FORMS.len()) {
            let _ = read(&[FORMS[form].0], content.clone());
            let mut room = [0; BEGINNING];
            let _ = beginning(Coding::Gzip, &content, &mut room);
            let _ = beginning(Coding::Deflate, &content, &mut room);
        }
    }
}
