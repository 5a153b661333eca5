//! The way from the appender to the log writer: frames that are closed, in order.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use super::format::OpeningHalf;
use super::image::Closing;

/// A frame that takes no more entries: the log writer's to complete and write.
#[derive(Debug)]
pub(crate) struct ClosedFrame {
    pub(crate) opening: OpeningHalf,
    /// How many entries it has.
    pub(crate) count: u32,
    pub(crate) closing: Closing,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Last index of the log after this frame, plus one.
    pub(crate) mark: u64,
    /// What was committed when the frame was closed, plus one. Not when it is written: by then entries that replace
    /// some of its own may be committed, and a truncation between them would contradict its header.
    pub(crate) committed_mark: u64,
    /// When the submission of its first entry began, by the engine's clock; `None` for what nobody submitted.
    pub(crate) submitted_ns: Option<u64>,
}

/// The way from the appender to the log writer.
#[derive(Debug)]
pub(crate) struct LogQueue {
    pub(super) frames: ArrayQueue<ClosedFrame>,
    /// A frame found no place. Nothing is taken after it: the log must not have a hole. The log writer, who sees this,
    /// fails the engine; else all would wait for good for a frame that is nowhere.
    lost: AtomicBool,
    /// The log writer has nothing else to do: the open frame should be closed for it.
    pub(super) close_wanted: AtomicBool,
}

impl LogQueue {
    pub(crate) fn new(frames: usize) -> Self {
        let frames = ArrayQueue::new(frames);
        Self { frames, lost: AtomicBool::new(false), close_wanted: AtomicBool::new(false) }
    }

    /// From whoever holds the appender. There is a place: [`Appender::make_room`](super::appender::Appender::make_room) reserves one for every frame, and two
    /// more.
    pub(crate) fn push(&self, frame: ClosedFrame) {
        if self.has_lost() || self.frames.push(frame).is_err() {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Whether a frame found no place all the same.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn pop(&self) -> Option<ClosedFrame> {
        self.frames.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Asks whoever holds the appender to close the open frame before it lets go.
    pub(crate) fn want_close(&self) {
        self.close_wanted.store(true, Ordering::Release);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.frames.capacity() * (size_of::<ClosedFrame>() + 8)
    }
}
