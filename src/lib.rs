//! damoov-proxy: a sidecar in front of the Damoov telematics APIs.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod damoov;
pub mod error;
pub mod headers;
pub mod metrics;
pub mod principal;
pub mod proxy;
pub mod replay;
pub mod secret;
pub mod server;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod upstream;
