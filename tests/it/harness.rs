//! What the tests share: a simulated Damoov in this process, the real proxy as a child process in
//! front of it, and callers. Everything on loopback, every port chosen by the system.

// How a proxy is started, and the process that it then is.
mod builder;
mod process;
// What stands behind it, and both together.
mod damoov;
mod scene;
mod tls;
// Who calls it, and what it says of itself.
mod caller;
mod metrics;
// Addresses, time, and the machine.
mod ports;
pub mod programs;
mod rounds;
pub mod script;
mod waiting;

pub use builder::{Builder, make_pipe, proxy, proxy_through, write_private};
pub use caller::{Answer, Client};
pub use damoov::{
    SECOND_ID, SECOND_KEY, damoov, damoov_of_two, damoov_with, most_within, principal, user,
};
pub use ports::loopback;
pub use process::Proxy;
pub use rounds::{allow_many_descriptors, heavy, rounds};
pub use scene::{PlayedScene, Scene};
pub use tls::{server_tls, trusting, with_tls};
pub use waiting::{captured, eventually, said};

/// The path of a call that every user may make.
pub const SCORES: &str = "/indicators/v3/Scores/safety?StartDate=2026-11-01&EndDate=2026-11-07";
/// Records what arrives.
pub const ECHO: &str = "/mobilesdk/stage/echo";
/// The host of [`ECHO`].
pub const ECHO_HOST: &str = "mobilesdk.telematicssdk.com";
