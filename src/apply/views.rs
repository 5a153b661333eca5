//! Views of the state at one exact index, taken while apply goes on: a mark travels the rings like an entry.

use std::sync::PoisonError;
use std::time::Duration;

use super::engine::{Appending, Engine};
use super::manager::ApplyManager;
use super::ring::Descriptor;
use super::worker::Step;
use crate::error::{Poison, ViewError};
use crate::machine::{StateMachine, View, Views};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, thread};

/// How often whoever takes a view looks whether the workers have come to its mark.
const LOOK: Duration = Duration::from_micros(50);

impl<M: StateMachine> ApplyManager<M> {
    /// The state at one exact index: that of the last entry that was on its way to the workers when the view was asked
    /// for. Apply goes on meanwhile; a worker stops only to copy one shard (some 500 keys) before it writes to
    /// it.
    ///
    /// One view is taken at a time; another call waits for its turn. Costs a copy of every key's slot, and a sort.
    ///
    /// # Errors
    ///
    /// [`ViewError::Unsupported`] for a machine that is not one of the built-in key-value machines;
    /// [`ViewError::Poisoned`].
    pub fn view(&self) -> Result<View, ViewError> {
        self.engine.take_view()
    }
}

impl<M: StateMachine> Engine<M> {
    pub(crate) fn take_view(&self) -> Result<View, ViewError> {
        let views = self.machine.views().ok_or(ViewError::Unsupported)?;
        let _turn = self.viewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Before anything is copied that may refer to a segment.
        let hold = self.table.hold();
        self.progress.poison.check()?;
        views.begin_view()?;
        while !self.push_mark()? {
            self.pass_time();
        }
        self.workers.notify();
        while views.marked() < self.workers.count() {
            self.progress.poison.check()?;
            self.pass_time();
        }
        Ok(views.finish_view(hold))
    }

    /// Runs `look` while nothing is applied: everything that was given to the workers before is in the state. They go on
    /// when it returns.
    pub(crate) fn while_held<R>(&self, look: impl FnOnce(&M) -> R) -> Result<R, Poison> {
        let _turn = self.viewing.lock().unwrap_or_else(PoisonError::into_inner);
        let appending = self.hold_appender_idle()?;
        let places = self.workers.take_places();
        drop(appending);
        let looked = look(&self.machine);
        drop(places);
        self.workers.notify();
        Ok(looked)
    }

    /// The appender's place, with nothing in the rings, where nobody else can put anything: everything that was given to
    /// the workers is in the state.
    pub(crate) fn hold_appender_idle(&self) -> Result<MutexGuard<'_, Appending>, Poison> {
        loop {
            let appending = self.lock_appender();
            self.progress.poison.check()?;
            if self.workers.are_done(&self.rings) {
                return Ok(appending);
            }
            drop(appending);
            self.pass_time();
        }
    }

    /// Puts the mark behind what the workers were given; false if there is no room for it now.
    fn push_mark(&self) -> Result<bool, Poison> {
        let mut appending = self.lock_appender();
        self.progress.poison.check()?;
        let unfed = appending.appender.unfed().front().map(|run| run.first);
        if !self.rings.have_room() {
            return Ok(false);
        }
        let first = unfed.unwrap_or_else(|| self.progress.committed_mark());
        self.rings.push(Descriptor::mark(first.min(self.progress.committed_mark())));
        Ok(true)
    }

    /// Waits a moment for the workers; where there are none of their own, takes their steps.
    fn pass_time(&self) {
        if self.config.by_hand.is_none() && !self.stopping.load(Ordering::Acquire) {
            self.workers.notify();
            thread::park_timeout(LOOK);
            return;
        }
        for id in 0..self.workers.count() {
            if self.step_worker(id) == Step::Blocked {
                thread::yield_now();
            }
        }
    }
}

/// The mark of a view has come to `partition`.
pub(super) fn mark_view(views: Option<&dyn Views>, partition: crate::machine::Partition) {
    if let Some(views) = views {
        views.mark_view(partition);
    }
}
