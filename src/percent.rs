//! Percent-encoding (RFC 3986 §2.1), as it is read and written here. Knows nothing of what it encodes.

/// The bytes of `text` after percent-decoding. An escape that is cut off or not hexadecimal
/// stays as it is.
pub fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        let escaped = match (first, after) {
            (b'%', [high, low, after @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((first, after));
        rest = after;
        Some(byte)
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Everything but the unreserved characters (RFC 3986 §2.3) is escaped.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_decodes_to_itself() {
        let text = "a b/c?d=%41&\u{e9}~._-";
        assert_eq!(escaped("a b~"), "a%20b~");
        assert!(decoded(&escaped(text)).eq(text.bytes()));
    }

    #[test]
    fn an_escape_that_is_cut_off_or_not_hexadecimal_stays_as_it_is() {
        for (text, bytes) in [("%4", "%4"), ("%zz", "%zz"), ("%", "%"), ("%41%", "A%")] {
            assert!(decoded(text).eq(bytes.bytes()), "{text}");
        }
    }
}
