//! The integration tests: one binary, one module a subject.

// The configuration and `check`: example files, invalid files and their messages.
mod config;
