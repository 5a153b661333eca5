//! Figures of a log: the work of its writer, its memory, and its disk space.

use std::sync::atomic::Ordering;

use super::{Log, Writing};
use crate::times::TimeStats;

/// Figures of the log writer.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogWriterStats {
    /// Number of completed writes to the log since it was opened.
    pub groups: u64,
    /// Number of completed syncs of the log since it was opened.
    pub syncs: u64,
    /// Bytes of these writes.
    pub bytes: u64,
    /// Sequence of the last frame on stable storage.
    pub durable_sequence: u64,
    /// Number of segments since opening that took a recycled file.
    pub recycled_segments: u64,
}

/// Memory of an engine by its use, in bytes; all of it is reserved when the engine is made. The sum
/// is [`ApplyStats::memory_bytes`](crate::ApplyStats::memory_bytes).
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Images of the log's segments, with entries that are not written yet, or values that readers
    /// hold.
    pub images: usize,
    /// Frames that wait for the log writer, and places of the last frames.
    pub log_queue: usize,
    /// The in-flight ring: hash, offset and reply of each entry.
    pub in_flight: usize,
    /// The queues of the workers.
    pub rings: usize,
    /// Times of submissions, for the latency.
    pub stamps: usize,
}

impl MemoryStats {
    pub(crate) fn sum(&self) -> usize {
        let Self { images, log_queue, in_flight, rings, stamps } = *self;
        images + log_queue + in_flight + rings + stamps
    }
}

/// Disk space of the log and its snapshots. The engine counts it without a system call.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStats {
    /// Number of segments of the log.
    pub segments: u64,
    /// Bytes of their files. The file of a log's first segment grows as it is filled, and counts
    /// with its greatest length.
    pub segment_bytes: u64,
    /// Bytes of the files that are kept for reuse by later segments.
    pub spare_bytes: u64,
    /// Bytes of the newest snapshot; 0 for none.
    pub snapshot_bytes: u64,
}

impl Log {
    pub(crate) fn writer_stats(&self) -> LogWriterStats {
        let Some(Writing { shared, files, .. }) = &self.writing else {
            return LogWriterStats::default();
        };
        LogWriterStats {
            groups: shared.groups.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            durable_sequence: shared.durable_sequence.load(Ordering::Acquire).get(),
            recycled_segments: files.recycled(),
        }
    }

    /// The disk space of the log's files, without snapshots.
    pub(crate) fn disk_stats(&self) -> DiskStats {
        let Some(Writing { files, .. }) = &self.writing else { return DiskStats::default() };
        let segments = files.last_taken().next().since(self.base().segment);
        let (segment_bytes, spares) = (files.segment_bytes(), files.spares());
        DiskStats {
            segments,
            segment_bytes: segments * segment_bytes,
            spare_bytes: spares * segment_bytes,
            ..DiskStats::default()
        }
    }

    /// Fills in the histograms of the log.
    pub(crate) fn add_times(&self, times: &mut TimeStats) {
        let Some(Writing { shared, .. }) = &self.writing else { return };
        times.log_write = shared.times.write.histogram();
        times.log_sync = shared.times.sync.histogram();
        times.group_entries = shared.times.group_entries.histogram();
        times.group_bytes = shared.times.group_bytes.histogram();
        times.submit_to_durable = shared.times.submit_to_durable.histogram();
        times.segment_wait = shared.times.segment_wait.histogram();
    }
}
