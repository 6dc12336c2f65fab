//! Real servers for tests: PostgreSQL with databases, roles, standbys and faults of its own; pgbouncer in
//! front of it; a network that is cut, pauses and loses answers. Nothing that runs already is ever used.
//!
//! [`Database::new`] is what most tests want: an empty database on a server that all tests of a binary
//! share. A test that kills or promotes starts a [`Server`] for itself. All of them end with the test binary,
//! however it ends.
//!
//! Everything runs on threads of its own: a test may pause its clock, and may block.

mod account;
mod authority;
mod background;
mod database;
mod folder;
mod forwarder;
mod pgbouncer;
mod processes;
mod server;
mod standby;

pub use authority::Authority;
pub use database::{Database, Role, url};
pub use folder::new_folder;
pub use forwarder::{At, Forwarder, Loss, Part};
pub use pgbouncer::Pgbouncer;
pub use server::{Builder, Server, Stop};
pub use standby::{Replication, Standby};
