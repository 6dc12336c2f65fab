//! A store that many processes on many machines share: PostgreSQL, 13 or newer.

mod address;
mod connection;
mod dialer;
mod errors;
mod link;
mod pool;
mod presence;
mod server_time;
mod session;
mod settings;
mod socket;
mod tls;

pub use self::address::Url;
pub use self::settings::{Password, Settings};
