//! Views of the state at one exact index, taken while apply continues: a view token passes through
//! the rings like an entry.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::engine::{Appending, Engine};
use super::ring::Descriptor;
use super::worker::WorkerState;
use crate::disk::holders::Holder;
use crate::entry::LogId;
use crate::error::{Poison, ViewError, WaitError};
use crate::machine::{StateMachine, View, Views};
use crate::progress::watermark::{Stage, decode};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, thread};
use crate::threads::Step;

/// Interval at which the taker of a view checks whether the workers have reached its token.
const LOOK: Duration = Duration::from_micros(50);

impl<M: StateMachine> Engine<M> {
    pub(crate) fn take_view(&self) -> Result<View, ViewError> {
        let views = self.machine.views().ok_or(ViewError::Unsupported)?;
        let _turn = self.viewing.lock();
        self.end_linger()?;
        // Take the hold before anything is copied that may refer to a segment.
        let hold = self.table.hold().of(self.holding(Holder::View));
        self.progress.poison.check()?;
        views.begin_view()?;
        while !self.push_view_token()? {
            self.pass_time();
        }
        self.workers.notify();
        while views.partitions_reached() < self.workers.count() {
            self.progress.poison.check()?;
            self.pass_time();
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
        let appending = self.hold_appender_idle()?;
        let places = self.workers.take_places();
        let applied = self.applied_in(&appending);
        let HeldAppender { appending, hold } = appending;
        drop(appending);
        Ok(look(&self.machine, applied, HeldPlaces { places, _hold: hold }))
    }

    /// Locks the appender's place while the rings are empty. Everything given to the workers is in
    /// the state, and no other thread can add to it.
    ///
    /// The workers are given nothing meanwhile. Otherwise, where apply is the bottleneck, they
    /// would never be idle.
    pub(crate) fn hold_appender_idle(&self) -> Result<HeldAppender<'_, M>, Poison> {
        // Count before the lock: later holders see the pause, and earlier ones have fed a bounded
        // number.
        self.holding.fetch_add(1, Ordering::Relaxed);
        let hold = Hold { engine: self };
        loop {
            let appending = self.appender.lock();
            self.progress.poison.check()?;
            if self.workers.are_done(&self.rings) {
                return Ok(HeldAppender { appending, hold });
            }
            drop(appending);
            self.pass_time();
        }
    }

    /// Locks the appender's place with every committed entry in the state.
    ///
    /// Entries that were committed while the pause began are applied with the place taken; later
    /// commits wait.
    pub(crate) fn hold_appender_applied(
        &self,
        timeout: Duration,
    ) -> Result<HeldAppender<'_, M>, WaitError> {
        let began = Instant::now();
        if self.config.by_hand.is_none()
            && let Some(last) = decode(self.progress.committed_mark())
        {
            self.wait(last, Stage::Applied, timeout)?;
        }
        let mut held = self.hold_appender_idle()?;
        loop {
            self.progress.poison.check()?;
            let (applied, committed) =
                (self.progress.applied_mark(), self.progress.committed_mark());
            if applied == committed && self.workers.are_done(&self.rings) {
                return Ok(held);
            }
            let fed = self.feed_to(&mut held, self.slot_limit());
            fed.map_err(|poison| WaitError::Poisoned(self.fail(poison)))?;
            if began.elapsed() >= timeout {
                return Err(WaitError::Timeout {
                    index: decode(committed).unwrap_or(0),
                    reached: decode(applied),
                    submitted: decode(self.progress.submitted_mark()),
                    waited: began.elapsed(),
                });
            }
            self.pass_time();
        }
    }

    /// Ends the last pause: feeds the workers with everything that came meanwhile.
    fn end_hold(&self) {
        if self.holding.fetch_sub(1, Ordering::Relaxed) != 1 || self.progress.poison.get().is_some()
        {
            return;
        }
        // A holder that ran before this decrement saw the pause and fed nothing, so feed now. Later
        // holders see no pause. Feed without a linger, because the entries may have waited long, or
        // been flushed meanwhile.
        let _failed = self.feed_now();
    }

    /// Puts the view token behind the entries given to the workers; returns false if there is no
    /// room for it now.
    fn push_view_token(&self) -> Result<bool, Poison> {
        let mut appending = self.appender.lock();
        self.progress.poison.check()?;
        let unfed = appending.appender.unfed().front().map(|run| run.first);
        if !self.rings.have_room() {
            return Ok(false);
        }
        let first = unfed.unwrap_or_else(|| self.progress.committed_mark());
        let token = Descriptor::view_token(first.min(self.progress.committed_mark()));
        self.rings.push(token).map_err(|poison| self.fail(poison))?;
        Ok(true)
    }

    /// Waits a moment for the workers; takes their steps in an engine without threads.
    fn pass_time(&self) {
        if self.config.by_hand.is_none() && !self.lifecycle().is_stopping() {
            self.workers.notify();
            thread::park_timeout(LOOK);
            return;
        }
        for id in 0..self.workers.count() {
            if self.step_worker(id) != Step::Blocked {
                continue;
            }
            if self.config.by_hand.is_some() {
                thread::yield_now();
            } else {
                // The engine may have been abandoned while a worker is stuck in the machine, which
                // can take long.
                thread::park_timeout(LOOK);
            }
        }
    }
}

/// A pause: while it lives, the workers are given nothing.
#[derive(Debug)]
struct Hold<'a, M: StateMachine> {
    engine: &'a Engine<M>,
}

impl<M: StateMachine> Drop for Hold<'_, M> {
    fn drop(&mut self) {
        self.engine.end_hold();
    }
}

/// The appender's place, while the workers have nothing and get nothing.
#[derive(Debug)]
pub(crate) struct HeldAppender<'a, M: StateMachine> {
    /// Dropped first, because the end of the pause locks it again.
    appending: MutexGuard<'a, Appending>,
    hold: Hold<'a, M>,
}

impl<M: StateMachine> Deref for HeldAppender<'_, M> {
    type Target = Appending;

    fn deref(&self) -> &Appending {
        &self.appending
    }
}

impl<M: StateMachine> DerefMut for HeldAppender<'_, M> {
    fn deref_mut(&mut self) -> &mut Appending {
        &mut self.appending
    }
}

/// Every worker's place. When it is dropped, the places are free first, and then the workers are
/// given what came meanwhile.
#[derive(Debug)]
pub(crate) struct HeldPlaces<'a, M: StateMachine> {
    places: Vec<MutexGuard<'a, WorkerState>>,
    _hold: Hold<'a, M>,
}

impl<M: StateMachine> Drop for HeldPlaces<'_, M> {
    fn drop(&mut self) {
        // The end of the hold locks the appender, which comes before the places.
        self.places.clear();
    }
}

/// Notes that the worker of `partition` has reached the view token.
pub(super) fn reach_view_token(
    views: Option<&dyn Views>,
    partition: crate::ranges::partition::Partition,
) {
    if let Some(views) = views {
        views.reach_view_token(partition);
    }
}
