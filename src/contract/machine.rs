//! What an engine asks of a state machine.

use super::staging::Staging;
use super::view::Views;
use crate::codec::PayloadRef;
use crate::entry::LogId;
use crate::error::{Fatal, SnapshotError};
use crate::hook::Hook;
use crate::log::Journal;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};
use crate::snapshot::{SnapshotSink, SnapshotSource};

/// A deterministic state machine, fed by the log.
///
/// The engine calls [`apply`](StateMachine::apply) with each index range in order, once for every
/// partition. One thread at a time calls it for a partition: the worker, or a synchronous caller in
/// the worker's post. Two partitions may be at different ranges at the same time. An entry whose
/// [`footprint`](StateMachine::footprint) is [`Footprint::All`] is a barrier with a range of its
/// own. It is applied after all partitions have applied everything before it, and before any
/// partition continues.
pub trait StateMachine: Send + Sync + 'static {
    /// Returns the partition that an entry concerns. The result must be a function of the payload
    /// alone (and of a seed fixed at open).
    ///
    /// Default: [`Footprint::All`], which is always right, and applies one entry at a time.
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        let _ = payload;
        Footprint::All
    }

    /// Applies the entries of `range` that belong to `partition`, in order, and sets a reply for
    /// each.
    ///
    /// An entry without a reply gets [`Reply::Applied`](crate::Reply::Applied). A rejected command
    /// is a reply, not an error.
    ///
    /// # Errors
    ///
    /// Returns [`Fatal`] if the state cannot be trusted any more; it poisons the engine, as a panic
    /// does.
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal>;

    /// The last entry of a state that the machine brings with it. The manager, or the replay of
    /// [`Journaled`](crate::Journaled), continues after it. It must be exact while
    /// nothing is being applied.
    ///
    /// Default: `None`, for a machine that begins without state. The engine counts what it applies
    /// ([`ApplyManager::applied`](crate::ApplyManager::applied)). So only a machine with a state
    /// that is durable elsewhere, or was restored before, returns more.
    fn applied(&self) -> Option<LogId> {
        None
    }

    /// The most bytes of a [`Reply::Bytes`](crate::Reply::Bytes) by this machine, at most 1 MiB. It
    /// must always return the same number.
    ///
    /// Default: 0, none. An engine reserves room for this many bytes, rounded up to 8, beside each
    /// entry in flight. Entries in flight are twice the
    /// [`pipeline_depth`](crate::ApplyConfig::pipeline_depth), rounded up to a power of two. The
    /// room is taken once, when the engine is made, and counts in
    /// [`memory_bytes`](crate::ApplyManager::memory_bytes).
    fn reply_bytes_max(&self) -> usize {
        0
    }

    /// Figures of the state. The call must be cheap, because it is made while apply runs. The
    /// engine fills in `applied_count`, `last_applied` and `last_snapshot` in
    /// [`ApplyManager::stats`](crate::ApplyManager::stats).
    fn stats(&self) -> StateMachineStats {
        StateMachineStats::default()
    }

    /// Writes the whole state to `out`. It is called while nothing is applied. Equal states must
    /// write equal bytes.
    ///
    /// The bytes need neither their entry's log id nor checksums: the snapshot file has both.
    ///
    /// # Errors
    ///
    /// Returns the error of `out` as [`SnapshotError::Io`]; the default returns
    /// [`SnapshotError::Unsupported`].
    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let _ = out;
        Err(SnapshotError::Unsupported { what: "snapshots" })
    }

    /// Replaces the whole state by the one that [`snapshot`](StateMachine::snapshot) wrote. It
    /// reads and verifies everything first, and then swaps. It is called while nothing is applied,
    /// on a machine with or without state.
    ///
    /// Bytes that end early, continue after their end, or cannot be read must be an error. The
    /// bytes come from a file with verified checksums, so senseless bytes were written as such.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`], and leaves the state unchanged; the default returns
    /// [`SnapshotError::Unsupported`].
    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let _ = source;
        Err(SnapshotError::Unsupported { what: "snapshots" })
    }

    /// The newest membership of the consensus group in the state, and the log id of its entry.
    /// Snapshots contain it. An embedder's machine need not keep it:
    /// [`Journaled`](crate::Journaled) does.
    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        None
    }

    /// Notes that the state was replaced by one at this entry, with this membership.
    #[doc(hidden)]
    fn jumped_to(&self, _: Hook, log_id: Option<LogId>, membership: Option<(LogId, &[u8])>) {
        let _ = (log_id, membership);
    }

    /// Notes that the log has a membership at an entry that the state had before replay.
    #[doc(hidden)]
    fn had_membership(&self, _: Hook, log_id: LogId, membership: &[u8]) {
        let _ = (log_id, membership);
    }

    /// Whether applying is brief: the machine runs no code of an embedder, and copies nothing for a
    /// view. It waits for nothing but a page of its files. A thread that commits may apply its
    /// entries then.
    #[doc(hidden)]
    fn is_brief(&self, _: Hook) -> bool {
        false
    }

    /// The staged commits of a machine over a storage, which commits many entries at once.
    #[doc(hidden)]
    fn staging(&self, _: Hook) -> Option<&dyn Staging> {
        None
    }

    /// The views of a built-in machine.
    #[doc(hidden)]
    fn views(&self, _: Hook) -> Option<&dyn Views> {
        None
    }

    /// The journal into which the manager encodes entries. An embedder's machine keeps the default,
    /// a journal in memory.
    fn journal(&self) -> Journal {
        Journal::memory()
    }
}

/// Figures of a state machine; `None` where a machine does not have the figure.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StateMachineStats {
    /// Number of entries applied since the machine was opened, including replayed ones. The engine
    /// counts them.
    pub applied_count: u64,
    /// Index of the last entry applied; the engine counts it.
    pub last_applied: Option<u64>,
    /// Index of the newest snapshot; the engine counts it.
    pub last_snapshot: Option<u64>,
    /// Number of keys in the state.
    pub keys: u64,
    /// Number of chunks of the opened snapshot that are not in the store yet. Reads and writes also
    /// use these chunks, and `keys` does not count their keys. 0 means that the store is complete.
    pub unfilled_chunks: u64,
    /// Longest stop of a worker to copy a shard for a view, as processor time in nanoseconds.
    pub longest_copy_cpu_ns: u64,
    /// The same stop by the clock, including processor time of other threads.
    pub longest_copy_ns: u64,
    /// Upper limit of the processor time of 999 of 1,000 of these copies. The longest one also
    /// includes interrupts.
    pub copy_p999_cpu_ns: u64,
    /// The same limit by the clock.
    pub copy_p999_ns: u64,
    /// Memory of the machine beside the engine, in bytes; `None` if it is unknown. For the built-in
    /// machines: their tables, without long keys and values.
    pub memory_bytes: Option<u64>,
    /// Disk space of the machine beside the log, in bytes; `None` if it is unknown or zero.
    pub disk_bytes: Option<u64>,
    /// Number of entries in the read cache; `None` without a cache.
    pub cache_size: Option<u64>,
    /// Bytes of the read cache: keys, values, and 192 bytes for each entry; `None` without a cache.
    pub cache_bytes: Option<u64>,
    /// Number of gets that the read cache answered; `None` without a cache.
    pub cache_hits: Option<u64>,
    /// Number of gets that the read cache did not answer; `None` without a cache.
    pub cache_misses: Option<u64>,
    /// Percentage of hits among all gets, 0.0 to 100.0; `None` without a cache.
    pub cache_hit_rate: Option<f64>,
    /// Number of entries that the read cache evicted because of a limit; `None` without a cache.
    pub cache_evictions: Option<u64>,
}
