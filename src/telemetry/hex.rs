//! Lower case hex digits, as names and identifiers in the log are written.

/// The digits of `bytes`, two for each: `DIGITS` must be twice `BYTES`.
pub(super) fn digits<const BYTES: usize, const DIGITS: usize>(bytes: [u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES) };
    const VALUES: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; DIGITS];
    for (two, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        two[0] = VALUES[usize::from(byte >> 4)];
        two[1] = VALUES[usize::from(byte & 15)];
    }
    digits
}

/// What at most 32 digits mean; `None` if one is not a lower case hex digit.
pub(super) fn value(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}
