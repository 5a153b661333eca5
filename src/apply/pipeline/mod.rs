//! The life of an entry, in the order of the modules below: from its submission to its effect.
//!
//! [`Pipeline`] has what they share: the state machine, the log, the entries in flight, the workers
//! and how far all that is.

// In: all of a submission, or nothing.
pub(crate) mod submit;

// When there is no room.
pub(crate) mod room;
// Past all that follows, in a call that finds the engine idle.
pub(crate) mod direct;

// Entries that the log has already.
pub(crate) mod known;

// Replies that are still wanted: the in-flight ring, claims of callers, cells of futures.
pub(crate) mod in_flight;

pub(crate) mod claims;

pub(crate) mod cells;

// Through the rings.
pub(crate) mod feed;

pub(crate) mod ring;

// Into the state.
pub(crate) mod worker;

pub(crate) mod here;

pub(crate) mod staging;

// While the log is synced, or before it.
pub(crate) mod overlap;

// While nothing is applied.
pub(crate) mod pause;

// How long that took.
pub(crate) mod latency;

pub(crate) mod times;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::apply::counters::Counters;
use crate::apply::desks::log::{Appending, LogDesk};
use crate::apply::desks::storage::StorageDesk;
use crate::apply::pipeline::claims::Released;
use crate::apply::pipeline::feed::Feed;
use crate::apply::pipeline::in_flight::InFlight;
use crate::apply::pipeline::latency::Latency;
use crate::apply::pipeline::pause::Pauses;
use crate::apply::pipeline::staging::begin_staging;
use crate::apply::pipeline::submit::Submission;
use crate::apply::pipeline::worker::{Applying, Workers};
use crate::apply::signals::Signals;
use crate::bytes::at_most;
use crate::clock::Clock;
use crate::codec::PayloadRef;
use crate::config::ApplyConfig;
use crate::contract::machine::StateMachine;
use crate::disk::holders::{Holder, Holding};
use crate::entry::LogId;
use crate::error::{OpenError, Poison, WaitError};
use crate::hook::Hook;
use crate::log::JournalParts;
use crate::log::figures::MemoryStats;
use crate::numbers::Mark;
use crate::progress::lifecycle::Lifecycle;
use crate::progress::watermark::{Progress, Stage, WakesTasks};
use crate::ranges::partition::Footprint;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::set_aside;
use crate::threads::Step;

/// The way of entries through one engine: the state, the log, and the threads' shares of both.
#[derive(Debug)]
pub(crate) struct Pipeline<M> {
    machine: M,
    config: ApplyConfig,
    progress: Arc<Progress>,
    in_flight: InFlight,
    workers: Workers,
    log_desk: LogDesk,
    storage: StorageDesk,
    pauses: Pauses,
    signals: Arc<Signals>,
    latency: Arc<Latency>,
    counters: Counters,
}

impl<M> Pipeline<M> {
    #[inline]
    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    #[inline]
    pub(crate) fn config(&self) -> &ApplyConfig {
        &self.config
    }

    #[inline]
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    #[inline]
    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    #[inline]
    pub(crate) fn log_desk(&self) -> &LogDesk {
        &self.log_desk
    }

    #[inline]
    pub(in crate::apply) fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    #[inline]
    pub(in crate::apply) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The signals, for roles of a host, which outlive the engine.
    pub(in crate::apply) fn shared_signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    #[inline]
    pub(in crate::apply) fn latency(&self) -> &Latency {
        &self.latency
    }

    #[inline]
    pub(in crate::apply) fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl<M: StateMachine> Pipeline<M> {
    pub(crate) fn new(machine: M, config: ApplyConfig, workers: usize) -> Result<Self, OpenError> {
        let clock = config.by_hand.clone().unwrap_or_else(Clock::real);
        // A machine over a storage has one partition.
        let workers = if machine.staging(Hook::ENGINE).is_some() { 1 } else { workers };
        let start = machine.applied();
        let replayed = machine.stats().applied_count;
        let JournalParts { appender, log, table, rule, start, poison, memory } =
            machine.journal().open(start)?;
        let rule = begin_staging(&machine, log.is_none())?.unwrap_or(rule);
        // Twice the pipeline: uncopied replies do not hold back a submission that fits it.
        let in_flight = InFlight::new(2 * config.pipeline_depth, machine.reply_bytes_max())?;
        if let Some(log) = &log {
            log.set_clock(clock.clone());
        }
        let progress = Progress::new(rule, start, poison).with_depth(config.pipeline_depth as u64);
        let progress = Arc::new(progress);
        let start_mark = progress.applied_mark();
        let ranges = config.pipeline_depth.clamp(64, 4096);
        let crew = Workers::new(workers, ranges, start_mark);
        let latency = Arc::new(Latency::new(clock, config.pipeline_depth));
        let signals = Arc::new(Signals::new(Arc::clone(&progress), workers));
        let shared = (Arc::clone(&progress), Arc::clone(&signals), Arc::clone(&latency));
        let (waiting, wakes, has_log) =
            (Arc::clone(&progress), Arc::clone(&signals), log.is_some());
        table.tell_of_free_images(move || {
            waiting.room.changed(&waiting);
            wakes.leave_tasks(has_log);
        });
        let memory = MemoryStats {
            in_flight: in_flight.memory_bytes(),
            rings: crew.rings().memory_bytes(),
            stamps: latency.memory_bytes(),
            ..memory
        };
        Ok(Self {
            machine,
            latency,
            config,
            in_flight,
            workers: crew,
            log_desk: LogDesk::new(appender, log, table, shared.clone()),
            storage: StorageDesk::new(shared),
            pauses: Pauses::new(),
            signals,
            counters: Counters::new(start_mark, replayed, memory),
            progress,
        })
    }

    /// The last entry in the state, for a caller that holds the appender.
    pub(crate) fn applied_in(&self, appending: &Appending) -> Option<LogId> {
        let index = self.progress.applied_mark().last()?;
        // An apply-only record may have moved the state to an index that the log lacks, or has
        // under another log id. Machines over our log know their last entry; others have no
        // records.
        let own = self.log_desk.log().and_then(|_| self.machine.applied());
        own.filter(|own| own.index == index).or_else(|| appending.appender.log_id(index))
    }

    pub(crate) fn range_entries_max(&self) -> u32 {
        // More entries than a range can count end it, as a full batch does.
        at_most(self.config.batch_size as u64, u32::MAX).max(1)
    }

    /// The mark of the indexes that the in-flight ring has room for, beside unapplied entries and
    /// replies that are not copied out.
    pub(crate) fn in_flight_limit(&self) -> Mark {
        self.in_flight.limit(self.progress.applied_mark().max(self.progress.base()).next())
    }

    /// Hands committed entries to the workers without a linger. A failure has poisoned the engine.
    pub(crate) fn feed_now(&self) -> Result<(), Poison> {
        let mut appending = self.log_desk.appending();
        let fed = self.feed(&mut appending, Feed::All);
        drop(appending);
        fed.map_err(|poison| self.signals.fail(poison))?;
        self.signals.notify_workers();
        Ok(())
    }

    /// Runs `run`, which asks the machine for footprints. The poison of a panic names the entry.
    pub(crate) fn guarded<T>(
        &self,
        run: impl FnOnce(&dyn Fn(u64, &PayloadRef<'_>) -> Footprint) -> Result<T, Poison>,
    ) -> Result<T, Poison> {
        self.catching(|at| run(&|index, payload| self.footprint(at, index, payload)))
    }

    /// Asks the machine for a footprint, and notes the index in `at` before.
    #[inline]
    pub(in crate::apply) fn footprint(
        &self,
        at: &Cell<u64>,
        index: u64,
        payload: &PayloadRef<'_>,
    ) -> Footprint {
        at.set(index);
        let _aside = set_aside();
        self.machine.footprint(payload)
    }

    /// Runs `run`, which calls the machine. The poison of a panic names the index that `run` has
    /// left in the cell.
    #[inline]
    pub(in crate::apply) fn catching<T>(
        &self,
        run: impl FnOnce(&Cell<u64>) -> Result<T, Poison>,
    ) -> Result<T, Poison> {
        let at = Cell::new(0);
        catch_unwind(AssertUnwindSafe(|| run(&at)))
            .unwrap_or_else(|_panic| Err(Poison::Panic { index: at.get() }))
    }

    pub(crate) fn applying(&self) -> Applying<'_, M> {
        Applying {
            machine: &self.machine,
            workers: &self.workers,
            in_flight: &self.in_flight,
            table: self.log_desk.table(),
            progress: &self.progress,
            counters: &self.counters,
            latency: &self.latency,
            is_alone: self.log_desk.log().is_none(),
        }
    }

    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.progress.poison.get().is_some()
    }

    /// A guard whose drop calls the wakers of tasks, after all locks taken later are released.
    #[inline]
    pub(crate) fn wakes_tasks(&self) -> WakesTasks<'_> {
        WakesTasks(&self.progress)
    }

    /// Takes one step of worker `id`. A failure has poisoned the engine.
    pub(crate) fn step_worker(&self, id: usize) -> Step {
        if self.progress.poison.get().is_some() {
            return Step::Idle;
        }
        let step = match self.applying().step(id) {
            Ok(Step::Idle) if self.has_unfed() => self.feed_or_commit(id),
            other => other,
        };
        match step {
            Ok(step) => {
                if step == Step::Worked {
                    self.latency.note(self.progress.acknowledged_mark());
                    // The move of the watermark, or the view token, has passed a fence.
                    self.signals.workers_bell().ring_after_fence();
                }
                step
            }
            Err(poison) => {
                self.signals.fail(poison);
                Step::Idle
            }
        }
    }

    /// Whether there may be committed entries that no worker has got.
    pub(crate) fn has_unfed(&self) -> bool {
        self.progress.committed_mark() > self.progress.applied_mark()
    }

    /// Feeds a worker that ran dry, if no thread holds the appender; a holder feeds at release.
    fn feed_dry(&self) -> Result<Step, Poison> {
        let fed = match self.log_desk.try_appending() {
            Some(mut appending) => self.feed(&mut appending, Feed::Due)?,
            None => return Ok(Step::Blocked),
        };
        if fed {
            self.signals.notify_workers();
        }
        Ok(if fed { Step::Worked } else { Step::Idle })
    }

    /// Blocks until `stage` covers `index`. Meanwhile writes the log, if no other thread does. The
    /// caller holds no lock, because wakers may be called.
    pub(crate) fn wait(
        &self,
        index: u64,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.wait_and_wake(index, stage, timeout, || self.progress.wake_tasks())
    }

    /// Blocks until a submission is acknowledged.
    #[inline]
    pub(crate) fn wait_for_submission(
        &self,
        submission: &Submission<'_>,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        if submission.is_acknowledged {
            return Ok(());
        }
        self.wait(submission.last, Stage::Acknowledged, timeout)
    }

    /// Waits as [`Pipeline::wait`] does, but leaves wakers to others, as its caller holds a lock.
    pub(crate) fn wait_under_lock(
        &self,
        index: u64,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.wait_and_wake(index, stage, timeout, || {
            self.signals.leave_tasks(self.log_desk.log().is_some())
        })
    }

    fn wait_and_wake(
        &self,
        index: u64,
        stage: Stage,
        timeout: Duration,
        wake: impl FnOnce(),
    ) -> Result<(), WaitError> {
        self.log_desk.begin_wait(index, stage, timeout)?;
        self.end_linger()?;
        match self.lone_storage() {
            Some(staging) if stage == Stage::Durable => self.storage.wait(staging, index, timeout),
            _ => {
                let may_write = self.config.by_hand.is_none();
                self.log_desk.wait(index, stage, timeout, may_write, wake)
            }
        }
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

    /// Counts a holder of the directory.
    pub(crate) fn holding(&self, holder: Holder) -> Option<Holding> {
        let holders = self.log_desk.log()?.disk().holders(Hook::ENGINE)?;
        Some(holders.hold(holder))
    }

    /// The phase of this engine's end.
    #[inline]
    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.progress.lifecycle
    }

    /// Whether calls that would change anything are refused.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.lifecycle().is_closing()
    }
}

impl<M: StateMachine> Released for Pipeline<M> {
    /// Feeds entries that wait for room in the in-flight ring: the workers may all be asleep.
    fn released(&self, first: u64) {
        fence(Ordering::SeqCst);
        self.progress.room.changed_after_fence(&self.progress);
        // The caller may hold locks of its own.
        self.signals.leave_tasks(self.log_desk.log().is_some());
        let limit = self.in_flight.limit_from(first);
        if self.progress.committed_mark() <= limit || self.has_failed() {
            return;
        }
        let mut appending = self.log_desk.appending();
        let fed = self.feed(&mut appending, Feed::Due);
        drop(appending);
        match fed {
            Ok(true) => self.signals.notify_workers(),
            Ok(false) => {}
            Err(poison) => drop(self.signals.fail(poison)),
        }
    }
}
