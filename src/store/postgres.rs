//! A store that many processes on many machines share: PostgreSQL, 13 or newer.

mod address;
mod committer;
mod connection;
mod database;
mod dialer;
mod errors;
#[cfg(test)]
mod fake;
mod link;
mod outbox;
mod pending;
mod pool;
mod presence;
mod reassertion;
mod server_time;
mod session;
mod settings;
mod socket;
mod tls;

pub use self::address::Url;
pub use self::settings::{Password, Settings};
