//! Waiting for the log: callers wait for watermarks and frames, and write the log meanwhile.

use std::time::{Duration, Instant};

use super::log::LogDesk;
use crate::error::{Poison, WaitError};
use crate::log::Log;
use crate::numbers::FrameSequence;
use crate::progress::waiter;
use crate::progress::watermark::{AckRule, Stage};
use crate::sync::bell::Listener;
use crate::threads::Step;

/// Time that a call waits for the log to reach the disk, where the call takes no timeout.
///
/// The caller of such a call has no use for a partial outcome. A slower disk fails that call alone.
pub(in crate::apply) const LOG_TIMEOUT: Duration = Duration::from_secs(60);

impl LogDesk {
    /// Asks for everything in the log to become durable; returns the last frame's sequence.
    pub(crate) fn want_sync(&self, log: &Log) -> FrameSequence {
        let sequence = self.appending().appender.close_and_last_sequence();
        log.want_sync(sequence);
        self.signals.writer().notify();
        sequence
    }

    /// Blocks until everything in the log is durable, including truncations.
    pub(crate) fn sync(&self, timeout: Duration) -> Result<(), WaitError> {
        let Some(log) = self.log() else { return Ok(()) };
        let sequence = self.want_sync(log);
        self.sync_to(log, sequence, timeout)
    }

    /// Blocks until all frames up to `sequence`, which are closed, are durable.
    pub(crate) fn sync_to(
        &self,
        log: &Log,
        sequence: FrameSequence,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let started = Instant::now();
        log.want_sync(sequence);
        self.signals.writer().notify();
        self.write_until(timeout, || log.durable_sequence() >= sequence)?.then_some(()).ok_or_else(
            || {
                let submitted = self.progress.submitted_mark().last();
                WaitError::Timeout {
                    index: submitted.unwrap_or(0),
                    reached: self.progress.durable_mark().last(),
                    submitted,
                    waited: started.elapsed(),
                }
            },
        )
    }

    /// Takes steps of the log writer until `is_done`. Waits while another thread is in the log
    /// writer's post. Returns whether it was done in time.
    pub(in crate::apply) fn write_until(
        &self,
        timeout: Duration,
        is_done: impl Fn() -> bool,
    ) -> Result<bool, Poison> {
        let started = Instant::now();
        let mut listener: Option<Listener<'_>> = None;
        while !is_done() {
            self.progress.poison.check()?;
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            if self.step_writer() != Step::Worked {
                match &listener {
                    Some(listener) => listener.sleep(Some(left)),
                    // Looks once more before it sleeps: a step may have ended before anything
                    // listened.
                    None => listener = Some(self.signals.writer_bell().listen()),
                }
            }
            self.signals.leave_tasks(self.log().is_some());
        }
        self.leave_writer();
        Ok(true)
    }

    /// Time that the log writer's thread may sleep.
    pub(in crate::apply) fn writer_sleeps(&self) -> Option<Duration> {
        // After a failure nothing is due any more.
        let log = self.log().filter(|_| self.progress.poison.get().is_none())?;
        let due = log.next_due();
        // The look took the log writer's post, where a caller may have met it.
        self.signals.writer_bell().ring();
        due
    }

    /// Begins a wait until `stage` covers `index`: asks for what the watermarks do not tell.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::NeverDurable`] for a journal in memory.
    pub(in crate::apply) fn begin_wait(
        &self,
        index: u64,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        if !matches!(stage, Stage::Written | Stage::Durable) {
            return Ok(());
        }
        if self.progress.rule() == AckRule::Applied {
            return Err(WaitError::NeverDurable { index });
        }
        self.sync_what_is_behind(timeout)
    }

    /// Blocks until `stage` covers `index`. If `may_write`, writes the log meanwhile if no other
    /// thread does, and calls `wake` afterwards.
    pub(in crate::apply) fn wait(
        &self,
        index: u64,
        stage: Stage,
        timeout: Duration,
        may_write: bool,
        wake: impl FnOnce(),
    ) -> Result<(), WaitError> {
        if stage == Stage::Applied || self.log().is_none() || !may_write {
            return waiter::wait(&self.progress, index, stage, timeout);
        }
        let help = || {
            self.help_writer(index, stage, timeout);
            wake();
        };
        waiter::wait_helping(&self.progress, index, stage, timeout, Some(help))
    }

    /// Makes entries durable that an apply-only record passed.
    fn sync_what_is_behind(&self, timeout: Duration) -> Result<(), WaitError> {
        let behind = self.behind_sequence();
        match self.log() {
            Some(log) if log.durable_sequence() < behind => self.sync(timeout),
            _ => Ok(()),
        }
    }

    /// Writes the log in place of the log writer's thread, which saves two thread hops.
    fn help_writer(&self, index: u64, stage: Stage, timeout: Duration) {
        let started = Instant::now();
        let rule = self.progress.rule();
        let reached = || match (stage, rule) {
            (Stage::Durable, _) | (Stage::Acknowledged, AckRule::Durable) => {
                self.progress.durable_mark().covers(index)
            }
            _ => self.progress.written_mark().covers(index),
        };
        while !reached() && self.progress.submitted_mark().covers(index) {
            if started.elapsed() >= timeout || self.step_writer() != Step::Worked {
                break;
            }
        }
        self.leave_writer();
    }

    /// Hands the log writer's post back to its thread, with the work that is due now or by time.
    /// The thread may have gone to sleep before any work was due by time.
    pub(in crate::apply) fn leave_writer(&self) {
        if self.writer_has_work() {
            self.signals.writer().notify();
        } else if self.log().is_some_and(|log| log.waits_for_time()) {
            self.signals.writer().notify_of_time();
        }
    }
}
