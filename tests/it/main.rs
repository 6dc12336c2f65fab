//! The integration tests: one binary, one module a subject.

#![allow(
    unreachable_pub,
    reason = "a binary has no outside; `pub` says what modules share"
)]
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
// What is promised at scale: crowds, kills, strangers, gigabytes, a week, fleets.
mod promises;
