//! What the log writer and the other threads tell each other, in atomics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::Clock;
use crate::disk::DiskFile;
use crate::error::Poison;
use crate::log::compact::SegmentStarts;
use crate::log::segment::io_poison;
use crate::log::times::LogTimes;
use crate::numbers::{AtomicFrameSequence, AtomicSegmentNumber, FrameSequence, SegmentNumber};
use crate::poison::{CallerPoisons, invariant};

/// State of the log writer that other threads read, and their requests to it.
#[derive(Debug, Default)]
pub(crate) struct WriterShared {
    /// Sequence up to which all frames are durable.
    pub(crate) durable_sequence: AtomicFrameSequence,
    /// Sequence up to which frames should become durable now, in every mode. It is a sequence
    /// because a truncation is a frame without an index.
    pub(crate) sync_wanted: AtomicFrameSequence,
    /// Whether less than a group waits for more entries.
    pub(crate) lingering: AtomicBool,
    /// Whether a step left work that becomes due by time.
    pub(crate) waits_for_time: AtomicBool,
    /// Whether a step ended with writes in flight, so that a thread must take the next step.
    pub(crate) in_flight: AtomicBool,
    /// Whether the last group went through an io_uring.
    pub(crate) by_ring: AtomicBool,
    /// The starts of the segments.
    pub(crate) starts: SegmentStarts,
    /// The segment that the log writer writes to.
    pub(crate) segment: AtomicSegmentNumber,
    /// The segment to which the appender has moved without filling the one before. The log writer
    /// follows even if nothing is written there. The appender stores it after queueing the last
    /// frame of the segment before.
    pub(crate) segment_wanted: AtomicSegmentNumber,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) times: LogTimes,
}

impl WriterShared {
    /// Records that all frames up to this one are durable. Stored last, so that a thread that waits
    /// for the frame also sees the watermarks that it moved.
    pub(super) fn durable_to(&self, sequence: FrameSequence) -> Result<(), Poison> {
        let before = self.durable_sequence.load(Ordering::Relaxed);
        invariant!(
            CallerPoisons,
            before <= sequence,
            "the durable frame sequence never falls",
            "from {before} to {sequence}"
        );
        self.durable_sequence.store(sequence, Ordering::Release);
        Ok(())
    }

    /// Syncs a file separately from any write.
    pub(super) fn sync_file(
        &self,
        segment: SegmentNumber,
        file: &dyn DiskFile,
        clock: &Clock,
    ) -> Result<(), Poison> {
        let began = clock.now();
        file.sync_data().map_err(|source| io_poison("syncing", segment, source))?;
        self.times.sync.record(clock.now().saturating_sub(began));
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a thread waits for frames to become durable.
    pub(crate) fn sync_is_wanted(&self) -> bool {
        self.sync_wanted.load(Ordering::Acquire) > self.durable_sequence.load(Ordering::Acquire)
    }
}
