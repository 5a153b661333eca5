//! The write queue of every system: one write at a time, in the thread that waits for it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Completion, DiskFile, LogWrite, WriteFailure, WriteQueue};

/// A queue that performs each write and its sync in [`WriteQueue::complete`] when asked to wait.
#[derive(Debug)]
pub(super) struct PwriteQueue {
    /// Waiting writes: at most one by contract. A queue makes an additional write late, and does
    /// not lose it.
    waiting: VecDeque<LogWrite>,
    fallback: Option<String>,
}

impl PwriteQueue {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(1), fallback: None }
    }

    /// Makes the queue in place of a back-end that was refused.
    pub(super) fn because(reason: String) -> Self {
        Self { fallback: Some(reason), ..Self::new() }
    }
}

impl WriteQueue for PwriteQueue {
    fn backend(&self) -> &'static str {
        "pwrite"
    }

    fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    fn depth(&self) -> usize {
        1
    }

    fn submit(&mut self, write: LogWrite) {
        debug_assert!(self.waiting.is_empty(), "more writes in flight than the depth");
        self.waiting.push_back(write);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        // Without `wait` the caller must not be blocked, and a write blocks.
        let write = if wait { self.waiting.pop_front()? } else { return None };
        let (result, written_at) = perform(&write);
        Some(Completion { token: write.token, result, written_at })
    }
}

/// Performs the write, then its sync, and returns when that began. A failed write gets no sync.
pub(super) fn perform(write: &LogWrite) -> (Result<(), WriteFailure>, Option<Duration>) {
    let file: &dyn DiskFile = write.file.as_ref();
    let written = file.write_all_at(write.bytes.as_ref(), write.offset);
    if written.is_err() || !write.sync {
        return (written.map_err(WriteFailure::Write), None);
    }
    let written_at = write.watch.now();
    (file.sync_data().map_err(WriteFailure::Sync), Some(written_at))
}
