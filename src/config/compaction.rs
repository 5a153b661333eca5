//! The conditions on which an engine compacts on its own.

use std::time::Duration;

use crate::error::OpenError;

/// Conditions on which the engine compacts on its own: it takes a snapshot and gives up the log
/// that the snapshot covers. Any of the conditions is enough.
///
/// The snapshots' bytes are a share of the bytes put in. With a ratio of 1, a snapshot is written
/// when the log could give up as many bytes as the last snapshot has. Then twice as much is written
/// as without compaction. The disk holds three times the state at most: the log, the old snapshot,
/// and the new one while it is written. Some six segments come on top, with those kept for reuse.
#[derive(Clone, Copy, PartialEq, Debug)]
#[must_use]
pub struct CompactionPolicy {
    pub(crate) garbage_ratio: f64,
    pub(crate) log_bytes: u64,
    pub(crate) entries: Option<u64>,
    pub(crate) interval: Option<Duration>,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self { garbage_ratio: 1.0, log_bytes: 128 << 20, entries: None, interval: None }
    }
}

impl CompactionPolicy {
    /// Makes the default conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses a ratio that is no ratio.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if self.garbage_ratio.is_finite() && self.garbage_ratio >= 0.0 {
            return Ok(());
        }
        let message = format!("{} is not a number from 0 on", self.garbage_ratio);
        Err(OpenError::Config { option: "compaction.garbage_ratio", message })
    }

    /// Compacts when the full segments that could go are this many times as long as the newest
    /// snapshot. They must also have [`log_bytes`](CompactionPolicy::log_bytes) at least; segments
    /// that `retain_entries` keeps do not count. From 0 on. Default: 1.
    pub fn garbage_ratio(mut self, ratio: f64) -> Self {
        self.garbage_ratio = ratio;
        self
    }

    /// Sets the length of full segments, in bytes, from which the ratio counts. Default: 128 MiB,
    /// two segments.
    pub fn log_bytes(mut self, bytes: u64) -> Self {
        self.log_bytes = bytes;
        self
    }

    /// Compacts when this many entries were applied since the newest snapshot. Default: no such
    /// condition.
    pub fn entries(mut self, entries: u64) -> Self {
        self.entries = Some(entries);
        self
    }

    /// Compacts when this much time has passed since the last compaction, if an entry was applied
    /// since. Default: no such condition.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }
}
