//! The account of what recordings keep in memory, over all requests of all workers.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use crate::telemetry::episode::Episode;

/// It suffices again once no request was refused memory for this long.
const QUIET: Duration = Duration::from_secs(10);

/// Hands out the memory that recordings take, over all requests of all workers.
#[derive(Debug)]
pub struct Memory {
    /// Bytes kept over all requests.
    limit: u64,
    /// The account itself, not a copy of it, so that the metric cannot drift from the truth.
    pub(super) reserved: Gauge<i64, AtomicI64>,
    /// Told of when it begins and when it is over.
    exhausted: Episode,
}

impl Memory {
    /// Of at most `limit` bytes, with a gauge that counts the reserved ones.
    pub fn new(limit: u64, reserved: Gauge<i64, AtomicI64>) -> Memory {
        Memory {
            limit,
            reserved,
            exhausted: Episode::ending_after(QUIET),
        }
    }

    /// Bytes that recordings have now, and may have.
    pub fn reserved(&self) -> (u64, u64) {
        let reserved = self.reserved.get().try_into().unwrap_or(0);
        (reserved, self.limit)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let bytes = signed(bytes);
        let fits = self.reserved.inc_by(bytes).saturating_add(bytes) <= signed(self.limit);
        if !fits {
            self.reserved.dec_by(bytes);
            self.refused();
        } else if self.exhausted.is_failing()
            && let Some(over) = self.exhausted.worked()
        {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "`replay_memory` suffices again");
        }
        fits
    }

    #[cold]
    fn refused(&self) {
        if self.exhausted.failed() {
            tracing::warn!(
                limit = self.limit,
                "`replay_memory` is used up: further content is passed on without being kept, and \
                 cannot be sent again after a 401"
            );
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The memory of one recording; given back when dropped.
#[derive(Debug)]
pub(super) struct MemoryPermit {
    memory: Arc<Memory>,
    /// Bytes kept of this recording at most: as it was configured when it began.
    limit: u64,
    pub(super) bytes: u64,
}

impl MemoryPermit {
    /// Of nothing yet.
    pub(super) fn of(memory: &Arc<Memory>, limit: u64) -> MemoryPermit {
        MemoryPermit {
            memory: memory.clone(),
            limit,
            bytes: 0,
        }
    }

    /// Whether there is memory for this many bytes. What is reserved at least doubles, within the limit
    /// of one request, so that content in many pieces is not moved at each.
    pub(super) fn cover(&mut self, bytes: usize) -> bool {
        let (bytes, limit) = (bytes as u64, self.limit);
        if bytes <= self.bytes {
            return true;
        }
        let grown = bytes.max(self.bytes * 2).min(limit);
        let covers = bytes <= limit && self.memory.reserve(grown - self.bytes);
        if covers {
            self.bytes = grown;
        }
        covers
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.memory.reserved.dec_by(signed(self.bytes));
    }
}
