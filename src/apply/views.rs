//! Views of the state at one exact index, taken while apply goes on: a view token travels the rings like an entry.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::engine::{Appending, Engine};
use super::manager::ApplyManager;
use super::ring::Descriptor;
use super::worker::{Step, WorkerState};
use crate::disk::holders::Holder;
use crate::entry::LogId;
use crate::error::{Poison, ViewError, WaitError};
use crate::machine::{StateMachine, View, Views};
use crate::progress::watermark::{Stage, decode};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, thread};

/// How often whoever takes a view looks whether the workers have come to its token.
const LOOK: Duration = Duration::from_micros(50);

impl<M: StateMachine> ApplyManager<M> {
    /// The state at one exact index: that of the last entry that was on its way to the workers when the view was asked
    /// for. Apply goes on meanwhile; a worker stops only to copy one shard (some 500 keys) before it writes to
    /// it.
    ///
    /// One view is taken at a time; another call waits for its turn. Costs a copy of every key's slot, and a sort. After an
    /// opening from a snapshot it puts all that is left of that into the store first.
    ///
    /// # Errors
    ///
    /// [`ViewError::Unsupported`] for a machine that is not one of the built-in key-value machines;
    /// [`ViewError::Snapshot`] if a part of that snapshot does not read back; [`ViewError::Read`] if the storage under the
    /// machine fails; [`ViewError::Poisoned`].
    pub fn view(&self) -> Result<View, ViewError> {
        let _tasks = self.engine.wakes_tasks();
        self.engine.take_view()
    }
}

impl<M: StateMachine> Engine<M> {
    pub(crate) fn take_view(&self) -> Result<View, ViewError> {
        let views = self.machine.views().ok_or(ViewError::Unsupported)?;
        let _turn = self.viewing.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_linger()?;
        // Before anything is copied that may refer to a segment.
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

    /// Runs `look` while nothing is applied: everything that was given to the workers before is in the state, the last of
    /// which is told. They go on when it lets their places go, at the latest when it returns.
    pub(crate) fn while_held<R>(
        &self,
        look: impl FnOnce(&M, Option<LogId>, HeldPlaces<'_, M>) -> R,
    ) -> Result<R, Poison> {
        let _turn = self.viewing.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_linger()?;
        let appending = self.hold_appender_idle()?;
        let places = HeldPlaces { places: self.workers.take_places(), engine: self };
        let applied = self.applied_in(&appending);
        drop(appending);
        Ok(look(&self.machine, applied, places))
    }

    /// The appender's place, with nothing in the rings, where nobody else can put anything: everything that was given to
    /// the workers is in the state.
    ///
    /// They are given nothing meanwhile. Else, where applying is what everything waits for, there would never be a moment
    /// at which they have nothing to do.
    pub(crate) fn hold_appender_idle(&self) -> Result<HeldAppender<'_, M>, Poison> {
        // Before the lock: whoever has it after us sees it, and whoever fed before us fed a bounded number.
        self.holding.fetch_add(1, Ordering::Relaxed);
        let hold = Hold { engine: self };
        loop {
            let appending = self.lock_appender();
            self.progress.poison.check()?;
            if self.workers.are_done(&self.rings) {
                return Ok(HeldAppender { appending, _hold: hold });
            }
            drop(appending);
            self.pass_time();
        }
    }

    /// The appender's place, with everything in the state that is committed.
    ///
    /// The last of it, which was committed while the hold began, is applied with the place taken: what would be committed
    /// next waits.
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

    /// The last hold is over: what has come meanwhile is given to the workers.
    fn end_hold(&self) {
        if self.holding.fetch_sub(1, Ordering::Relaxed) != 1 || self.progress.poison.get().is_some()
        {
            return;
        }
        // Whoever has the lock before us may have seen the hold, and fed nothing; whoever has it after us does not. Now, as it
        // may have waited for long, or been flushed meanwhile.
        let _failed = self.feed_now();
    }

    /// Puts the view token behind what the workers were given; false if there is no room for it now.
    fn push_view_token(&self) -> Result<bool, Poison> {
        let mut appending = self.lock_appender();
        self.progress.poison.check()?;
        let unfed = appending.appender.unfed().front().map(|run| run.first);
        if !self.rings.have_room() {
            return Ok(false);
        }
        let first = unfed.unwrap_or_else(|| self.progress.committed_mark());
        self.rings.push(Descriptor::view_token(first.min(self.progress.committed_mark())));
        Ok(true)
    }

    /// Waits a moment for the workers; where there are none of their own, takes their steps.
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
                // Of an engine that was given up while a worker is stuck in the machine: for long, maybe.
                thread::park_timeout(LOOK);
            }
        }
    }
}

/// For as long as it lives the workers are given nothing.
#[derive(Debug)]
struct Hold<'a, M: StateMachine> {
    engine: &'a Engine<M>,
}

impl<M: StateMachine> Drop for Hold<'_, M> {
    fn drop(&mut self) {
        self.engine.end_hold();
    }
}

/// The appender's place, while the workers have nothing and are given nothing.
#[derive(Debug)]
pub(crate) struct HeldAppender<'a, M: StateMachine> {
    /// Dropped first: the end of the hold takes it again.
    appending: MutexGuard<'a, Appending>,
    _hold: Hold<'a, M>,
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

/// Every worker's place; the workers are told when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldPlaces<'a, M: StateMachine> {
    places: Vec<MutexGuard<'a, WorkerState>>,
    engine: &'a Engine<M>,
}

impl<M: StateMachine> Drop for HeldPlaces<'_, M> {
    fn drop(&mut self) {
        self.places.clear();
        self.engine.workers.notify();
    }
}

/// The worker of `partition` has reached the view token.
pub(super) fn reach_view_token(views: Option<&dyn Views>, partition: crate::machine::Partition) {
    if let Some(views) = views {
        views.reach_view_token(partition);
    }
}
