//! [`Secret`]: a token, key or password that cannot be printed or serialised by accident and is
//! wiped when dropped. Knows nothing of HTTP.

pub mod file;

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// A secret string. `Debug` shows a placeholder; there is no `Display` and no `Serialize`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of the secret; the string's buffer is wiped when the last clone is dropped.
    pub fn new(secret: String) -> Secret {
        Secret(SecretString::from(secret))
    }

    /// The secret itself, for the one place that puts it on the wire or under the seal.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether `guess` equals the secret, in time that depends only on the lengths.
    pub fn matches(&self, guess: &str) -> bool {
        self.expose().as_bytes().ct_eq(guess.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// In time that depends only on the lengths.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(other.expose())
    }
}

impl Eq for Secret {}

impl From<&str> for Secret {
    fn from(secret: &str) -> Secret {
        Secret::new(secret.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_secret() {
        assert!(
            !format!(
                "{:?} {:#?}",
                Secret::from("hunter2"),
                Some(Secret::from("hunter2"))
            )
            .contains("hunter2")
        );
    }

    #[test]
    fn matches_compares_whole_strings() {
        let secret = Secret::from("correct horse");
        assert!(secret.matches("correct horse"));
        assert!(!secret.matches("correct hors"));
        assert!(!secret.matches("correct horsf"));
    }
}
