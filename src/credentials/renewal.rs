//! How a pair is renewed: one renewal a principal at a time, by a refresh if there is a RefreshToken,
//! else by a login, and what asks for one.

pub(crate) mod adoption;
pub(crate) mod keeper;
pub(crate) mod login;
pub(crate) mod probes;
mod refresh;
pub(crate) mod renewals;
mod run;
pub(crate) mod token_endpoint;
pub(crate) mod verification;
