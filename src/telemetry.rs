//! Logs: the subscriber and the access event. Never sees a secret.

/// Part of the configuration: `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
