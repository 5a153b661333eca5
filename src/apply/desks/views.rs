//! Views of the state at one exact index, taken while apply continues: a view token passes through
//! the rings like an entry.

use std::time::{Duration, Instant};

use crate::apply::desks::log::Appending;
use crate::apply::engine::Engine;
use crate::apply::pipeline::worker::WorkerState;
use crate::contract::machine::StateMachine;
use crate::contract::view::{View, Views};
use crate::disk::holders::Holder;
use crate::entry::LogId;
use crate::error::{Poison, ViewError, WaitError};
use crate::hook::Hook;
use crate::progress::watermark::Stage;
use crate::ranges::index_range::IndexRange;
use crate::sync::atomic::Ordering;
use crate::sync::bell::Listener;
use crate::sync::{MutexGuard, Rank, thread};
use crate::threads::Step;

impl<M: StateMachine> Engine<M> {
    pub(crate) fn take_view(&self) -> Result<View, ViewError> {
        let views = self.machine.views(Hook::ENGINE).ok_or(ViewError::Unsupported)?;
        let _turn = self.viewing.lock();
        self.end_linger()?;
        // Take the hold before anything is copied that may refer to a segment.
        let hold = self.log_desk.table().hold().of(self.holding(Holder::View));
        self.progress.poison.check()?;
        views.begin_view()?;
        let mut workers = WorkersWait::new(self);
        while !self.push_view_token()? {
            workers.wait(None);
        }
        self.signals.notify_workers();
        while views.partitions_reached() < self.workers.count() {
            self.progress.poison.check()?;
            workers.wait(None);
        }
        Ok(views.finish_view(hold)?)
    }

    /// Runs `look` while nothing is applied, with the last entry in the state. Everything given to
    /// the workers before is in the state. The workers continue when `look` releases their places,
    /// at the latest when it returns.
    pub(crate) fn while_held<R>(
        &self,
        look: impl FnOnce(&M, Option<LogId>, HeldPlaces<'_, M>) -> R,
    ) -> Result<R, Poison> {
        let _turn = self.viewing.lock();
        self.end_linger()?;
        let pause = self.pause();
        let appending = pause.appender_idle()?;
        let places = self.workers.take_places();
        let applied = self.applied_in(&appending);
        drop(appending);
        Ok(look(&self.machine, applied, HeldPlaces { places, _pause: pause }))
    }

    /// Gives the workers nothing until the result is dropped. Its drop locks the appender, so the
    /// caller does not hold the appender.
    pub(in crate::apply) fn pause(&self) -> Pause<'_, M> {
        Rank::Appender.assert_free();
        // Before the appender is locked. A thread that locks it later sees the pause, and a thread
        // that fed earlier fed a bounded number of entries.
        self.holding.fetch_add(1, Ordering::Relaxed);
        Pause { engine: self }
    }

    /// Blocks until everything is applied that is committed now. Returns at once where the engine
    /// is stepped by hand.
    pub(in crate::apply) fn wait_for_committed(&self, timeout: Duration) -> Result<(), WaitError> {
        match self.progress.committed_mark().last() {
            Some(last) if self.config.by_hand.is_none() => {
                self.wait_under_lock(last, Stage::Applied, timeout)
            }
            _ => Ok(()),
        }
    }

    /// Gives the workers what came meanwhile, if the last pause is over.
    fn end_hold(&self) {
        if self.holding.fetch_sub(1, Ordering::Relaxed) != 1 || self.progress.poison.get().is_some()
        {
            return;
        }
        // A holder of the appender that ran before the decrement may have seen the pause and fed
        // nothing, so feed now. Later holders see no pause. Entries may have waited for long, or
        // may have been flushed meanwhile, so nothing lingers.
        let _failed = self.feed_now();
    }

    /// Puts the view token behind the entries given to the workers; returns false if there is no
    /// room for it now.
    fn push_view_token(&self) -> Result<bool, Poison> {
        let mut appending = self.log_desk.appending();
        self.progress.poison.check()?;
        let unfed = appending.appender.unfed().front().map(|run| run.first);
        if !self.workers.rings().have_room() {
            return Ok(false);
        }
        let committed = self.progress.committed_mark().next();
        let first = unfed.map_or(committed, |first| first.min(committed));
        let token = IndexRange::view_token(first);
        self.workers.rings().push(token).map_err(|poison| self.signals.fail(poison))?;
        Ok(true)
    }
}

/// A caller that waits for the workers, and looks again after each wait.
struct WorkersWait<'e, M: StateMachine> {
    engine: &'e Engine<M>,
    listener: Option<Listener<'e>>,
}

impl<'e, M: StateMachine> WorkersWait<'e, M> {
    fn new(engine: &'e Engine<M>) -> Self {
        Self { engine, listener: None }
    }

    /// Returns when the workers may have done something, or after `longest`. Takes their steps
    /// where no threads of theirs run.
    fn wait(&mut self, longest: Option<Duration>) {
        let engine = self.engine;
        let by_hand = engine.config.by_hand.is_some();
        if by_hand || engine.lifecycle().is_stopping() {
            let (mut worked, mut blocked) = (false, false);
            for id in 0..engine.workers.count() {
                let step = engine.step_worker(id);
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
                engine.signals.notify_workers();
                listener.sleep(longest);
            }
            // The caller looks once more before it sleeps: an earlier ring had no listener.
            None => self.listener = Some(engine.signals.workers_bell().listen()),
        }
    }
}

/// A pause: while it lives, the workers are given nothing.
#[derive(Debug)]
pub(in crate::apply) struct Pause<'e, M: StateMachine> {
    engine: &'e Engine<M>,
}

impl<M: StateMachine> Pause<'_, M> {
    /// Locks the appender once the rings are empty and the workers are done: everything that was
    /// given to the workers is in the state. The borrow releases the appender before the pause
    /// ends.
    ///
    /// Without the pause, under a steady load, the workers would always have something to do.
    pub(in crate::apply) fn appender_idle(&self) -> Result<MutexGuard<'_, Appending>, Poison> {
        let engine = self.engine;
        let mut workers = WorkersWait::new(engine);
        loop {
            let appending = engine.log_desk.appending();
            engine.progress.poison.check()?;
            if engine.workers.are_done() {
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
        let (engine, progress) = (self.engine, &self.engine.progress);
        let began = Instant::now();
        let mut held = self.appender_idle()?;
        let mut workers = WorkersWait::new(engine);
        loop {
            progress.poison.check()?;
            let (applied, committed) = (progress.applied_mark(), progress.committed_mark());
            if applied == committed && engine.workers.are_done() {
                return Ok(held);
            }
            let fed = engine.feed_to(&mut held, engine.slot_limit());
            fed.map_err(|poison| WaitError::Poisoned(engine.signals.fail(poison)))?;
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
        self.engine.end_hold();
    }
}

/// Every worker's place. When it is dropped, the places are free first, and then the workers are
/// given what came meanwhile.
#[derive(Debug)]
pub(crate) struct HeldPlaces<'e, M: StateMachine> {
    places: Vec<MutexGuard<'e, WorkerState>>,
    _pause: Pause<'e, M>,
}

impl<M: StateMachine> Drop for HeldPlaces<'_, M> {
    fn drop(&mut self) {
        // The end of the pause locks the appender, which comes before the places.
        self.places.clear();
    }
}

/// Notes that the worker of `partition` has reached the view token.
pub(in crate::apply) fn reach_view_token(
    views: Option<&dyn Views>,
    partition: crate::ranges::partition::Partition,
) {
    if let Some(views) = views {
        views.reach_view_token(partition);
    }
}
