//! The Auth endpoints: what is sent to log in and to refresh, and what an answer means. Pure.
