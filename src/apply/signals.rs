//! How the threads of an engine and the callers that wait wake each other.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::error::Poison;
use crate::progress::watermark::Progress;
use crate::sync::bell::Bell;
use crate::sync::signal::Signal;

/// The sleeping places of an engine's threads, and the bells of callers that wait for one of them.
#[derive(Debug)]
pub(crate) struct Signals {
    progress: Arc<Progress>,
    workers: Box<[CachePadded<Signal>]>,
    writer: Signal,
    background: Signal,
    compaction: Signal,
    /// Rings when a step of the log writer has ended, by whichever thread, and its place is free.
    writer_bell: Bell,
    /// Rings when a worker has reached a view token, has moved a watermark, or has run dry, and its
    /// place is free.
    workers_bell: Bell,
}

impl Signals {
    pub(super) fn new(progress: Arc<Progress>, workers: usize) -> Self {
        Self {
            progress,
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
            writer: Signal::default(),
            background: Signal::default(),
            compaction: Signal::default(),
            writer_bell: Bell::default(),
            workers_bell: Bell::default(),
        }
    }

    /// Records the first failure, and returns it. Every thread and every caller that waits looks
    /// again.
    pub(super) fn fail(&self, poison: Poison) -> Poison {
        self.progress.fail(poison.clone());
        self.notify_threads();
        self.ring_bells();
        self.progress.poison.get().cloned().unwrap_or(poison)
    }

    /// The sleeping place of worker `id`.
    pub(super) fn worker(&self, id: usize) -> Option<&Signal> {
        self.workers.get(id).map(|signal| &**signal)
    }

    /// The sleeping place of the log writer's thread.
    #[inline]
    pub(super) fn writer(&self) -> &Signal {
        &self.writer
    }

    /// The sleeping place of the thread that makes segments ready.
    pub(super) fn background(&self) -> &Signal {
        &self.background
    }

    /// The sleeping place of the thread that compacts.
    pub(super) fn compaction(&self) -> &Signal {
        &self.compaction
    }

    /// The bell of callers that wait for the log writer's post.
    #[inline]
    pub(super) fn writer_bell(&self) -> &Bell {
        &self.writer_bell
    }

    /// The bell of callers that wait for the workers.
    #[inline]
    pub(super) fn workers_bell(&self) -> &Bell {
        &self.workers_bell
    }

    /// Has a resting role of compaction look again later, because the log has grown. A thread looks
    /// by the clock.
    #[inline]
    pub(super) fn note_growth(&self) {
        if self.compaction.is_of_a_role() {
            self.compaction.notify_of_time();
        }
    }

    /// Wakes the workers to look for work.
    #[inline]
    pub(super) fn notify_workers(&self) {
        self.workers.iter().for_each(|signal| signal.notify());
    }

    /// Wakes every thread of the engine to look for work.
    pub(super) fn notify_threads(&self) {
        self.notify_workers();
        self.writer.notify();
        self.background.notify();
        self.compaction.notify();
    }

    /// Has each caller that waits for the log writer or for the workers look again.
    pub(super) fn ring_bells(&self) {
        self.writer_bell.ring();
        self.workers_bell.ring();
    }

    /// Leaves the wakers of tasks to a thread of the engine, for a caller that holds a lock for
    /// long. An engine without a log of ours has no background thread: a worker calls them.
    pub(super) fn leave_tasks(&self, has_log: bool) {
        if !self.progress.has_due_tasks() {
            return;
        }
        match self.workers.first() {
            Some(worker) if !has_log => worker.notify(),
            _ => self.background.notify(),
        }
    }
}
