//! The API's dialect as pure data: bodies, answers, paths, claims (damoov-api.md). No I/O.

pub mod auth;
pub mod auth_requests;
pub mod envelope;
pub mod in_band;
mod json;
pub mod jwt;
pub mod retry_after;
pub mod routes;
pub mod user_changes;
