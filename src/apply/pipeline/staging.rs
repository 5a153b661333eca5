//! Staging: a machine over a storage applies entries, and its storage commits many of them at once.
//!
//! Between apply and commit no reader sees the entries: cursor, watermarks and replies move when
//! the commit has returned. The worker commits when a batch is full, when its ring has run dry, and
//! before the view token. An inline apply commits at once.

use std::time::Duration;

use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::worker::{Applying, Worker, WorkerState};
use crate::config::Durability;
use crate::contract::machine::StateMachine;
use crate::contract::run::{call_storage, sync_applied};
use crate::contract::staging::Staging;
use crate::error::{OpenError, Poison};
use crate::hook::Hook;
use crate::numbers::Mark;
use crate::progress::watermark::AckRule;
use crate::ranges::index_range::IndexRange;
use crate::ranges::partition::Partition;
use crate::threads::Step;

/// Entries that a worker applied and the storage has not committed.
#[derive(Debug, Default)]
pub(in crate::apply) struct Staged {
    /// Index of the first entry.
    first: u64,
    /// Number of entries.
    entries: u64,
    /// Mark of the last entry.
    mark: Mark,
    /// Number of replies that are rejections.
    rejected: u64,
}

impl Staged {
    pub(in crate::apply) fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// Tells a machine over a storage that the engine commits. Returns the rule of acknowledgements
/// where only the storage decides durability. The marks of such an engine begin with everything
/// applied as durable: the storage guarantees that.
pub(in crate::apply) fn begin_staging<M: StateMachine>(
    machine: &M,
    is_alone: bool,
) -> Result<Option<AckRule>, OpenError> {
    let Some(staging) = machine.staging(Hook::ENGINE) else { return Ok(None) };
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

impl<M: StateMachine> Applying<'_, M> {
    /// Applies as much of `range` as the batch has room for, and commits a full batch. The rest of
    /// the range is pending then.
    pub(in crate::apply) fn stage(
        &self,
        staging: &dyn Staging,
        worker: &Worker,
        state: &mut WorkerState,
        range: &IndexRange,
    ) -> Result<(), Poison> {
        let batch_size = staging.batch_size().max(1) as u64;
        // A full batch is about to be committed; one entry more belongs to the next.
        let room = batch_size.saturating_sub(state.staged.entries).max(1);
        let range = match u32::try_from(room) {
            Ok(room) if room < range.count => {
                let (head, rest) = range.split(room, self.in_flight.ring())?;
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
        staged.mark = range.mark();
        staged.rejected += rejected;
        if staged.entries >= batch_size {
            self.commit(staging, worker, state)?;
        }
        Ok(())
    }

    /// Commits the staged entries, and moves cursor, replies and marks. Returns whether there were
    /// any.
    pub(in crate::apply) fn commit(
        &self,
        staging: &dyn Staging,
        worker: &Worker,
        state: &mut WorkerState,
    ) -> Result<bool, Poison> {
        if state.staged.is_empty() {
            return Ok(false);
        }
        let Staged { first, mark, rejected, .. } = state.staged;
        let what = || {
            format!(
                "its storage did not commit the batch of entries {first} to {}",
                mark.last().unwrap_or(first)
            )
        };
        let durable = call_storage(first, what, || {
            let durable = self.latency.commit_storage(staging)?;
            // The storage was asked to sync and did not, so nothing would be acknowledged.
            let must_sync = self.is_alone && !durable && self.progress.rule() == AckRule::Durable;
            if must_sync {
                self.latency.sync_storage(staging)?;
            }
            Ok(durable || must_sync)
        })?;
        state.staged = Staged::default();
        self.counters.reject(rejected);
        worker.move_to(mark);
        // Do this before the mark moves, which frees room in the ring and wakes the futures.
        self.in_flight.fill_cells_to(mark);
        self.latency.applies(mark);
        if self.is_alone {
            self.progress.stored_to(mark, durable)?;
        } else {
            self.progress.apply_to(mark)?;
        }
        Ok(true)
    }

    /// Commits the staged entries of worker `id`, whose ring has run dry. Returns blocked if
    /// another thread has the worker's post.
    pub(in crate::apply) fn commit_dry(&self, id: usize) -> Result<Step, Poison> {
        let (Some(staging), Some(worker)) =
            (self.machine.staging(Hook::ENGINE), self.workers.get(id))
        else {
            return Ok(Step::Idle);
        };
        let Some(mut state) = worker.try_place() else { return Ok(Step::Blocked) };
        let worked = self.commit(staging, worker, &mut state)?;
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Applies the rest of a range that was split, and commits.
    pub(in crate::apply) fn finish_inline(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
    ) -> Result<(), Poison> {
        let Some(staging) = self.machine.staging(Hook::ENGINE) else { return Ok(()) };
        while let Some(rest) = state.pending.take() {
            self.stage(staging, worker, state, &rest)?;
        }
        self.commit(staging, worker, state).map(drop)
    }
}

impl<M: StateMachine> Pipeline<M> {
    /// Feeds worker `id`, which ran dry, or commits its staged entries if there is nothing to feed.
    pub(in crate::apply) fn feed_or_commit(&self, id: usize) -> Result<Step, Poison> {
        match self.feed_dry()? {
            Step::Worked => Ok(Step::Worked),
            // Another thread may hold the appender until all is committed, so do not wait for the
            // appender.
            step => match self.applying().commit_dry(id)? {
                Step::Idle => Ok(step),
                other => Ok(other),
            },
        }
    }

    /// The storage of a machine without our log, which alone decides durability.
    pub(in crate::apply) fn lone_storage(&self) -> Option<&dyn Staging> {
        self.machine.staging(Hook::ENGINE).filter(|_| self.log_desk.log().is_none())
    }

    /// Returns the moment of an acknowledgement; `None` for an acknowledgement at apply.
    pub(crate) fn durability(&self) -> Option<Durability> {
        match self.log_desk.log() {
            Some(log) => Some(log.durability()),
            None => self.machine.staging(Hook::ENGINE).map(Staging::durability),
        }
    }

    /// Time that less than a full batch waits to be fed.
    pub(in crate::apply) fn linger(&self) -> Duration {
        let timeout = self.config.batch_timeout;
        self.machine
            .staging(Hook::ENGINE)
            .map_or(timeout, |staging| staging.batch_interval().max(timeout))
    }

    /// Number of entries in a full batch, for the linger.
    pub(in crate::apply) fn full_batch(&self) -> u64 {
        let entries = match self.machine.staging(Hook::ENGINE) {
            None => self.config.batch_size,
            // A full pipeline accepts no more entries to wait for.
            Some(staging) => staging.batch_size().clamp(1, self.config.pipeline_depth),
        };
        entries as u64
    }

    /// Whether a synchronous caller may apply, and so commit, itself. It may not where each commit
    /// syncs: callers share a sync only if their entries gather in the ring.
    pub(in crate::apply) fn may_commit_inline(&self) -> bool {
        self.lone_storage().is_none_or(|staging| staging.durability() != Durability::Sync)
    }

    /// Ends the linger, because a caller of a machine over a storage waits.
    pub(in crate::apply) fn end_linger(&self) -> Result<(), Poison> {
        if self.machine.staging(Hook::ENGINE).is_none()
            || self.linger().is_zero()
            || !self.has_unfed()
        {
            return Ok(());
        }
        self.feed_now()
    }

    /// Number of records that may be applied before a commit.
    pub(in crate::apply) fn staged_at_once(&self) -> usize {
        self.machine.staging(Hook::ENGINE).map_or(usize::MAX, |staging| staging.batch_size().max(1))
    }

    /// Commits records from `first` on, which were applied in the worker's post.
    pub(in crate::apply) fn commit_records(&self, first: u64) -> Result<(), Poison> {
        let Some(staging) = self.machine.staging(Hook::ENGINE) else { return Ok(()) };
        let what = || format!("its storage did not commit the batch of records from {first} on");
        call_storage(first, what, || self.latency.commit_storage(staging)).map(drop)
    }

    /// Makes the commits of a storage without our log durable, unless entries up to `mark` are. A
    /// failure has poisoned the engine.
    pub(crate) fn sync_storage(&self, mark: Mark) -> Result<(), Poison> {
        self.lone_storage().map_or(Ok(()), |staging| self.storage.sync(staging, mark))
    }
}
