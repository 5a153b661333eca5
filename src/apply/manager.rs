//! The apply manager: the public face of an engine.

// Batches of any length, and entries that the engine numbers.
pub(crate) mod retry;

pub(crate) mod propose;

// Calls that wait for room, and replies for async code.
mod waiting;

// The facets: the log, the log of a consensus engine, snapshots.
pub(crate) mod log;

pub(crate) mod consensus;

pub(crate) mod snapshots;

// Waits for one entry.
pub(crate) mod log_futures;
pub(crate) mod log_ids;

// The end.
mod closing;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::apply::engine::Engine;
use crate::apply::manager::closing::{Closing, flush};
use crate::apply::pipeline::direct::Out;
use crate::apply::pipeline::known::Submitted;
use crate::apply::pipeline::room::Attempt;
use crate::apply::pipeline::submit::Mode;
use crate::apply::stats::StatsReader;
use crate::apply::threads::Threads;
use crate::config::{ApplyConfig, Durability, workers_at_most};
use crate::contract::machine::StateMachine;
use crate::disk::holders::{Holder, Holding};
use crate::entry::{Entry, LogId, Reply};
use crate::error::{ApplyError, CloseError, OpenError, Poison, SubmitError, WaitError};
use crate::progress::waiter::Acknowledged;
use crate::progress::watermark::Stage;

/// An apply manager feeds a state machine from a log: in order, in batches, by worker threads. It
/// reports how far it is.
///
/// All calls but [`close`](ApplyManager::close) take `&self` and may be made from any thread;
/// [`shutdown`](ApplyManager::shutdown) closes by `&self`. Submissions are taken one at a time, in
/// index order. Entries are copied once, into the log's memory; no reference to the caller's bytes
/// is kept.
#[derive(Debug)]
pub struct ApplyManager<M: StateMachine> {
    pub(crate) engine: Arc<Engine<M>>,
    closing: Closing,
    pub(crate) stats_reader: StatsReader,
}

/// Most workers of an engine.
const WORKERS_MAX: usize = 64;

impl<M: StateMachine> ApplyManager<M> {
    /// Takes `machine` over, and starts the threads: the workers, and for a machine with our log
    /// the log writer and one that makes segments ready. A further thread compacts, and fills a
    /// store that was opened from a snapshot.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Config`] for an option out of its range, or a machine that is read-only
    /// or has a manager. Returns [`OpenError::Io`] if the system has no thread or memory left.
    pub fn new(machine: M, config: ApplyConfig) -> Result<Self, OpenError> {
        let refuse = |option, message: String| Err(OpenError::Config { option, message });
        if config.pipeline_depth == 0 || config.pipeline_depth > 1 << 28 {
            return refuse("pipeline_depth", "must be 1 to 2^28 entries".to_owned());
        }
        if config.batch_size == 0 {
            return refuse("batch_size", "must be at least 1".to_owned());
        }
        // At most one thread of a host works on an engine.
        let most = if config.host.is_some() { 1 } else { WORKERS_DEFAULT };
        let workers = config.worker_count.unwrap_or_else(|| workers_at_most(most)).get();
        if config.host.is_some() && workers > 1 {
            return refuse("worker_count", "must be 1 for an engine of a host".to_owned());
        }
        if workers > WORKERS_MAX {
            return refuse("worker_count", format!("must be at most {WORKERS_MAX}"));
        }
        let start_threads = config.by_hand.is_none();
        let engine = Arc::new(Engine::new(machine, config, workers)?);
        let threads = match start_threads {
            true => Threads::start(&engine)
                .map_err(|error| OpenError::io("starting", "a thread", error))?,
            false => Threads::new(),
        };
        Ok(Self::of(engine, threads))
    }

    /// Makes a manager without threads that is not stepped by hand: a thread that waits for the log
    /// writes it.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn without_threads(machine: M, config: ApplyConfig) -> Result<Self, OpenError> {
        let config = config.close_timeout(Duration::ZERO);
        let engine = Arc::new(Engine::new(machine, config, 1)?);
        Ok(Self::of(engine, Threads::new()))
    }

    fn of(engine: Arc<Engine<M>>, threads: Threads) -> Self {
        let holding = engine.pipeline().holding(Holder::OpenManager);
        let closing = Closing::new(threads, holding);
        let stats_reader = StatsReader::new(&engine);
        Self { engine, closing, stats_reader }
    }

    /// A cheap handle for reading the machine from any thread, also after the manager is closed.
    #[must_use]
    pub fn reader(&self) -> Reader<M> {
        let holding = self.engine.pipeline().holding(Holder::Reader);
        Reader { engine: Arc::clone(&self.engine), holding }
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &M {
        self.engine.pipeline().machine()
    }

    /// The last entry that is in the state, for every partition; `None` before the first. The call
    /// takes its turn with submissions: [`stats`](ApplyManager::stats) has the index alone, without
    /// a turn.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.engine.pipeline().applied_in(&self.engine.pipeline().log_desk().appending())
    }

    /// Submits committed entries and returns at once: they are then in the log's memory.
    ///
    /// Each index follows the one before it, across submissions too; the first of an empty log is 0
    /// or 1. A repeated call is safe: entries that the log already has, with the same log ids and
    /// payloads, change nothing. They are compared with the log (some 50 ns an entry), and other
    /// submissions continue meanwhile. [`Submitted`] tells how many entries were new.
    ///
    /// # Errors
    ///
    /// Returns [`SubmitError`]; all of `entries` are taken or, with an error, none. After
    /// [`SubmitError::Poisoned`] only a new opening tells. It is [`SubmitError::Conflict`] for an
    /// index that another entry has.
    pub fn apply_entries(&self, entries: &[Entry<'_>]) -> Result<Submitted, SubmitError> {
        let taken = self.engine.pipeline().submit(entries, Mode::Async)?;
        Ok(taken.map_or(Submitted::default(), |submission| submission.submitted))
    }

    /// Applies one entry and waits until it is acknowledged. Returns its reply.
    ///
    /// When nothing else is pending, the caller applies and writes the entry itself, without a hop
    /// to another thread.
    ///
    /// # Errors
    ///
    /// Returns [`ApplyError`]. After a timeout the entry is still in progress: it can be waited
    /// for, or submitted again.
    pub fn apply(&self, entry: &Entry<'_>, timeout: Duration) -> Result<Reply, ApplyError> {
        let entries = std::slice::from_ref(entry);
        let mut reply = Reply::Applied;
        self.apply_sync(entries, timeout, &mut Out::One(&mut reply))?;
        Ok(reply)
    }

    /// Applies entries as one submission and waits until all are acknowledged. `replies` is cleared
    /// and then holds one reply for each entry.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`apply`](ApplyManager::apply); `replies` is empty then.
    pub fn apply_entries_sync(
        &self,
        entries: &[Entry<'_>],
        timeout: Duration,
        replies: &mut Vec<Reply>,
    ) -> Result<(), ApplyError> {
        replies.clear();
        self.apply_sync(entries, timeout, &mut Out::Many(replies))
    }

    fn apply_sync(
        &self,
        entries: &[Entry<'_>],
        timeout: Duration,
        out: &mut Out<'_>,
    ) -> Result<(), ApplyError> {
        let pipeline = self.engine.pipeline();
        let submitted = pipeline.submit_for(entries, (Mode::Sync, Attempt::AtTheDoor), Some(out));
        let submitted =
            submitted.map_err(|source| ApplyError::Submit { source, submitted_through: None })?;
        let Some(submission) = submitted else { return Ok(()) };
        pipeline.wait_for_submission(&submission, timeout).map_err(|source| {
            out.clear();
            ApplyError::Wait { source, submitted_through: Some(submission.last) }
        })?;
        pipeline.replies(entries, &submission, out);
        Ok(())
    }

    /// Blocks until `index` is acknowledged: applied, and as safe as the durability mode requires.
    /// Any number of callers may wait for any index, submitted or not.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError`]; a timeout cancels nothing.
    pub fn wait_for_apply(&self, index: u64, timeout: Duration) -> Result<(), WaitError> {
        self.engine.pipeline().wait(index, Stage::Acknowledged, timeout)
    }

    /// Blocks until a named watermark covers `index`.
    ///
    /// A wait for [`Stage::Durable`] makes everything submitted so far durable, in every durability
    /// mode. Later submissions become durable as the mode says.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError`]; a timeout cancels nothing.
    pub fn wait_until(&self, index: u64, stage: Stage, timeout: Duration) -> Result<(), WaitError> {
        if stage == Stage::Durable
            && let Some(log) = self.engine.pipeline().log_desk().log()
            && log.durability() != Durability::Sync
        {
            self.engine.pipeline().log_desk().want_sync(log);
        }
        self.engine.pipeline().wait(index, stage, timeout)
    }

    /// A future that completes when `index` is acknowledged. It is bound to no runtime.
    ///
    /// The thread that moved the watermark calls the waker: a worker, the log writer, or a caller.
    /// It holds no lock then, and has unparked the threads that wait. A waker that blocks delays
    /// that thread, and nothing that does not need its work. A panic of a waker is counted, and
    /// harms no other waiter; see [`ApplyStats`](crate::ApplyStats).
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged(&self, index: u64) -> Acknowledged {
        Acknowledged::new(Arc::clone(self.engine.pipeline().progress()), index)
    }

    /// Blocks until everything submitted before the call is acknowledged and (if there is a log) on
    /// stable storage, in every durability mode.
    ///
    /// Appended and uncommitted entries become durable, and are not waited for to be applied.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError`]; a timeout cancels nothing.
    pub fn flush_pending(&self, timeout: Duration) -> Result<(), WaitError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        flush(self.engine.pipeline(), timeout)
    }

    /// Number of entries submitted and not yet acknowledged.
    #[must_use]
    pub fn pending_count(&self) -> u64 {
        self.engine.pipeline().progress().pending()
    }

    /// Percentage of pending entries in the pipeline's depth, 0.0 to 100.0.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn pipeline_utilization(&self) -> f64 {
        let depth = self.engine.pipeline().config().pipeline_depth as f64;
        (self.pending_count() as f64 * 100.0 / depth).min(100.0)
    }

    /// Whether a submission of one entry would be refused as full, by the pipeline's depth alone.
    #[must_use]
    pub fn is_pipeline_full(&self) -> bool {
        self.pending_count() >= self.engine.pipeline().config().pipeline_depth as u64
    }

    /// Most memory of a [`StateMachine`] and its engine in bytes, without keys and values, views,
    /// and snapshots being written.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.engine.pipeline().counters().memory().sum()
    }

    /// Closes the engine: stops taking entries, waits until everything submitted is acknowledged
    /// and durable, marks the log as closed, and ends the threads. Readers continue to read. Under
    /// [`CommitMode::ByCommit`](crate::CommitMode::ByCommit) committed entries are acknowledged;
    /// appended entries become durable, and stay in the log.
    ///
    /// # Errors
    ///
    /// Returns [`CloseError::Wait`] if that takes longer than `timeout`, or a thread is still
    /// inside of the state machine. The manager is given up all the same, and the next open
    /// recovers everything written. Returns [`CloseError::Poisoned`] if the engine failed before.
    pub fn close(self, timeout: Duration) -> Result<(), CloseError> {
        self.shutdown(timeout)
    }

    /// Closes as [`close`](ApplyManager::close) does, for a manager that others share, as in an
    /// `Arc`.
    ///
    /// The first call closes. Another call waits for the outcome of the first, and returns the
    /// same. Calls that would change anything return `Closed` from then on; reads continue. The
    /// directory stays locked until the manager and everything obtained from it are dropped. An
    /// open meanwhile names the holder ([`OpenError::Locked`](crate::error::OpenError::Locked)).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`close`](ApplyManager::close); [`CloseError::Wait`] also if another
    /// call takes longer than `timeout`.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), CloseError> {
        self.closing.close(&self.engine, timeout)
    }

    /// Whether no call has the turn to close.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn threads_are_free(&self) -> bool {
        self.closing.threads_are_free()
    }

    /// The first failure; `None` while the engine works.
    #[must_use]
    pub fn poison(&self) -> Option<Poison> {
        self.engine.pipeline().progress().poison.get().cloned()
    }
}

impl<M: StateMachine> Drop for ApplyManager<M> {
    fn drop(&mut self) {
        self.closing.end(&self.engine, &self.stats_reader);
    }
}

/// The default number of workers, on a machine with enough cores.
const WORKERS_DEFAULT: usize = 4;

/// A reader of an [`ApplyManager`]'s state machine. It is cheap to clone, and usable from any
/// thread.
///
/// It keeps the machine (and the lock of its directory, if there is one) alive after the manager is
/// gone.
#[derive(Debug)]
pub struct Reader<M> {
    engine: Arc<Engine<M>>,
    /// Counts the reader as a holder of the directory.
    holding: Option<Holding>,
}

impl<M> Clone for Reader<M> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), holding: self.holding.clone() }
    }
}

impl<M> Deref for Reader<M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.engine.pipeline().machine()
    }
}
