//! The queue from the appender to the log writer: closed frames, in order.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use super::format::OpeningHalf;
use crate::codec::Extent;
use crate::image::Closing;
use crate::numbers::Mark;

/// A frame that takes no more entries; the log writer completes and writes it.
#[derive(Debug)]
pub(crate) struct ClosedFrame {
    pub(crate) opening: OpeningHalf,
    /// Number of entries in the frame.
    pub(crate) count: u32,
    pub(crate) closing: Closing,
    /// Extent of its entries, which knows where the frame begins. The frame ends where they do.
    pub(crate) body: Extent,
    /// Mark of the log's last entry after this frame.
    pub(crate) mark: Mark,
    /// Mark of the committed entries when the frame was closed. The value at the time of writing
    /// would be wrong. Entries that replace some of the frame's may be committed by then, and the
    /// truncation between them would contradict the header.
    pub(crate) committed_mark: Mark,
    /// Start of the first entry's submission, by the engine's clock; `None` for frames without a
    /// submission.
    pub(crate) submitted_ns: Option<u64>,
}

/// The queue from the appender to the log writer.
#[derive(Debug)]
pub(crate) struct LogQueue {
    pub(super) frames: ArrayQueue<ClosedFrame>,
    /// Whether a frame found no place. Nothing is taken after such a frame, because the log must
    /// not have a hole. The log writer sees this and fails the engine. Otherwise every waiter would
    /// wait forever for the lost frame.
    lost: AtomicBool,
    /// Asks the appender to close the open frame: the log writer has nothing else to do.
    pub(super) close_wanted: AtomicBool,
}

impl ClosedFrame {
    /// Offset in its segment of the frame's end.
    pub(crate) fn end(&self) -> usize {
        self.body.end() as usize
    }
}

impl LogQueue {
    pub(crate) fn new(frames: usize) -> Self {
        let frames = ArrayQueue::new(frames);
        Self { frames, lost: AtomicBool::new(false), close_wanted: AtomicBool::new(false) }
    }

    /// Adds a frame; the caller holds the appender. There is a place for it:
    /// [`Appender::make_room`](super::appender::Appender::make_room) reserves one for every frame,
    /// and two more.
    pub(crate) fn push(&self, frame: ClosedFrame) {
        if self.has_lost() || self.frames.push(frame).is_err() {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Whether a frame found no place in spite of the reservation.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn pop(&self) -> Option<ClosedFrame> {
        self.frames.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Asks the holder of the appender to close the open frame before it releases the appender.
    pub(crate) fn want_close(&self) {
        self.close_wanted.store(true, Ordering::Release);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.frames.capacity() * (size_of::<ClosedFrame>() + 8)
    }
}
