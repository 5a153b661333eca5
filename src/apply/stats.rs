//! The figures of an engine, in one typed struct. Reading it takes no lock on the path of an entry.

mod reader;

use std::time::Duration;

use crate::apply::desks::compaction::CompactionStats;
use crate::apply::engine::Engine;
use crate::apply::manager::ApplyManager;
use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::latency::LatencyStats;
use crate::config::Durability;
use crate::contract::machine::{StateMachine, StateMachineStats};
use crate::error::Poison;
use crate::log::RecoveryReport;
use crate::log::figures::{DiskStats, LogWriterStats, MemoryStats};
use crate::threads::cores::{PinOutcome, PinnedThread};
use crate::times::{TimeHistogram, TimeStats};

pub use crate::apply::stats::reader::StatsReader;

/// The result of [`ApplyManager::stats`]. Each figure is exact; all of them together are of nearly
/// the same moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ApplyStats {
    /// Entries applied by this manager. Entries of an installed snapshot do not count.
    pub total_applied: u64,
    /// Number of these whose reply was a rejection.
    pub total_failed: u64,
    /// Percentage of applied entries that were not rejected, 0.0 to 100.0; 100.0 before the first.
    pub success_rate: f64,
    /// Time from submission to acknowledgement, over every entry.
    pub latency: LatencyStats,
    /// Mean of that time, in milliseconds.
    pub average_latency_ms: f64,
    /// Number of entries submitted and not acknowledged.
    pub pending_count: u64,
    /// Number of entries submitted and not applied.
    pub pipeline_size: u64,
    /// Maximum of pending entries.
    pub pipeline_capacity: u64,
    /// Number of workers.
    pub worker_count: usize,
    /// Number of workers pinned to a core (which other threads may use too).
    pub workers_pinned: u64,
    /// The workers and the log writer, if they are to be pinned: the core of each, and the result.
    pub pinned_threads: Vec<PinnedThread>,
    /// Last index accepted.
    pub submitted: Option<u64>,
    /// Last index handed to the kernel, or committed in the machine's storage. Always `None` for a
    /// machine without a log and a storage.
    pub written: Option<u64>,
    /// Last index on stable storage, in the log or in the machine's storage. Always `None` for a
    /// machine without both.
    pub durable: Option<u64>,
    /// Last index that may be applied.
    pub committed: Option<u64>,
    /// Last index in the state, for every partition.
    pub applied: Option<u64>,
    /// Last index that may be reported as done.
    pub acknowledged: Option<u64>,
    /// Index of the newest durable snapshot. Always `None` for a machine without a log.
    pub snapshot: Option<u64>,
    /// Last index purged from the log. It is never above `snapshot`, or above what the machine's
    /// storage has durably.
    pub purged: Option<u64>,
    /// Longest call of a future's waker since the manager was made. The thread that moved the
    /// watermark makes the call: a worker, the log writer, or a caller.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "waker_longest_ns", serialize_with = "crate::serial::nanos")
    )]
    pub waker_longest: Duration,
    /// Number of waker calls that panicked. The waiter of such a waker may never look again; all
    /// others were woken.
    pub wakers_panicked: u64,
    /// The I/O back-end in use: `io_uring`, `pwrite`, `simulated`, or `memory` for a machine
    /// without a log. Under [`IoBackend::Auto`](crate::IoBackend::Auto) it may change.
    pub io_backend: &'static str,
    /// Reason why the back-end is not the one asked for; `None` if it is.
    pub io_fallback: Option<String>,
    /// Moment of an acknowledgement; `None` for a machine without a log and a storage.
    pub durability: Option<Durability>,
    /// Figures of the log writer; zeros for a machine without a log.
    pub log_writer: LogWriterStats,
    /// Histograms of times and sizes.
    pub times: TimeStats,
    /// Findings of opening the log.
    pub recovery: Option<RecoveryReport>,
    /// Figures of compactions.
    pub compaction: CompactionStats,
    /// Maximum of the engine's memory without keys and values, in bytes. It includes the room for
    /// replies of bytes. Views and snapshots being written come on top, with 56 to 64 bytes a key
    /// while they live.
    pub memory_bytes: usize,
    /// The same memory by its use.
    pub memory: MemoryStats,
    /// Disk space of the log and its snapshots; zeros for a machine without a log.
    pub disk: DiskStats,
    /// The first failure, after which the engine begins no step; `None` while it works.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::text"))]
    pub poison: Option<Poison>,
    /// Figures of the state machine; the engine counts the first three for any machine.
    pub machine: StateMachineStats,
}

impl<M: StateMachine> ApplyManager<M> {
    /// Every figure of the engine. The call is cheap, except for the machine's part (one short lock
    /// for each 2,048 keys).
    #[must_use]
    pub fn stats(&self) -> ApplyStats {
        self.engine.stats()
    }

    /// A handle for a monitor: it reads [`stats`](ApplyManager::stats) from any thread, and keeps
    /// nothing open.
    #[must_use]
    pub fn stats_reader(&self) -> StatsReader {
        self.stats_reader.clone()
    }

    /// Restarts the latency percentiles, so that the next [`stats`](ApplyManager::stats) cover only
    /// what comes after. Call it after a warm-up, for instance, or once for each interval of a
    /// monitor.
    pub fn reset_latency(&self) {
        self.engine.pipeline().latency().reset();
    }
}

impl<M: StateMachine> Engine<M> {
    /// See [`ApplyManager::stats`].
    #[allow(clippy::cast_precision_loss, reason = "percentages and milliseconds")]
    pub(crate) fn stats(&self) -> ApplyStats {
        let pipeline = self.pipeline();
        let progress = pipeline.progress();
        // Read in this order: a purged entry was in a snapshot before, and was applied before that.
        let purged =
            pipeline.log_desk().log().and_then(|log| log.base().last).map(|last| last.index);
        let snapshot = self.snapshots().newest_mark().last();
        let applied_mark = progress.applied_mark();
        let total_applied = pipeline.counters().applied(progress);
        let total_failed = pipeline.counters().rejected(total_applied);
        pipeline.latency().settle(progress.acknowledged_mark());
        let latency = pipeline.latency().stats();
        let pinned_threads = self.pinned().lock().clone();
        let submitted_mark = progress.submitted_mark();
        let io_fallback =
            pipeline.log_desk().log().and_then(|log| log.io_fallback()).map(str::to_owned);
        let (io_backend, log_writer, recovery) = match pipeline.log_desk().log() {
            Some(log) => (log.backend(), log.writer_stats(), Some(log.opened.recovery.clone())),
            None => ("memory", LogWriterStats::default(), None),
        };
        ApplyStats {
            total_applied,
            total_failed,
            success_rate: match total_applied {
                0 => 100.0,
                all => (all - total_failed) as f64 * 100.0 / all as f64,
            },
            latency,
            average_latency_ms: latency.mean_ns as f64 / 1e6,
            pending_count: progress.pending(),
            pipeline_size: submitted_mark.since(applied_mark.max(progress.base())),
            pipeline_capacity: pipeline.config().pipeline_depth as u64,
            worker_count: pipeline.workers().count(),
            workers_pinned: workers_pinned(&pinned_threads),
            pinned_threads,
            submitted: submitted_mark.last(),
            written: progress.written_mark().last(),
            durable: progress.durable_mark().last(),
            committed: progress.committed_mark().last(),
            applied: applied_mark.last(),
            acknowledged: progress.acknowledged_mark().last(),
            snapshot,
            purged,
            waker_longest: progress.waiters.longest(),
            wakers_panicked: progress.waiters.panicked(),
            io_backend,
            durability: pipeline.durability(),
            io_fallback,
            log_writer,
            times: times(pipeline),
            recovery,
            compaction: self.snapshots().compaction().stats(),
            memory_bytes: pipeline.counters().memory().sum(),
            memory: pipeline.counters().memory(),
            disk: DiskStats {
                snapshot_bytes: self.snapshots().newest_bytes(),
                ..pipeline.log_desk().log().map_or(DiskStats::default(), |log| log.disk_stats())
            },
            poison: progress.poison.get().cloned(),
            machine: StateMachineStats {
                applied_count: pipeline.counters().replayed() + total_applied,
                last_applied: applied_mark.last(),
                last_snapshot: snapshot,
                ..pipeline.machine().stats()
            },
        }
    }
}

/// Every histogram at this moment.
fn times<M: StateMachine>(pipeline: &Pipeline<M>) -> TimeStats {
    let mut times = TimeStats {
        apply_range: pipeline.workers().apply_times(),
        ..pipeline.latency().times.histograms()
    };
    if let Some(log) = pipeline.log_desk().log() {
        log.add_times(&mut times);
        times.recovery = TimeHistogram::of(log.opened_in());
    }
    times
}

fn workers_pinned(threads: &[PinnedThread]) -> u64 {
    let is_pinned = |thread: &&PinnedThread| {
        thread.thread.starts_with("sprag-apply-") && thread.outcome == PinOutcome::Pinned
    };
    threads.iter().filter(is_pinned).count() as u64
}
