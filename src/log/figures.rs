//! Figures of a log: what its writer did, and what it takes of memory and on disk.

use std::sync::atomic::Ordering;

use super::{Log, Writing};

/// Figures of the log writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogWriterStats {
    /// Writes to the log since it was opened, as soon as they are done.
    pub groups: u64,
    /// Syncs of the log since it was opened, likewise.
    pub syncs: u64,
    /// Bytes of these writes.
    pub bytes: u64,
    /// Last frame that is on stable storage.
    pub durable_sequence: u64,
    /// Segments begun in files that segments before them had, since it was opened.
    pub recycled_segments: u64,
}

/// What the memory of an engine is for, in bytes; reserved once, when the engine is made. The sum is
/// [`ApplyStats::memory_bytes`](crate::ApplyStats::memory_bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Images of the log's segments: entries in them were not written, or are values that readers hold.
    pub images: usize,
    /// Frames on their way to the log writer, and where the last ones are.
    pub log_queue: usize,
    /// One slot for each entry in flight, with its reply.
    pub slots: usize,
    /// The queues of the workers.
    pub rings: usize,
    /// Times of submission, for the latency.
    pub stamps: usize,
}

impl MemoryStats {
    pub(crate) fn sum(&self) -> usize {
        let Self { images, log_queue, slots, rings, stamps } = *self;
        images + log_queue + slots + rings + stamps
    }
}

/// What the log and its snapshots take on disk. Counted by the engine, without a call of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStats {
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of their files. The file of a log's first segment grows as it is filled, and counts as long as it may get.
    pub segment_bytes: u64,
    /// Bytes of the files that are kept to be used for segments to come.
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
            durable_sequence: shared.durable_sequence.load(Ordering::Acquire),
            recycled_segments: files.recycled(),
        }
    }

    /// What the files of the log take, but for snapshots.
    pub(crate) fn disk_stats(&self) -> DiskStats {
        let Some(Writing { files, .. }) = &self.writing else { return DiskStats::default() };
        let segments = (files.last_taken() + 1).saturating_sub(self.base().segment);
        let (segment_bytes, spares) = (files.segment_bytes(), files.spares());
        DiskStats {
            segments,
            segment_bytes: segments * segment_bytes,
            spare_bytes: spares * segment_bytes,
            ..DiskStats::default()
        }
    }
}
