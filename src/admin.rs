//! What operators look at: health and metrics, on a listener of their own.
