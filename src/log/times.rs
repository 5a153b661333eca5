//! The times that the log writer records.

use std::time::Duration;

use crate::times::{SizeRecorder, TimeRecorder};

/// The histograms of [`TimeStats`] that the log writer records. One thread at a time has the
/// writer's post.
#[derive(Debug, Default)]
pub(crate) struct LogTimes {
    pub(super) write: TimeRecorder,
    pub(super) sync: TimeRecorder,
    pub(super) group_entries: SizeRecorder,
    pub(super) group_bytes: SizeRecorder,
    pub(super) submit_to_durable: TimeRecorder,
    pub(super) segment_wait: TimeRecorder,
}

impl LogTimes {
    /// Records a sync that covers the entry of a submission that began at `submitted_ns`.
    pub(super) fn durable_at(&self, now: Duration, submitted_ns: Option<u64>) {
        if let Some(submitted_ns) = submitted_ns {
            let since = Duration::from_nanos(submitted_ns);
            // The clock may have been read on another core; then no time has passed.
            self.submit_to_durable.record(now.saturating_sub(since));
        }
    }
}
