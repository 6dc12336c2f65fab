//! The command line; one file a subcommand.

#[cfg(feature = "simulator")]
pub mod simulate;
