//! The API's dialect as pure data: bodies, answers, paths, claims. No I/O. What is known of the API,
//! with its sources, is the page below, which the rest of the code cites as damoov/API.md.
#![doc = ""]
#![doc = include_str!("damoov/API.md")]

pub mod auth;
pub mod auth_requests;
pub mod envelope;
pub mod in_band;
mod json;
pub mod jwt;
pub mod retry_after;
pub mod routes;
pub mod user_changes;
