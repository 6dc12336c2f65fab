//! What is kept of tokens: pairs under their seal in the store, credentials in memory. Knows nothing of
//! what a login costs, nor of how a pair is renewed.

pub(crate) mod cache;
mod clock_cache;
pub(crate) mod counted;
mod handed_out;
pub mod key_file;
pub(crate) mod pair;
pub mod seal;
pub(crate) mod stored;
