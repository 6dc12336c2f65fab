//! How a pair is renewed: one renewal at a time for each principal, by a refresh if there is a
//! RefreshToken, by a login if there is none; and what asks for one. Knows no request.
//!
//! ```text
//!   start ──▶ run: adopt what is stored ─ wait for a turn ─ take the lease
//!                                                               │ means
//!                                     ┌──── Refresh(pair) ──────┴─── LogIn ───┐
//!                                     ▼                                       ▼
//!                                  refresh ── the RefreshToken is dead ──▶ login
//!                                     └───────────── commit, publish ─────────┘
//! ```
//!
//! The methods of [`Engine`](super::engine::Engine) in these files are the renewal; it uses the vault and
//! the guards, neither of which uses it.

pub(crate) mod burial;
mod doubt;
mod grant;
pub(crate) mod identity;
pub(crate) mod keeper;
mod lease;
mod leased;
mod login;
mod means;
mod permits;
pub(crate) mod probes;
mod ready;
mod refresh;
pub(crate) mod renewals;
pub(crate) mod run;
mod start;
pub(crate) mod token_endpoint;
pub(crate) mod unreadable;
pub(crate) mod unused;
pub(crate) mod waiting;
