//! The rules by which a request head names a principal and an instance (interface.md). Pure.
