//! What a principal is called once it is forgotten: a keyed hash, which says nothing to those who lack the
//! key. Its tombstone stands under that name: generation and epoch, so that what was handed out before stays
//! ended, and no commit under way brings a pair back.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::principal::Principal;

/// What a pseudonym displays as begins with this. No principal does.
pub(super) const PREFIX: &str = "forgotten:";
/// Sorts right after every pseudonym.
pub(super) const END: &str = "forgotten;";
const BYTES: usize = 16;

/// The name of a forgotten principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pseudonym([u8; BYTES]);

impl Pseudonym {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Pseudonym> {
        let digits = text.strip_prefix(PREFIX)?;
        let is_hex = digits.len() == 2 * BYTES && digits.bytes().all(|it| it.is_ascii_hexdigit());
        let number = u128::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
        Some(Pseudonym(number.to_be_bytes()))
    }
}

/// `forgotten:` and 32 digits in lower case hex: the key of its row.
impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The keys of pseudonyms. A tombstone is written under each that its process knows, and found under any, so that
/// a key can be replaced. No `Debug`.
#[derive(Clone)]
pub struct Pseudonyms(Arc<Keys>);

struct Keys {
    current: Hmac<Sha256>,
    old: Vec<Hmac<Sha256>>,
}

impl Pseudonyms {
    /// Those of these keys.
    pub fn new<'a>(current: &[u8; 32], old: impl IntoIterator<Item = &'a [u8; 32]>) -> Pseudonyms {
        Pseudonyms(Arc::new(Keys {
            current: keyed(current),
            old: old.into_iter().map(keyed).collect(),
        }))
    }

    /// For who looks at a store without its keys: it knows of nobody that was forgotten.
    pub fn none() -> Pseudonyms {
        Pseudonyms::new(&[0; 32], [])
    }

    /// What `principal` is called with the current key.
    pub fn current(&self, principal: &Principal) -> Pseudonym {
        named(&self.0.current, principal)
    }

    /// What it is called with each key.
    pub fn all(&self, principal: &Principal) -> impl Iterator<Item = Pseudonym> {
        let keys = std::iter::once(&self.0.current).chain(&self.0.old);
        keys.map(|key| named(key, principal))
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn named(key: &Hmac<Sha256>, principal: &Principal) -> Pseudonym {
    let mac = key.clone().chain_update(principal.to_string());
    let mac: [u8; 32] = mac.finalize().into_bytes().into();
    let name = mac.first_chunk().copied();
    Pseudonym(name.expect("a MAC is longer than its beginning"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::user;

    #[test]
    fn a_pseudonym_reads_what_it_displays_and_is_no_principal() {
        let pseudonym = Pseudonyms::new(&[1; 32], []).current(&user(1));
        let text = pseudonym.to_string();
        assert_eq!(text.len(), PREFIX.len() + 32);
        assert_eq!(Pseudonym::parse(&text), Some(pseudonym));
        assert_eq!(Principal::parse(&text), None);
        assert!(!text.contains(&user(1).to_string()[5..]));
        for no in [
            &text[1..],
            &text[..text.len() - 1],
            &text.replace("forgotten:", "forgotten:+"),
        ] {
            assert_eq!(Pseudonym::parse(no), None, "{no}");
        }
        assert_eq!(
            Pseudonym::parse("user:00000000000000000000000000000001"),
            None
        );
    }

    #[test]
    fn a_name_has_a_pseudonym_with_each_key_the_current_one_first() {
        let [before, other] = [[1; 32], [2; 32]].map(|key| Pseudonyms::new(&key, []));
        let rotated = Pseudonyms::new(&[2; 32], [&[1; 32]]);
        let of = |pseudonyms: &Pseudonyms| pseudonyms.current(&user(1));
        assert_ne!(of(&before), of(&other));
        assert_ne!(before.current(&user(1)), before.current(&user(2)));
        assert_eq!(of(&rotated), of(&other));
        let found: Vec<_> = rotated.all(&user(1)).collect();
        assert_eq!(found, [of(&other), of(&before)]);
    }
}
