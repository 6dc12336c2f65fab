//! The seal on what is stored: XChaCha20-Poly1305 under a ring of keys, so that a key can be
//! replaced. A sealed text opens for its own principal and kind only: records cannot be swapped.
//! Also keyed hashes, for logs and for recognising a credential without keeping it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::principal::Principal;
use crate::secret::Secret;
use crate::store::{KeyId, Pseudonyms};
use crate::telemetry::LogName;

/// The first byte of a sealed text.
const VERSION: u8 = 1;
const KEY_ID: usize = size_of::<KeyId>();
const NONCE: usize = 24;
/// Version, key id, nonce.
const HEADER: usize = 1 + KEY_ID + NONCE;
/// What the subkeys of [`TokenKeys`] are for.
const TOKENS: &[u8] = b"handed-out tokens";

/// Seals with the current key, opens with any. No `Debug`.
#[derive(Clone)]
pub struct Ring {
    current: SealKey,
    old: Vec<SealKey>,
    /// Hashes that appear in logs.
    log: Zeroizing<[u8; 32]>,
    /// Hashes that are stored.
    fingerprints: Zeroizing<[u8; 32]>,
    /// Tokens that are given to callers.
    tokens: TokenKeys,
    /// What the forgotten are called.
    pseudonyms: Pseudonyms,
}

/// Authenticates the tokens that the proxy gives out itself: makes with the current key,
/// recognises with any, so that tokens outlive the replacement of a key. No `Debug`.
#[derive(Clone)]
pub struct TokenKeys {
    current: Zeroizing<[u8; 32]>,
    old: Vec<Zeroizing<[u8; 32]>>,
}

/// A key that is not 32 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store key is 32 bytes in base64, as `openssl rand -base64 32` prints them")]
pub struct BadKey;

/// Why a sealed text did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// Shorter than any sealed text, or of an unknown version.
    #[error("not a sealed text of this version")]
    Malformed,
    /// Sealed with a key that is not on the ring.
    #[error("sealed with a key that is not configured")]
    UnknownKey,
    /// Changed since it was sealed, or sealed for another principal or kind.
    #[error("damaged, or sealed for something else")]
    Forged,
}

/// What one master key seals with.
#[derive(Clone)]
struct SealKey {
    /// Tells the keys of a ring apart; says nothing about the key.
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl Ring {
    /// Each key is 32 bytes in base64; `old` ones only open.
    pub fn new(current: &Secret, old: &[Secret]) -> Result<Ring, BadKey> {
        let master = decode(current)?;
        let old: Vec<_> = old.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Ring {
            current: SealKey::of(&master),
            old: old.iter().map(|master| SealKey::of(master)).collect(),
            log: subkey(&master, b"log hashes"),
            fingerprints: subkey(&master, b"fingerprints"),
            tokens: TokenKeys {
                current: subkey(&master, TOKENS),
                old: old.iter().map(|master| subkey(master, TOKENS)).collect(),
            },
            pseudonyms: pseudonyms(&master, &old),
        })
    }

    /// The keys that only open, in the order in which they were given.
    pub fn old_key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.old.iter().map(|key| key.id)
    }

    /// Whether this key is on the ring.
    pub fn holds(&self, id: KeyId) -> bool {
        id == self.current.id || self.old_key_ids().any(|old| old == id)
    }

    /// The key that [`Ring::seal`] seals with.
    pub fn key_id(&self) -> KeyId {
        self.current.id
    }

    /// The keys for tokens of the proxy's own.
    pub fn token_keys(&self) -> TokenKeys {
        self.tokens.clone()
    }

    /// What the forgotten are called. Tokens that were handed out before end with their key, too: a pseudonym
    /// that no key finds any more is needed no more.
    pub fn pseudonyms(&self) -> Pseudonyms {
        self.pseudonyms.clone()
    }

    /// Seals `plaintext`; only [`Ring::open`] with the same principal and kind opens it.
    pub fn seal(&self, principal: &Principal, kind: &str, plaintext: &[u8]) -> Vec<u8> {
        self.seal_for(&principal.to_string(), kind, plaintext)
    }

    /// Opens what [`Ring::seal`] sealed with a key of this ring.
    pub fn open(
        &self,
        principal: &Principal,
        kind: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        self.open_for(&principal.to_string(), kind, sealed)
    }

    /// Stands for `principal` in logs.
    pub fn log_name(&self, principal: &Principal) -> LogName {
        LogName::of(self.log_hash(principal))
    }

    /// What [`Ring::log_name`] writes out.
    pub(crate) fn log_hash(&self, principal: &Principal) -> [u8; 8] {
        hash(&self.log, &[principal.to_string().as_bytes()])
    }

    /// Recognises `parts` (an instance and its key) without keeping them. Where one part ends and
    /// the next begins counts.
    pub fn fingerprint(&self, parts: &[&[u8]]) -> [u8; 8] {
        hash(&self.fingerprints, parts)
    }

    /// The same, for what is no principal's.
    pub(super) fn seal_for(&self, owner: &str, kind: &str, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).expect("the kernel's random numbers never fail once booted");
        let payload = Payload {
            msg: plaintext,
            aad: &associated(owner, kind),
        };
        let ciphertext = self
            .current
            .cipher
            .encrypt(&nonce.into(), payload)
            .expect("only texts of 256 GiB cannot be sealed");
        [
            &[VERSION][..],
            self.current.id.0.as_slice(),
            nonce.as_slice(),
            ciphertext.as_slice(),
        ]
        .concat()
    }

    /// The same, for what is no principal's.
    pub(super) fn open_for(
        &self,
        owner: &str,
        kind: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (header, ciphertext) = sealed
            .split_first_chunk::<HEADER>()
            .filter(|(header, _)| header[0] == VERSION)
            .ok_or(Unopened::Malformed)?;
        let (id, nonce) = header[1..].split_at(KEY_ID);
        let nonce: [u8; NONCE] = nonce.try_into().expect("the header ends with the nonce");
        let key = std::iter::once(&self.current)
            .chain(&self.old)
            .find(|key| key.id.0 == id)
            .ok_or(Unopened::UnknownKey)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &associated(owner, kind),
        };
        key.cipher
            .decrypt(&nonce.into(), payload)
            .map(Zeroizing::new)
            .map_err(|_| Unopened::Forged)
    }
}

impl TokenKeys {
    /// The HMAC-SHA256 of `parts` under the current key. Where one part ends and the next begins
    /// counts.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        keyed(&self.current, parts).finalize().into_bytes().into()
    }

    /// Whether `mac` is that of `parts` under the current key or an old one, in time that does not
    /// depend on where it differs.
    pub fn verify(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        std::iter::once(&self.current)
            .chain(&self.old)
            .any(|key| keyed(key, parts).verify_slice(mac).is_ok())
    }
}

/// The key that a sealed text says it was sealed with; `None` if it is no sealed text.
pub fn key_of(sealed: &[u8]) -> Option<KeyId> {
    let (header, _) = sealed.split_first_chunk::<HEADER>()?;
    let id = header[1..].first_chunk().copied().map(KeyId)?;
    (header[0] == VERSION).then_some(id)
}

fn pseudonyms(current: &[u8; 32], old: &[Zeroizing<[u8; 32]>]) -> Pseudonyms {
    let of = |master| subkey(master, b"pseudonyms");
    let old: Vec<_> = old.iter().map(|master| of(master)).collect();
    Pseudonyms::new(&of(current), old.iter().map(|key| &**key))
}

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key)
        .expect("HMAC takes keys of any length")
        .chain_update(joined(parts))
}

impl SealKey {
    fn of(master: &[u8; 32]) -> SealKey {
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&subkey(master, b"key id")[..KEY_ID]);
        let key = subkey(master, b"seal");
        SealKey {
            id: KeyId(id),
            cipher: XChaCha20Poly1305::new((&*key).into()),
        }
    }
}

fn decode(key: &Secret) -> Result<Zeroizing<[u8; 32]>, BadKey> {
    let bytes = BASE64_STANDARD
        .decode(key.expose())
        .map(Zeroizing::new)
        .map_err(|_| BadKey)?;
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| BadKey)?;
    Ok(Zeroizing::new(*bytes))
}

/// One key for each purpose, by HKDF-SHA256 (RFC 5869).
fn subkey(master: &[u8; 32], purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(b"damoov-proxy store key"), master)
        .expand(purpose, key.as_mut_slice())
        .expect("32 bytes are less than HKDF's limit");
    key
}

/// HKDF's expansion is a keyed hash of its `info`.
fn hash(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = [0; 8];
    Hkdf::<Sha256>::from_prk(key)
        .expect("32 bytes are a whole SHA-256 key")
        .expand(&joined(parts), &mut hash)
        .expect("8 bytes are less than HKDF's limit");
    hash
}

/// What a seal is bound to.
fn associated(owner: &str, kind: &str) -> Zeroizing<Vec<u8>> {
    joined(&[&[VERSION], owner.as_bytes(), kind.as_bytes()])
}

/// Each part after its length, so that no two lists of parts look the same.
fn joined(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut joined = Zeroizing::new(Vec::new());
    for part in parts {
        joined.extend((part.len() as u64).to_be_bytes());
        joined.extend(*part);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::user;

    fn key(n: u8) -> Secret {
        Secret::new(BASE64_STANDARD.encode([n; 32]))
    }

    fn ring(n: u8) -> Ring {
        Ring::new(&key(n), &[]).unwrap()
    }

    #[test]
    fn a_sealed_text_opens_for_its_own_principal_and_kind_only() {
        let ring = ring(1);
        let sealed = ring.seal(&user(1), "pair", b"a token");
        assert_eq!(*ring.open(&user(1), "pair", &sealed).unwrap(), b"a token");
        assert_eq!(ring.open(&user(2), "pair", &sealed), Err(Unopened::Forged));
        assert_eq!(ring.open(&user(1), "note", &sealed), Err(Unopened::Forged));
        let moved = Principal::Account("a".into());
        let sealed = ring.seal(&moved, "pair", b"a token");
        let other = Principal::Account("ap".into());
        assert_eq!(ring.open(&other, "air", &sealed), Err(Unopened::Forged));
    }

    #[test]
    fn no_byte_of_a_sealed_text_can_be_changed_or_cut_off() {
        let ring = ring(1);
        let sealed = ring.seal(&user(1), "pair", b"a token");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ring.open(&user(1), "pair", &changed).is_err(), "byte {at}");
            assert!(
                ring.open(&user(1), "pair", &sealed[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_text_sealed_twice_looks_different_and_shows_nothing() {
        let ring = ring(1);
        let [one, other] = [(); 2].map(|()| ring.seal(&user(1), "pair", b"a token"));
        assert_ne!(one, other);
        assert!(!one.windows(7).any(|bytes| bytes == b"a token"));
    }

    #[test]
    fn an_old_key_still_opens_and_the_new_one_seals() {
        let sealed = ring(1).seal(&user(1), "pair", b"a token");
        let rotated = Ring::new(&key(2), &[key(3), key(1)]).unwrap();
        assert!(rotated.open(&user(1), "pair", &sealed).is_ok());
        let anew = rotated.seal(&user(1), "pair", b"a token");
        assert!(ring(2).open(&user(1), "pair", &anew).is_ok());
        let unknown = ring(1).open(&user(1), "pair", &anew);
        assert_eq!(unknown, Err(Unopened::UnknownKey));
    }

    #[test]
    fn a_key_that_is_not_32_bytes_is_refused() {
        for bad in ["", "hunter2", "AAAA", &BASE64_STANDARD.encode([1; 33])] {
            assert!(Ring::new(&bad.into(), &[]).is_err(), "{bad:?}");
            assert!(Ring::new(&key(1), &[bad.into()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hashes_depend_on_the_key_and_on_where_parts_end() {
        let ring_1 = ring(1);
        let name = ring_1.log_name(&user(1));
        assert_eq!(name, ring(1).log_name(&user(1)));
        assert_ne!(name, ring(2).log_name(&user(1)));
        assert_ne!(name, ring_1.log_name(&user(2)));
        let print = ring_1.fingerprint(&[b"instance", b"key"]);
        assert_eq!(print, ring_1.fingerprint(&[b"instance", b"key"]));
        assert_ne!(print, ring_1.fingerprint(&[b"instancek", b"ey"]));
        assert_ne!(print, ring(2).fingerprint(&[b"instance", b"key"]));
    }

    #[test]
    fn a_mac_is_that_of_its_parts_under_its_key_and_outlives_a_rotation() {
        let mac = ring(1).token_keys().mac(&[b"one", b"two"]);
        let rotated = Ring::new(&key(2), &[key(3), key(1)]).unwrap().token_keys();
        assert!(ring(1).token_keys().verify(&[b"one", b"two"], &mac));
        assert!(rotated.verify(&[b"one", b"two"], &mac));
        assert_ne!(rotated.mac(&[b"one", b"two"]), mac);
        let of_the_new = rotated.mac(&[b"one", b"two"]);
        assert!(ring(2).token_keys().verify(&[b"one", b"two"], &of_the_new));

        assert!(!ring(2).token_keys().verify(&[b"one", b"two"], &mac));
        for parts in [
            [b"on".as_slice(), b"etwo"].as_slice(),
            &[b"onetwo"],
            &[b"one", b"two", b""],
            &[],
        ] {
            assert!(!rotated.verify(parts, &mac), "{parts:?}");
        }
        for at in 0..mac.len() {
            let mut changed = mac;
            changed[at] ^= 1;
            assert!(!rotated.verify(&[b"one", b"two"], &changed), "byte {at}");
            assert!(
                !rotated.verify(&[b"one", b"two"], &mac[..at]),
                "cut at {at}"
            );
        }
    }
}
