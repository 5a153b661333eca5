//! The log of an engine: the place of the appender, the log writer's steps, and which thread takes
//! them.

use std::sync::Arc;

use crate::apply::pipeline::feed::Linger;
use crate::apply::pipeline::latency::Latency;
use crate::apply::signals::Signals;
use crate::entry::LogId;
use crate::log::Log;
use crate::log::appender::Appender;
use crate::numbers::{AtomicFrameSequence, FrameSequence};
use crate::places::table::SegmentTable;
use crate::progress::watermark::Progress;
use crate::sync::atomic::Ordering;
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::threads::Step;

/// The log of one engine, or its journal in memory.
#[derive(Debug)]
pub(crate) struct LogDesk {
    appender: Mutex<Appending>,
    /// The log on a disk; `None` for a journal in memory.
    log: Option<Arc<Log>>,
    table: Arc<SegmentTable>,
    /// Sequence of the newest frame with entries that an apply-only record moved the state past.
    /// Durability waits use this, because watermarks already cover these entries.
    behind_sequence: AtomicFrameSequence,
    pub(super) progress: Arc<Progress>,
    pub(super) signals: Arc<Signals>,
    latency: Arc<Latency>,
}

/// State that belongs to the holder of the appender's place.
#[derive(Debug)]
pub(crate) struct Appending {
    pub(crate) appender: Appender,
    pub(crate) linger: Linger,
}

impl LogDesk {
    pub(in crate::apply) fn new(
        appender: Appender,
        log: Option<Arc<Log>>,
        table: Arc<SegmentTable>,
        (progress, signals, latency): (Arc<Progress>, Arc<Signals>, Arc<Latency>),
    ) -> Self {
        let appending = Appending { appender, linger: Linger::default() };
        Self {
            appender: Mutex::new(Rank::Appender, appending),
            log,
            table,
            behind_sequence: AtomicFrameSequence::default(),
            progress,
            signals,
            latency,
        }
    }

    /// Locks the appender's place.
    #[inline]
    #[track_caller]
    pub(crate) fn appending(&self) -> MutexGuard<'_, Appending> {
        self.appender.lock()
    }

    /// Locks the appender's place, if no thread has it.
    #[inline]
    pub(in crate::apply) fn try_appending(&self) -> Option<MutexGuard<'_, Appending>> {
        self.appender.try_lock()
    }

    /// The log on a disk; `None` for a journal in memory.
    #[inline]
    pub(crate) fn log(&self) -> Option<&Log> {
        self.log.as_deref()
    }

    /// The bytes of each segment.
    #[inline]
    pub(in crate::apply) fn table(&self) -> &Arc<SegmentTable> {
        &self.table
    }

    /// The log id at `index`, if the log holds it.
    pub(in crate::apply) fn log_id(&self, index: u64) -> Option<LogId> {
        self.appending().appender.log_id(index)
    }

    /// Notes that the frame `sequence` has entries that the state was moved past. The caller holds
    /// the appender.
    pub(in crate::apply) fn note_behind(&self, sequence: FrameSequence) {
        self.behind_sequence.store(sequence, Ordering::Release);
    }

    /// Sequence of the newest frame with entries that the state was moved past.
    pub(super) fn behind_sequence(&self) -> FrameSequence {
        // Acquire: the awaited entry was appended before its waiter asks.
        self.behind_sequence.load(Ordering::Acquire)
    }

    fn has_failed(&self) -> bool {
        self.progress.poison.get().is_some()
    }

    /// Takes one step of the log writer, in its single place. A failure has poisoned the engine.
    pub(crate) fn step_writer(&self) -> Step {
        let Some(log) = &self.log else { return Step::Idle };
        if self.has_failed() {
            return Step::Idle;
        }
        let stepped = log.step_writer(&self.progress, || {
            if let Some(mut appending) = self.try_appending() {
                appending.appender.close_frame();
            }
        });
        if !matches!(stepped, Ok(Step::Blocked)) {
            self.signals.writer_bell().ring();
            // Frames and images that the step has let go of are room.
            self.progress.room.changed_after_fence(&self.progress);
        }
        match stepped {
            Ok(Step::Worked) => {
                self.latency.note(self.progress.acknowledged_mark());
                if log.background_wanted() {
                    self.signals.background().notify();
                    // A segment fills about as often.
                    self.signals.compaction().notify();
                }
                self.signals.note_growth();
                Step::Worked
            }
            Ok(Step::Idle) if self.has_more(log) => self.close_open_frame(),
            Ok(step) => step,
            Err(poison) => {
                self.signals.fail(poison);
                Step::Idle
            }
        }
    }

    fn has_more(&self, log: &Log) -> bool {
        self.progress.submitted_mark() > self.progress.written_mark() && !log.is_lingering()
    }

    /// Closes the open frame for the log writer. A thread that holds the appender does so at
    /// release.
    fn close_open_frame(&self) -> Step {
        let Some(mut appending) = self.try_appending() else { return Step::Blocked };
        appending.appender.close_if_wanted();
        Step::Worked
    }

    /// Whether the log writer has something to do now.
    pub(in crate::apply) fn writer_has_work(&self) -> bool {
        self.log.as_ref().is_some_and(|log| {
            !self.has_failed()
                && (self.progress.submitted_mark() > self.progress.written_mark()
                    || log.has_closed_frames()
                    || log.sync_is_due())
        })
    }

    /// Whether the thread that makes segments ready has something to do now.
    pub(in crate::apply) fn background_has_work(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.background_wanted()) && !self.has_failed()
    }

    /// Takes one step of the background: the next segment's file and image.
    pub(crate) fn step_background(&self) -> Step {
        match &self.log {
            Some(log) if self.background_has_work() => {
                if let Err(poison) = log.step_background() {
                    self.signals.fail(poison);
                }
                Step::Worked
            }
            _ => Step::Idle,
        }
    }
}
