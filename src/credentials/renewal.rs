//! How a pair is renewed: one renewal a principal at a time, by a refresh if there is a RefreshToken,
//! else by a login, and what asks for one.

mod grant;
pub(crate) mod identity;
pub(crate) mod keeper;
mod leased;
mod login;
mod means;
mod permits;
pub(crate) mod probes;
mod refresh;
pub(crate) mod renewals;
pub(crate) mod run;
mod start;
pub(crate) mod token_endpoint;
pub(crate) mod unreadable;
