//! What holds a login back, or a call to the Auth endpoints: the budget and the line for it, the pace,
//! back-offs, what is remembered of rejections, and how often a password is compared.

pub(crate) mod backoff;
pub(crate) mod breaker;
pub(crate) mod budget;
mod contested;
mod line;
pub(crate) mod login_slot;
pub(crate) mod mass_rejection;
pub(crate) mod obstacles;
pub(crate) mod pace;
pub(crate) mod password;
pub(crate) mod password_limit;
mod permits;
mod queue;
mod shared;
pub(crate) mod unreadable;
