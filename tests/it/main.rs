//! The integration tests: one binary, one module a subject.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions, not what they call"
)]

// What all of them share.
mod harness;

// The configuration and `check`: example files, invalid files and their messages.
mod config;
// The main job: a DeviceToken in, the API's answer out.
mod main_job;
// The life of tokens: every fault of a renewal, of Damoov, of the store.
mod tokens;
