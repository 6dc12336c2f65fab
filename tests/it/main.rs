//! The integration tests: one binary, one module a subject.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions, not what they call"
)]

// The configuration and `check`: example files, invalid files and their messages.
mod config;
