//! Batches: a machine over a storage applies entries, and its storage commits many of them at once.
//!
//! Between the two, no one sees the entries: cursor, watermarks and replies move when the commit has returned. The
//! worker commits when a batch is full, when its ring has run dry, before the view token, and at once inline.

use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::ring::Descriptor;
use super::worker::{Applying, Step, Worker, WorkerState};
use crate::config::Durability;
use crate::error::{OpenError, Poison, WaitError};
use crate::log::slots::SlotRing;
use crate::machine::storage::Staging;
use crate::machine::{Partition, StateMachine, call_storage, sync_applied};
use crate::progress::waiter;
use crate::progress::watermark::{AckRule, Stage, decode};
use crate::sync::atomic::Ordering;

/// What a worker applied and the storage has not committed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// Index of its first entry.
    first: u64,
    /// How many entries it has.
    entries: u64,
    /// The mark to which it takes the state.
    mark: u64,
    /// How many of its replies are rejections.
    rejected: u64,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// Tells a machine over a storage that the engine commits; gives the rule of acknowledgements where the storage alone says
/// what is durable. The marks of such an engine begin with all that is applied durable: the storage sees to that.
pub(super) fn begin_staging<M: StateMachine>(
    machine: &M,
    is_alone: bool,
) -> Result<Option<AckRule>, OpenError> {
    let Some(staging) = machine.staging() else { return Ok(None) };
    staging.begin();
    if !is_alone {
        return Ok(None);
    }
    sync_applied(staging, machine.applied())?;
    Ok(Some(match staging.durability() {
        Durability::Sync => AckRule::Durable,
        Durability::Periodic(_) | Durability::Os => AckRule::Written,
    }))
}

impl Descriptor {
    /// Its first `count` entries, and the others. It has more than that.
    fn split(&self, count: u32, slots: &SlotRing) -> Result<(Self, Self), Poison> {
        let first = self.first + u64::from(count);
        let (head, rest) = slots.split(self.extent, first)?;
        let head = Self { count, extent: head, ..*self };
        Ok((head, Self { first, count: self.count - count, extent: rest, ..*self }))
    }
}

impl<M: StateMachine> Applying<'_, M> {
    /// Applies as much of `range` as the batch has room for, and commits the batch if it is full. The rest of the range
    /// is pending then.
    pub(super) fn stage(
        &self,
        staging: &dyn Staging,
        worker: &Worker,
        state: &mut WorkerState,
        range: &Descriptor,
    ) -> Result<(), Poison> {
        let batch_size = staging.batch_size().max(1) as u64;
        let room = batch_size.saturating_sub(state.staged.entries).max(1);
        let range = match u32::try_from(room) {
            Ok(room) if room < range.count => {
                let (head, rest) = range.split(room, self.slots)?;
                state.pending = Some(rest);
                head
            }
            _ => *range,
        };
        let rejected = self.run_timed(worker, state, &range, Partition::WHOLE)?;
        let staged = &mut state.staged;
        if staged.is_empty() {
            staged.first = range.first;
        }
        staged.entries += u64::from(range.count);
        staged.mark = range.first + u64::from(range.count);
        staged.rejected += rejected;
        if staged.entries >= batch_size {
            self.commit(staging, worker, state)?;
        }
        Ok(())
    }

    /// Commits what is staged, and moves cursor, replies and marks. Whether anything was.
    pub(super) fn commit(
        &self,
        staging: &dyn Staging,
        worker: &Worker,
        state: &mut WorkerState,
    ) -> Result<bool, Poison> {
        if state.staged.is_empty() {
            return Ok(false);
        }
        let Staged { first, mark, rejected, .. } = state.staged;
        let what =
            || format!("its storage did not commit the batch of entries {first} to {}", mark - 1);
        let durable = call_storage(first, what, || {
            let durable = self.latency.commit_storage(staging)?;
            // A storage that was asked to sync, and did not: nothing would be acknowledged.
            let must_sync = self.is_alone && !durable && self.progress.rule() == AckRule::Durable;
            if must_sync {
                self.latency.sync_storage(staging)?;
            }
            Ok(durable || must_sync)
        })?;
        state.staged = Staged::default();
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
        worker.move_to(mark);
        // Before the mark: it frees the slots, and tells the futures.
        self.cells.fill_to(mark, self.slots);
        self.latency.applies(mark);
        if self.is_alone {
            self.progress.stored_to(mark, durable);
        } else {
            self.progress.apply_to(mark);
        }
        Ok(true)
    }

    /// The ring of worker `id` has run dry: commits what the worker has staged. Blocked if another thread has its place.
    pub(super) fn commit_dry(&self, id: usize) -> Result<Step, Poison> {
        let (Some(staging), Some(worker)) = (self.machine.staging(), self.workers.get(id)) else {
            return Ok(Step::Idle);
        };
        let mut state = match worker.try_place() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Step::Blocked),
        };
        let worked = self.commit(staging, worker, &mut state)?;
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Applies what is left of a range that was split, and commits.
    pub(super) fn finish_inline(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
    ) -> Result<(), Poison> {
        let Some(staging) = self.machine.staging() else { return Ok(()) };
        while let Some(rest) = state.pending.take() {
            self.stage(staging, worker, state, &rest)?;
        }
        self.commit(staging, worker, state).map(drop)
    }
}

impl<M: StateMachine> Engine<M> {
    /// Worker `id` ran dry: feeds it or, if there is nothing to feed it with now, commits what it has staged.
    pub(super) fn feed_or_commit(&self, id: usize) -> Result<Step, Poison> {
        match self.feed_dry()? {
            Step::Worked => Ok(Step::Worked),
            // A thread may hold the appender until all is committed, so this does not wait for the appender.
            step => match self.applying().commit_dry(id)? {
                Step::Idle => Ok(step),
                other => Ok(other),
            },
        }
    }

    /// The storage of a machine that has no log of ours: the storage alone says what is durable.
    pub(super) fn lone_storage(&self) -> Option<&dyn Staging> {
        self.machine.staging().filter(|_| self.log.is_none())
    }

    /// When an acknowledgement is given; `None` where it is as soon as an entry is applied.
    pub(crate) fn durability(&self) -> Option<Durability> {
        match &self.log {
            Some(log) => Some(log.durability()),
            None => self.machine.staging().map(Staging::durability),
        }
    }

    /// How long less than a full batch waits to be fed.
    pub(super) fn linger(&self) -> Duration {
        let timeout = self.config.batch_timeout;
        self.machine.staging().map_or(timeout, |staging| staging.batch_interval().max(timeout))
    }

    /// How many entries are a full batch, for the linger.
    pub(super) fn full_batch(&self) -> u64 {
        let entries = match self.machine.staging() {
            None => self.config.batch_size,
            // A pipeline that is full takes nothing more to wait for.
            Some(staging) => staging.batch_size().clamp(1, self.config.pipeline_depth),
        };
        entries as u64
    }

    /// Whether a synchronous caller may apply, and so commit, by itself. Not where each commit syncs: several callers share
    /// a sync only if their entries gather in the ring.
    pub(super) fn may_commit_inline(&self) -> bool {
        self.lone_storage().is_none_or(|staging| staging.durability() != Durability::Sync)
    }

    /// A caller of a machine over a storage waits: its entries do not wait for more.
    pub(super) fn end_linger(&self) -> Result<(), Poison> {
        if self.machine.staging().is_none() || self.linger().is_zero() || !self.has_unfed() {
            return Ok(());
        }
        self.feed_now()
    }

    /// How many records may be applied before they are committed.
    pub(super) fn staged_at_once(&self) -> usize {
        self.machine.staging().map_or(usize::MAX, |staging| staging.batch_size().max(1))
    }

    /// Records from `first` on are applied, in the worker's place: a storage commits them.
    pub(super) fn commit_records(&self, first: u64) -> Result<(), Poison> {
        let Some(staging) = self.machine.staging() else { return Ok(()) };
        let what = || format!("its storage did not commit the batch of records from {first} on");
        call_storage(first, what, || self.latency.commit_storage(staging)).map(drop)
    }

    /// Blocks until the storage has committed `index`, and makes that durable.
    pub(super) fn wait_stored(&self, index: u64, timeout: Duration) -> Result<(), WaitError> {
        let began = Instant::now();
        waiter::wait(&self.progress, index, Stage::Written, timeout)?;
        self.sync_storage(index.saturating_add(1)).map_err(WaitError::Poisoned)?;
        let left = timeout.saturating_sub(began.elapsed());
        waiter::wait(&self.progress, index, Stage::Durable, left)
    }

    /// Has a storage without a log of ours make durable what it has committed, unless entries up to `mark` are durable. A
    /// failure has poisoned the engine.
    pub(crate) fn sync_storage(&self, mark: u64) -> Result<(), Poison> {
        let Some(staging) = self.lone_storage() else { return Ok(()) };
        if self.progress.durable_mark() >= mark {
            return Ok(());
        }
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.progress.poison.check()?;
        let durable = self.progress.durable_mark();
        // Another caller's sync may have been what this one waited for.
        if durable >= mark {
            return Ok(());
        }
        let stored = self.progress.written_mark();
        let first = durable.max(self.progress.base());
        let what = || match decode(stored) {
            Some(last) => format!("its storage did not make entries {first} to {last} durable"),
            None => "its storage did not sync".to_owned(),
        };
        let sync = || self.latency.sync_storage(staging);
        call_storage(first, what, sync).map_err(|poison| self.fail(poison))?;
        self.progress.stored_durably_to(stored);
        Ok(())
    }
}
