//! A worker: passes over every range in order, and applies the entries of its partition.
//!
//! The worker is a step function over its own state. A thread loops over it, and a synchronous call
//! may take the workers' posts when nothing is pending (inline apply). An empty ring does not mean
//! an idle worker; only the worker's post does, once it is locked.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::apply::counters::Counters;
use crate::apply::desks::views::reach_view_token;
use crate::apply::pipeline::in_flight::InFlight;
use crate::apply::pipeline::latency::Latency;
use crate::apply::pipeline::overlap::EntryTime;
use crate::apply::pipeline::ring::Rings;
use crate::apply::pipeline::staging::Staged;
use crate::apply::pipeline::times::RangeSampling;
use crate::bytes::at_most;
use crate::contract::machine::StateMachine;
use crate::contract::run::run_machine;
use crate::error::Poison;
use crate::hook::Hook;
use crate::log::format::opening_log_id;
use crate::numbers::{AtomicMark, Mark, SegmentNumber};
use crate::places::table::{SegmentBytes, SegmentTable};
use crate::progress::watermark::Progress;
use crate::ranges::index_range::{IndexRange, RangeKind};
use crate::ranges::partition::Partition;
use crate::ranges::range::{Payloads, RangeParts};
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::threads::Step;
use crate::times::{TimeHistogram, TimeRecorder};

/// One worker's post.
#[derive(Debug)]
pub(crate) struct Worker {
    id: usize,
    /// The worker's state: the thread that locks it acts as the worker.
    state: Mutex<WorkerState>,
    /// Mark below which everything is in the state, for this partition. Stored with Release after
    /// the range's effects.
    cursor: CachePadded<AtomicMark>,
    /// Number of finished ranges, by which barriers are ordered.
    ranges: CachePadded<AtomicU64>,
    /// Durations of ranges. Recorded by the holder of the state.
    times: TimeRecorder,
    /// Expected time of an entry. Noted by the holder of the state.
    entry_time: EntryTime,
}

#[derive(Debug, Default)]
pub(crate) struct WorkerState {
    /// A popped range that waits for the other workers, or for the commit of the batch before it.
    pub(in crate::apply) pending: Option<IndexRange>,
    /// For a machine over a storage: entries applied and not committed.
    pub(in crate::apply) staged: Staged,
    /// The segment of the last range.
    segment: Option<(SegmentNumber, Arc<SegmentBytes>)>,
    sampling: RangeSampling,
}

impl Worker {
    /// Locks the worker's post, if no thread has it.
    pub(in crate::apply) fn try_place(&self) -> Option<MutexGuard<'_, WorkerState>> {
        self.state.try_lock()
    }

    pub(in crate::apply) fn id(&self) -> usize {
        self.id
    }

    /// Moves the cursor: everything before `mark` is in the state, for this partition.
    #[inline]
    pub(in crate::apply) fn move_to(&self, mark: Mark) {
        self.cursor.store(mark, Ordering::Release);
        self.ranges.fetch_add(1, Ordering::Release);
    }
}

/// All workers of an engine, and the rings through which the appender gives them ranges.
#[derive(Debug)]
pub(crate) struct Workers {
    posts: Box<[Worker]>,
    rings: Rings,
}

impl Workers {
    /// Makes `count` workers, whose rings have room for `ranges` ranges each.
    pub(crate) fn new(count: usize, ranges: usize, applied_mark: Mark) -> Self {
        // There are fewer workers than parts of a hash.
        let number = |id: usize| at_most(id as u64, u32::MAX);
        let worker = |id| Worker {
            id,
            state: Mutex::numbered(Rank::WorkerPlace, number(id), WorkerState::default()),
            cursor: CachePadded::new(AtomicMark::new(applied_mark)),
            ranges: CachePadded::new(AtomicU64::new(0)),
            times: TimeRecorder::default(),
            entry_time: EntryTime::default(),
        };
        Self { posts: (0..count).map(worker).collect(), rings: Rings::new(count, ranges) }
    }

    pub(crate) fn count(&self) -> usize {
        self.posts.len()
    }

    pub(crate) fn get(&self, id: usize) -> Option<&Worker> {
        self.posts.get(id)
    }

    #[inline]
    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Whether everything put into the rings is in the state. The caller holds the appender.
    pub(crate) fn are_done(&self) -> bool {
        let free = |worker: &Worker| match worker.state.try_lock() {
            Some(state) => {
                state.pending.is_none() && state.staged.is_empty() && self.rings.is_empty(worker.id)
            }
            None => false,
        };
        self.posts.iter().all(free)
    }

    /// Moves all cursors: everything before `mark` came into the state by another way than the
    /// rings. The caller holds the appender, and the rings are empty.
    pub(crate) fn jump_to(&self, mark: Mark) {
        self.posts.iter().for_each(|worker| worker.cursor.store(mark, Ordering::Release));
    }

    /// Locks every worker's post, until the result is dropped.
    pub(crate) fn take_posts(&self) -> Vec<MutexGuard<'_, WorkerState>> {
        self.posts.iter().map(|worker| worker.state.lock()).collect()
    }

    /// Durations of ranges of all workers.
    pub(in crate::apply) fn apply_times(&self) -> TimeHistogram {
        let mut all = TimeHistogram::default();
        self.posts.iter().for_each(|worker| all.add(&worker.times.histogram()));
        all
    }

    /// Expected time of all workers together for `entries` entries.
    #[inline]
    pub(in crate::apply) fn expected_time(&self, entries: u64) -> Duration {
        let times = self.posts.iter().map(|worker| worker.entry_time.of(entries));
        // A sum that saturates is long enough for any decision.
        times.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Whether no thread has a worker's post at the moment.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(in crate::apply) fn are_free(&self) -> bool {
        self.posts.iter().all(|worker| worker.state.try_lock().is_some())
    }

    /// Whether every worker but `id` has finished `ranges` ranges.
    fn others_finished(&self, id: usize, ranges: u64) -> bool {
        let mut others = self.posts.iter().filter(|worker| worker.id != id);
        others.all(|worker| worker.ranges.load(Ordering::Acquire) >= ranges)
    }

    /// The lowest cursor.
    fn applied_mark(&self) -> Mark {
        // This fence follows the store to one cursor: of two workers that move at the same time,
        // one sees both stores.
        fence(Ordering::SeqCst);
        self.posts
            .iter()
            .map(|worker| worker.cursor.load(Ordering::Acquire))
            .min()
            .unwrap_or_default()
    }
}

/// The inputs of applying.
pub(crate) struct Applying<'a, M> {
    pub(crate) machine: &'a M,
    pub(crate) workers: &'a Workers,
    pub(crate) in_flight: &'a InFlight,
    pub(crate) table: &'a SegmentTable,
    pub(crate) progress: &'a Progress,
    /// Count of replies that are rejections.
    pub(crate) counters: &'a Counters,
    pub(crate) latency: &'a Latency,
    /// Whether there is no log of ours: then the machine's storage, if it has one, decides
    /// durability.
    pub(crate) is_alone: bool,
}

impl<M: StateMachine> Applying<'_, M> {
    /// Takes one step of worker `id`: at most one range.
    pub(crate) fn step(&self, id: usize) -> Result<Step, Poison> {
        let Some(worker) = self.workers.get(id) else { return Ok(Step::Idle) };
        // An inline apply that has the place takes nothing that was in the ring.
        let Some(mut state) = worker.state.try_lock() else { return Ok(Step::Blocked) };
        let Some(range) = state.pending.take().or_else(|| self.workers.rings.pop(id)) else {
            // Nothing is in flight, so release the segment's memory.
            state.segment = None;
            return Ok(Step::Idle);
        };
        if range.is_barrier() && self.workers.count() > 1 && !self.may_pass_barrier(worker) {
            state.pending = Some(range);
            return Ok(Step::Blocked);
        }
        self.apply_range(worker, &mut state, &range)?;
        Ok(Step::Worked)
    }

    /// Whether a barrier may pass: worker 0 runs it, after all others have reached it and before
    /// any continues.
    fn may_pass_barrier(&self, worker: &Worker) -> bool {
        let finished = worker.ranges.load(Ordering::Relaxed);
        match worker.id {
            0 => self.workers.others_finished(0, finished),
            _ => self
                .workers
                .get(0)
                .is_some_and(|first| first.ranges.load(Ordering::Acquire) > finished),
        }
    }

    fn apply_range(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        range: &IndexRange,
    ) -> Result<(), Poison> {
        let partition = Partition::new(worker.id, self.workers.count());
        match (range.kind, self.machine.staging(Hook::ENGINE)) {
            (RangeKind::Unclassified, _) => {
                return Err(Poison::internal(
                    "a worker was given entries that are not in the in-flight ring",
                ));
            }
            (RangeKind::ViewToken, staging) => {
                if let Some(staging) = staging {
                    self.commit(staging, worker, state)?;
                }
                reach_view_token(self.machine.views(Hook::ENGINE), partition);
                // Pairs with the fence of `Bell::listen`: the taker of the view sees the token
                // reached, or is rung for.
                fence(Ordering::SeqCst);
            }
            (_, Some(staging)) => return self.stage(staging, worker, state, range),
            (RangeKind::Barrier, None) if worker.id != 0 => {}
            (RangeKind::Entries | RangeKind::Barrier, None) => {
                self.counters.reject(self.run_timed(worker, state, range, partition)?);
            }
        }
        let end = range.mark();
        worker.move_to(end);
        let mark = if self.workers.count() == 1 { end } else { self.workers.applied_mark() };
        // Do this before the mark moves, which frees room in the ring and wakes the futures.
        self.in_flight.fill_cells_to(mark);
        self.latency.applies(mark);
        self.progress.apply_to(mark)?;
        Ok(())
    }

    /// Runs as [`Applying::run`] does, and records the time of some ranges.
    #[inline]
    pub(in crate::apply) fn run_timed(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        range: &IndexRange,
        partition: Partition,
    ) -> Result<u64, Poison> {
        self.timed(worker, state, range.count, |state| self.run(state, range, partition))
    }

    /// Runs `run`, which applies `count` entries, and records the time of some such runs.
    #[inline]
    pub(in crate::apply) fn timed<R>(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        count: u32,
        run: impl FnOnce(&mut WorkerState) -> Result<R, Poison>,
    ) -> Result<R, Poison> {
        let began = state.sampling.takes(count).then(|| self.latency.now());
        let ran = run(state)?;
        if let Some(began) = began {
            let took = self.latency.since(began);
            worker.times.record(took);
            worker.entry_time.note(took, count);
            state.sampling.timed(took);
        }
        Ok(ran)
    }

    /// Runs the machine over the range, and returns the number of rejections. A failure names the
    /// index.
    fn run(
        &self,
        state: &mut WorkerState,
        range: &IndexRange,
        partition: Partition,
    ) -> Result<u64, Poison> {
        let segment = match state.segment.take() {
            Some((number, segment)) if number == range.extent.segment() => segment,
            _ => {
                let segment = self.table.get(range.extent.segment());
                segment.ok_or_else(|| Poison::internal("the segment of a range is gone"))?
            }
        };
        let unpublished = "a range is not published";
        let bytes = segment.entries(range.extent).map_err(|error| error.poison(unpublished))?;
        let encoded = range.extent.over(&bytes).ok_or_else(|| Poison::internal(unpublished))?;
        let undecoded = "a frame header in memory does not decode";
        let opening = segment.opening(range.extent).map_err(|error| error.poison(undecoded))?;
        let first = opening_log_id(&opening).ok_or_else(|| Poison::internal(undecoded))?;
        let (in_flight, count, barrier) = (self.in_flight.ring(), range.count, range.is_barrier());
        let first = first.at(range.first);
        let payloads = Payloads::Encoded(encoded);
        let parts = RangeParts { in_flight, first, count, barrier, payloads };
        let rejected = run_machine(self.machine, parts, partition)?;
        state.segment = Some((range.extent.segment(), segment));
        Ok(rejected)
    }

    /// Applies a range at once, with every worker's post taken. Returns false if a worker is not
    /// free.
    ///
    /// The caller holds the appender, has checked that everything submitted before is applied, and
    /// has handed this range to no worker.
    pub(crate) fn apply_inline(&self, range: &IndexRange) -> Result<bool, Poison> {
        self.with_posts_from(0, &mut InlineRange { applying: self, range })
    }

    /// Takes the posts from worker `id` on one by one, each held by a frame of the recursion. Then
    /// does `work` in each, in worker 0's last. Returns false, and has done nothing, if a worker is
    /// not free. The caller holds the appender.
    #[inline]
    pub(in crate::apply) fn with_posts_from(
        &self,
        id: usize,
        work: &mut impl InlineWork,
    ) -> Result<bool, Poison> {
        let Some(worker) = self.workers.get(id) else { return Ok(true) };
        let Some(mut state) = worker.state.try_lock() else { return Ok(false) };
        // The view token may still be in the rings although all entries are applied, and must come
        // before this range.
        if !self.workers.rings.is_empty(id) || state.pending.is_some() {
            return Ok(false);
        }
        if id + 1 < self.workers.count() {
            if !self.with_posts_from(id + 1, work)? {
                return Ok(false);
            }
        } else {
            work.begin()?;
        }
        work.apply(worker, &mut state)?;
        Ok(true)
    }
}

/// Work of a caller that holds the appender and every worker's post.
pub(in crate::apply) trait InlineWork {
    /// Begins, with every post taken.
    fn begin(&mut self) -> Result<(), Poison>;
    /// Applies for one worker's partition.
    fn apply(&mut self, worker: &Worker, state: &mut WorkerState) -> Result<(), Poison>;
}

/// A range that was encoded, to be applied inline.
struct InlineRange<'a, M> {
    applying: &'a Applying<'a, M>,
    range: &'a IndexRange,
}

impl<M: StateMachine> InlineWork for InlineRange<'_, M> {
    fn begin(&mut self) -> Result<(), Poison> {
        Ok(())
    }

    fn apply(&mut self, worker: &Worker, state: &mut WorkerState) -> Result<(), Poison> {
        self.applying.apply_range(worker, state, self.range)?;
        self.applying.finish_inline(worker, state)?;
        state.segment = None;
        Ok(())
    }
}
