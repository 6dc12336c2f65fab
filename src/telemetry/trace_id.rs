//! Which trace a request is part of, as its `traceparent` says
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>). The proxy starts no traces and no
//! spans: the field goes on as it came, and the log repeats the identifier, so that a line can be
//! found from a trace.

use super::hex;

/// The identifier of a trace. Bytes, because a `u128` would align the record of every request to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The identifier in the value of a `traceparent`; `None` if that is not of version 00, whole and
    /// valid: lower case digits, and neither identifier zero.
    pub fn of_traceparent(value: &[u8]) -> Option<TraceId> {
        let (trace, rest) = value.strip_prefix(b"00-")?.split_at_checked(32)?;
        let (parent, rest) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
        let flags = rest.strip_prefix(b"-")?;
        let is_valid = flags.len() == 2 && hex::value(flags).is_some();
        let (trace, parent) = (hex::value(trace)?, hex::value(parent)?);
        (is_valid && trace != 0 && parent != 0).then(|| TraceId(trace.to_be_bytes()))
    }

    /// Its 32 digits.
    pub fn digits(self) -> [u8; 32] {
        hex::digits(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(value: &str) -> Option<String> {
        let id = TraceId::of_traceparent(value.as_bytes())?;
        Some(String::from_utf8(id.digits().to_vec()).unwrap())
    }

    #[test]
    fn a_valid_traceparent_names_its_trace() {
        assert_eq!(read(VALID).unwrap(), "0af7651916cd43dd8448eb211c80319c");
        let smallest = "00-00000000000000000000000000000001-0000000000000001-ff";
        assert_eq!(read(smallest).unwrap(), format!("{:032x}", 1));
    }

    #[test]
    fn what_is_not_valid_names_none() {
        for (of_it, instead) in [
            ("00-0", "01-0"),
            ("00-0", "ff-0"),
            ("0af7", "0AF7"),
            ("0af7", "0ag7"),
            ("0af7", "0af"),
            ("0af7", "0af77"),
            ("b7ad", "B7ad"),
            ("b7ad", "b7a "),
            ("-01", "-0"),
            ("-01", "-0x"),
            ("-01", "-01-"),
            ("-01", "-01-00"),
            ("-01", ""),
            ("9c-b7", "9c_b7"),
            ("31-01", "31_01"),
            ("b7ad6b7169203331", "0000000000000000"),
            (
                "0af7651916cd43dd8448eb211c80319c",
                "00000000000000000000000000000000",
            ),
        ] {
            let value = VALID.replacen(of_it, instead, 1);
            assert_ne!(value, VALID, "{of_it}");
            assert_eq!(read(&value), None, "{value}");
        }
        for value in ["", "00", "00-", "-", "00-0af7651916cd43dd8448eb211c80319c"] {
            assert_eq!(read(value), None, "{value}");
        }
        for end in 0..VALID.len() {
            assert_eq!(read(&VALID[..end]), None, "{end}");
        }
    }
}
