//! Content recorded while it streams upstream, so that it can be sent again. Knows neither status
//! codes nor tokens.

/// Part of the configuration: `[renewal] replay_limit` and `replay_memory`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes kept of one request's content.
    pub limit: u64,
    /// Bytes kept over all requests.
    pub memory: u64,
}
