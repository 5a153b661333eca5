//! Pauses: the workers are given nothing, so that a caller meets a state that does not move.

use std::time::{Duration, Instant};

use super::Pipeline;
use crate::apply::desks::log::Appending;
use crate::apply::pipeline::feed::Feed;
use crate::contract::machine::StateMachine;
use crate::error::{Poison, WaitError};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::bell::Listener;
use crate::sync::{Mutex, MutexGuard, Rank, thread};
use crate::threads::Step;

/// The pauses of one pipeline, and the turn of the calls that need the state at one index.
#[derive(Debug)]
pub(in crate::apply) struct Pauses {
    /// Number of pauses: above 0, nothing is fed. Read under the appender's lock.
    count: AtomicU64,
    /// Admits one view, record or installation at a time.
    turn: Mutex<()>,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { count: AtomicU64::new(0), turn: Mutex::new(Rank::ViewTurn, ()) }
    }

    /// Waits for the turn of the calls that need the state at one index.
    #[track_caller]
    pub(in crate::apply) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Whether no call has the turn.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(in crate::apply) fn turn_is_free(&self) -> bool {
        self.turn.try_lock().is_some()
    }

    /// Whether a thread waits for the workers to be idle. The caller holds the appender.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends one pause. Returns whether it was the last.
    fn end(&self) -> bool {
        self.count.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// A caller that waits for the workers, and looks again after each wait.
pub(in crate::apply) struct WorkersWait<'p, M: StateMachine> {
    pipeline: &'p Pipeline<M>,
    listener: Option<Listener<'p>>,
}

impl<'p, M: StateMachine> WorkersWait<'p, M> {
    pub(in crate::apply) fn new(pipeline: &'p Pipeline<M>) -> Self {
        Self { pipeline, listener: None }
    }

    /// Returns when the workers may have done something, or after `longest`. Takes their steps
    /// where no threads of theirs run.
    pub(in crate::apply) fn wait(&mut self, longest: Option<Duration>) {
        let pipeline = self.pipeline;
        let by_hand = pipeline.config().by_hand.is_some();
        if by_hand || pipeline.lifecycle().is_stopping() {
            let (mut worked, mut blocked) = (false, false);
            for id in 0..pipeline.workers().count() {
                let step = pipeline.step_worker(id);
                worked |= step == Step::Worked;
                blocked |= step == Step::Blocked;
            }
            if worked || !blocked {
                return;
            }
            if by_hand {
                thread::yield_now();
                return;
            }
            // The engine was abandoned while a worker is stuck in the machine. The worker's thread
            // rings when it ends.
        }
        match &self.listener {
            Some(listener) => {
                pipeline.signals().notify_workers();
                listener.sleep(longest);
            }
            // The caller looks once more before it sleeps: an earlier ring had no listener.
            None => self.listener = Some(pipeline.signals().workers_bell().listen()),
        }
    }
}

/// A pause: while it lives, the workers are given nothing.
#[derive(Debug)]
pub(in crate::apply) struct Pause<'p, M: StateMachine> {
    pipeline: &'p Pipeline<M>,
}

impl<'p, M: StateMachine> Pause<'p, M> {
    /// Gives the workers nothing until the result is dropped. Its drop locks the appender, so the
    /// caller does not hold the appender.
    pub(in crate::apply) fn begin(pipeline: &'p Pipeline<M>) -> Self {
        Rank::Appender.assert_free();
        // Before the appender is locked. A thread that locks it later sees the pause, and a thread
        // that fed earlier fed a bounded number of entries.
        pipeline.pauses().begin();
        Self { pipeline }
    }

    /// Locks the appender once the rings are empty and the workers are done: everything that was
    /// given to the workers is in the state. The borrow releases the appender before the pause
    /// ends.
    ///
    /// Without the pause, under a steady load, the workers would always have something to do.
    pub(in crate::apply) fn appender_idle(&self) -> Result<MutexGuard<'_, Appending>, Poison> {
        let pipeline = self.pipeline;
        let mut workers = WorkersWait::new(pipeline);
        loop {
            let appending = pipeline.log_desk().appending();
            pipeline.progress().poison.check()?;
            if pipeline.workers().are_done() {
                return Ok(appending);
            }
            drop(appending);
            workers.wait(None);
        }
    }

    /// Locks the appender once everything that is committed is in the state.
    ///
    /// Entries that were committed while the pause began are applied with the appender held, so
    /// that later commits wait.
    pub(in crate::apply) fn appender_applied(
        &self,
        timeout: Duration,
    ) -> Result<MutexGuard<'_, Appending>, WaitError> {
        let (pipeline, progress) = (self.pipeline, self.pipeline.progress());
        let began = Instant::now();
        let mut held = self.appender_idle()?;
        let mut workers = WorkersWait::new(pipeline);
        loop {
            progress.poison.check()?;
            let (applied, committed) = (progress.applied_mark(), progress.committed_mark());
            if applied == committed && pipeline.workers().are_done() {
                return Ok(held);
            }
            let fed = pipeline.feed(&mut held, Feed::InPause);
            fed.map_err(|poison| WaitError::Poisoned(pipeline.signals().fail(poison)))?;
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(WaitError::Timeout {
                    // Without a committed entry nothing is awaited; the error then names index 0.
                    index: committed.last().unwrap_or(0),
                    reached: applied.last(),
                    submitted: progress.submitted_mark().last(),
                    waited: began.elapsed(),
                });
            }
            workers.wait(Some(left));
        }
    }
}

impl<M: StateMachine> Drop for Pause<'_, M> {
    fn drop(&mut self) {
        let pipeline = self.pipeline;
        if !pipeline.pauses().end() || pipeline.has_failed() {
            return;
        }
        // A holder of the appender that ran before the decrement may have seen the pause and fed
        // nothing, so feed now. Later holders see no pause. Entries may have waited for long, or
        // may have been flushed meanwhile, so nothing lingers.
        let _failed = pipeline.feed_now();
    }
}
