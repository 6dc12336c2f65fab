//! The seal on stored records: XChaCha20-Poly1305 under a key ring.
