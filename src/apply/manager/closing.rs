//! The end of a manager: one call closes, and the others get its outcome.

use std::time::{Duration, Instant};

use crate::apply::engine::Engine;
use crate::apply::pipeline::Pipeline;
use crate::apply::stats::StatsReader;
use crate::apply::threads::Threads;
use crate::contract::machine::StateMachine;
use crate::disk::holders::{Holder, Holding};
use crate::error::{CloseError, LockLost, WaitError};
use crate::numbers::FrameSequence;
use crate::progress::watermark::Stage;
use crate::sync::{Condvar, Mutex, Rank, tell, thread};
use crate::threads::Step;

/// The end of one manager: its threads, and the outcome of the close.
#[derive(Debug)]
pub(super) struct Closing {
    /// The threads; the call that closes has this lock.
    threads: Mutex<Threads>,
    end: Mutex<End>,
    /// Signals that the outcome of the close is known.
    ended: Condvar,
}

/// Result of the close.
#[derive(Debug, Default)]
struct End {
    outcome: Option<Result<(), CloseError>>,
    /// Counts the manager as a holder of the directory.
    holding: Option<Holding>,
}

/// Time that idle threads get to end, whatever is left of a close's timeout.
const END_TIMEOUT_MIN: Duration = Duration::from_millis(100);

impl Closing {
    /// `holding` counts the manager as a holder of the directory.
    pub(super) fn new(threads: Threads, holding: Option<Holding>) -> Self {
        let end = Mutex::new(Rank::ManagerEnd, End { holding, ..End::default() });
        let threads = Mutex::new(Rank::ManagerThreads, threads);
        Self { threads, end, ended: Condvar::new() }
    }

    /// Closes as [`ApplyManager::shutdown`](crate::ApplyManager::shutdown) does.
    pub(super) fn close<M: StateMachine>(
        &self,
        engine: &Engine<M>,
        timeout: Duration,
    ) -> Result<(), CloseError> {
        let lifecycle = engine.pipeline().lifecycle();
        if lifecycle.is_of_a_parent() {
            // The parent's engine continues, so nothing is closed, and no waker is called.
            return self.note_outcome(Err(CloseError::Poisoned(LockLost::Forked.into())));
        }
        // Check this before the lock: the call that closes holds the lock, and other calls wait no
        // longer than their timeout.
        if lifecycle.is_closing() {
            return self.wait_for_outcome(engine, timeout);
        }
        // A waker may close the manager as well, so wakers run when the outcome is known and no
        // lock is held.
        let _tasks = engine.pipeline().wakes_tasks();
        let began = Instant::now();
        if !engine.pipeline().refuse_submissions() {
            return self.wait_for_outcome(engine, timeout.saturating_sub(began.elapsed()));
        }
        let outcome = self.shut_down(engine, timeout, began);
        self.note_outcome(outcome)
    }

    /// Closes for a manager that is dropped.
    pub(super) fn end<M: StateMachine>(&self, engine: &Engine<M>, stats_reader: &StatsReader) {
        let mut threads = self.threads.lock();
        if engine.pipeline().lifecycle().is_of_a_parent() {
            // This is a copy that `fork` made. The parent's engine continues, and only the parent
            // may write its files.
            threads.forget();
            return;
        }
        stats_reader.end(engine.pipeline().config().close_timeout);
        if engine.pipeline().is_closed() {
            threads.stop(engine, engine.pipeline().config().close_timeout);
            return;
        }
        drop(threads);
        if let Err(error) = self.close(engine, engine.pipeline().config().close_timeout) {
            tell(|| {
                tracing::warn!(%error, "dropping the apply manager: not everything was flushed");
            });
        }
    }

    /// Waits for the outcome of the call that closes.
    fn wait_for_outcome<M: StateMachine>(
        &self,
        engine: &Engine<M>,
        timeout: Duration,
    ) -> Result<(), CloseError> {
        let began = Instant::now();
        let mut end = self.end.lock();
        loop {
            if let Some(outcome) = &end.outcome {
                return outcome.clone();
            }
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(CloseError::Wait(timed_out(engine.pipeline(), began.elapsed())));
            }
            end = self.ended.wait_timeout(end, left);
        }
    }

    /// Tells every call that closes the outcome.
    fn note_outcome(&self, outcome: Result<(), CloseError>) -> Result<(), CloseError> {
        let mut end = self.end.lock();
        end.outcome = Some(outcome.clone());
        if let Some(holding) = &mut end.holding {
            holding.becomes(Holder::ClosedManager);
        }
        drop(end);
        self.ended.notify_all();
        outcome
    }

    /// Whether no call has the turn to close.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn threads_are_free(&self) -> bool {
        self.threads.try_lock().is_some()
    }

    fn shut_down<M: StateMachine>(
        &self,
        engine: &Engine<M>,
        timeout: Duration,
        began: Instant,
    ) -> Result<(), CloseError> {
        let mut threads = self.threads.lock();
        let pipeline = engine.pipeline();
        let flushed = if pipeline.config().by_hand.is_none() {
            flush(pipeline, timeout)
        } else {
            drain_by_hand(pipeline)
        };
        let left = match &flushed {
            Err(WaitError::Timeout { .. }) => Duration::ZERO,
            _ => timeout.saturating_sub(began.elapsed()).max(END_TIMEOUT_MIN),
        };
        let ended = threads.stop(engine, left);
        pipeline.progress().end();
        flushed.map_err(|error| match error {
            WaitError::Poisoned(poison) => CloseError::Poisoned(poison),
            other => CloseError::Wait(other),
        })?;
        // A caller may be writing a snapshot, or moving the log's beginning. The end of the threads
        // soon ends that.
        let turn = engine.snapshots().turn_within(timeout.saturating_sub(began.elapsed()));
        let Some(_turn) = turn.filter(|_| ended) else {
            // That caller may still write, so the log is not marked as closed.
            return Err(CloseError::Wait(timed_out(pipeline, began.elapsed())));
        };
        let committed = pipeline.progress().committed_mark().last();
        match pipeline.log_desk().log() {
            Some(log) => {
                Ok(log.close(committed).map_err(|poison| pipeline.signals().fail(poison))?)
            }
            None => Ok(pipeline.progress().poison.check()?),
        }
    }
}

/// Flushes as [`ApplyManager::flush_pending`] does. Calls no wakers, because the caller may
/// hold a lock.
pub(super) fn flush<M: StateMachine>(
    pipeline: &Pipeline<M>,
    timeout: Duration,
) -> Result<(), WaitError> {
    let started = Instant::now();
    let progress = pipeline.progress();
    let committed = progress.committed_mark();
    pipeline.feed_now().map_err(WaitError::Poisoned)?;
    pipeline.log_desk().sync(timeout)?;
    match committed.last() {
        Some(last) => {
            let left = timeout.saturating_sub(started.elapsed());
            pipeline.wait_under_lock(last, Stage::Acknowledged, left)?;
            pipeline.sync_storage(committed).map_err(WaitError::Poisoned)
        }
        None => Ok(progress.poison.check()?),
    }
}

fn timed_out<M: StateMachine>(pipeline: &Pipeline<M>, waited: Duration) -> WaitError {
    let progress = pipeline.progress();
    let submitted = progress.submitted_mark().last();
    let reached = progress.acknowledged_mark().last();
    WaitError::Timeout { index: submitted.unwrap_or(0), reached, submitted, waited }
}

/// Takes the steps in the closing thread, in an engine without threads.
fn drain_by_hand<M: StateMachine>(pipeline: &Pipeline<M>) -> Result<(), WaitError> {
    let progress = pipeline.progress();
    let log = pipeline.log_desk().log();
    let sequence = log.map_or(FrameSequence::NONE, |log| pipeline.log_desk().want_sync(log));
    pipeline.feed_now().map_err(WaitError::Poisoned)?;
    let undone = || {
        progress.acknowledged_mark() < progress.committed_mark()
            || log.is_some_and(|log| log.durable_sequence() < sequence)
    };
    while undone() {
        progress.poison.check()?;
        let mut worked = pipeline.log_desk().step_writer() == Step::Worked;
        for id in 0..pipeline.workers().count() {
            worked |= pipeline.step_worker(id) == Step::Worked;
        }
        if !worked {
            thread::yield_now();
        }
    }
    progress.poison.check()?;
    let committed = progress.committed_mark();
    pipeline.sync_storage(committed).map_err(WaitError::Poisoned)
}
