//! The configuration: TOML as written, settings as meant.
