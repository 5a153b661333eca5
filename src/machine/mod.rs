//! State machines: what entries do.
//!
//! [`StateMachine`] is the seam between the apply manager and a state. The built-in machines
//! ([`MemoryStateMachine`], [`PersistentStateMachine`])
//! implement it over a sharded store; a user's own needs about 50 lines (see `examples/`).

pub(crate) mod capture;
mod cell;
mod effect;
mod fill;
mod journaled;
mod key_value;
mod memory;
mod number;
mod persistent;
#[doc(hidden)]
pub mod probe;
mod range;
mod reads;
pub mod storage;
mod store;
mod value;
pub(crate) mod view;

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::codec::PayloadRef;
use crate::entry::LogId;
use crate::error::{Corrupt, ReadError, SnapshotError};
use crate::log::Journal;
use crate::snapshot::{SnapshotSink, SnapshotSource};

#[doc(hidden)]
pub use crate::log::table::SegmentHold;
pub use journaled::Journaled;
pub use memory::{MemoryConfig, MemoryStateMachine};
pub use persistent::PersistentStateMachine;
pub use range::{Entries, EntryRef, Range, Replies};
pub(crate) use range::{Failed, apply_range, call_storage, sync_applied};
pub use value::Value;
pub use view::{View, ViewIter, Views};

/// Deterministic state fed by the log.
///
/// [`apply`](StateMachine::apply) is called with each index range in order, once for every partition, by one thread at
/// a time for each partition: its worker, or a synchronous caller in the worker's place. Two partitions may be at different ranges at the same time; an entry whose
/// [`footprint`](StateMachine::footprint) is [`Footprint::All`] is a barrier: it is a range of its own, applied when
/// all partitions have applied everything before it, and before any goes on.
pub trait StateMachine: Send + Sync + 'static {
    /// Which partition an entry concerns. It must be a function of the payload alone (and of a seed fixed at open).
    ///
    /// Default: [`Footprint::All`], which is always right, and runs one entry at a time.
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        let _ = payload;
        Footprint::All
    }

    /// Applies the entries of `range` that are of `partition`, in order, and sets a reply for each.
    ///
    /// An entry without a reply gets [`Reply::Applied`](crate::Reply::Applied). A rejected command is a reply, not an error.
    ///
    /// # Errors
    ///
    /// [`Fatal`] poisons the engine, as a panic does: the state cannot be trusted any more.
    fn apply(
        &self,
        range: &Range<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal>;

    /// The last entry of a state that the machine itself brings along: the manager, or the replay of
    /// [`Journaled`], goes on after it. It must be exact while nothing is being applied.
    ///
    /// Default: `None`, a machine that begins without state. The engine keeps count of what it applies
    /// ([`ApplyManager::applied`](crate::ApplyManager::applied)), so only a machine whose state is durable
    /// somewhere else, or was restored before the manager took it, says more.
    fn applied(&self) -> Option<LogId> {
        None
    }

    /// The most bytes of a [`Reply::Bytes`](crate::Reply::Bytes) of this machine, at most 1 MiB. Always
    /// the same number.
    ///
    /// Default: 0, none. An engine takes room for so many bytes, rounded up to 8, beside each entry in
    /// flight (twice the [`pipeline_depth`](crate::ApplyConfig::pipeline_depth), rounded up to a power of
    /// two), once, when it is made; [`memory_bytes`](crate::ApplyManager::memory_bytes) counts it.
    fn reply_bytes_max(&self) -> usize {
        0
    }

    /// Counts of what is in the state. Cheap; called while apply runs. What
    /// [`ApplyManager::stats`](crate::ApplyManager::stats) shows as `applied_count`, `last_applied` and
    /// `last_snapshot` is counted by the engine, and need not be filled in.
    fn stats(&self) -> StateMachineStats {
        StateMachineStats::default()
    }

    /// Writes the whole state to `out`. Called while nothing is applied. Equal states write equal bytes.
    ///
    /// Which entry it is of is not for these bytes to say, nor are checksums: the file they become has both.
    ///
    /// # Errors
    ///
    /// What `out` says, as [`SnapshotError::Io`]; the default, [`SnapshotError::Unsupported`].
    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let _ = out;
        Err(SnapshotError::Unsupported { what: "snapshots" })
    }

    /// Replaces the whole state by what [`snapshot`](StateMachine::snapshot) wrote: reads and verifies everything first,
    /// and then swaps. Called while nothing is applied, on a machine with or without state.
    ///
    /// Bytes that end early, go on after their end, or cannot be read to it are an error. What it is given comes out of
    /// a file whose checksums have been looked at, so bytes that make no sense were written so.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], and the state is what it was; the default, [`SnapshotError::Unsupported`].
    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let _ = source;
        Err(SnapshotError::Unsupported { what: "snapshots" })
    }

    /// The newest membership of the consensus group in the state, and the entry it came with; snapshots have it. A machine
    /// of the user's own need not keep it: [`Journaled`] does.
    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        None
    }

    /// The state was replaced by that at this entry, with this membership.
    #[doc(hidden)]
    fn jumped_to(&self, log_id: Option<LogId>, membership: Option<(LogId, &[u8])>) {
        let _ = (log_id, membership);
    }

    /// The log has a membership at an entry that the state had before it was replayed.
    #[doc(hidden)]
    fn had_membership(&self, log_id: LogId, membership: &[u8]) {
        let _ = (log_id, membership);
    }

    /// How what it applied is committed, many entries at once: of machines over a storage.
    #[doc(hidden)]
    fn staging(&self) -> Option<&dyn storage::Staging> {
        None
    }

    /// How views are taken of it: the built-in machines' own.
    #[doc(hidden)]
    fn views(&self) -> Option<&dyn Views> {
        None
    }

    /// What the manager encodes entries into. A machine of the user's own keeps the default, which is memory only.
    fn journal(&self) -> Journal {
        Journal::memory()
    }
}

/// Which partition an entry concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Footprint {
    /// The partition this hash falls into; entries with the same hash are of the same partition. Bits 49 to 56 decide,
    /// so it has to be a well-mixed hash: [`Footprint::key`] makes one.
    Key(u64),
    /// All of them: a barrier.
    All,
}

impl Footprint {
    /// The footprint of whatever `bytes` name: an account, a key.
    #[must_use]
    pub fn key(bytes: &[u8]) -> Self {
        // A fixed seed: a partition is not worth an attack, and the same on every node is easier to think about.
        let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
        hasher.write(bytes);
        Self::Key(hasher.finish())
    }
}

/// The number of equal parts a hash can fall into; a partition is a run of them, a store's shard lies in one.
pub(crate) const HASH_PARTS: usize = 256;

/// Which of the [`HASH_PARTS`] a hash falls into.
#[inline]
pub(crate) fn hash_part(hash: u64) -> usize {
    // The top seven bits are what the store's tables compare slots by, so its shards are chosen by those after them;
    // so are the parts, which makes every shard lie in exactly one.
    (hash << 7 >> 56) as usize
}

/// One worker's share of the state: `id` of `count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    id: usize,
    count: usize,
}

impl Partition {
    /// All of the state as one partition.
    pub const WHOLE: Self = Self { id: 0, count: 1 };

    pub(crate) fn new(id: usize, count: usize) -> Self {
        debug_assert!(id < count && count <= HASH_PARTS);
        Self { id, count }
    }

    /// Which partition this is, from 0.
    #[must_use]
    pub fn id(&self) -> usize {
        self.id
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether an entry with this footprint hash belongs here.
    #[inline]
    #[must_use]
    pub fn owns(&self, hash: u64) -> bool {
        self.count == 1 || hash_part(hash) * self.count / HASH_PARTS == self.id
    }
}

/// A state machine cannot go on; the engine is poisoned with the index it was at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    message: String,
    damage: Option<Corrupt>,
}

impl Fatal {
    /// With a message for the operator. Put no key or value into it.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), damage: None }
    }

    /// A value that cannot be read; of a chunk of a snapshot that does not read back it keeps the place.
    pub(crate) fn of_read(error: &ReadError) -> Self {
        let damage = match error {
            ReadError::Snapshot(error) => match &**error {
                SnapshotError::Corrupt { file, offset, what } => {
                    Some(Corrupt { file: file.clone(), offset: *offset, index: None, what })
                }
                _ => None,
            },
            _ => None,
        };
        Self { message: error.to_string(), damage }
    }

    /// The damaged place of a file, if that is the reason.
    pub(crate) fn into_damage(self) -> Option<Corrupt> {
        self.damage
    }
}

/// Counts of a state machine; `None` where a machine does not have the figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StateMachineStats {
    /// Entries applied since the machine was opened, those that were replayed included. The engine counts them.
    pub applied_count: u64,
    /// Index of the last entry applied; the engine's.
    pub last_applied: Option<u64>,
    /// Index of the newest snapshot; the engine's.
    pub last_snapshot: Option<u64>,
    /// Keys in the state.
    pub keys: u64,
    /// Chunks of the snapshot the machine was opened from that are not in the store yet: reads and writes look there too,
    /// and `keys` does not count what is in them. 0: complete.
    pub unfilled_chunks: u64,
    /// The most processor time for which a worker stopped to copy a shard for a view, in nanoseconds.
    pub longest_copy_cpu_ns: u64,
    /// The same by the clock, what others took of the processor meanwhile included.
    pub longest_copy_ns: u64,
    /// 999 of 1,000 of these copies took at most so much processor time. The longest has what interrupts took of it, too.
    pub copy_p999_cpu_ns: u64,
    /// The same by the clock.
    pub copy_p999_ns: u64,
    /// Memory that the machine takes beside the engine, in bytes; `None` if it does not say. Of the built-in machines: their
    /// tables, without long keys and values.
    pub memory_bytes: Option<u64>,
    /// What a machine takes on disk beside the log, in bytes; `None` if it does not say, or takes nothing.
    pub disk_bytes: Option<u64>,
    /// Entries in the read cache; `None` where there is none.
    pub cache_size: Option<u64>,
    /// Bytes of the read cache: keys, values, and 192 bytes for each entry; `None` where there is none.
    pub cache_bytes: Option<u64>,
    /// Gets that the read cache answered; `None` where there is none.
    pub cache_hits: Option<u64>,
    /// Gets that went past the read cache; `None` where there is none.
    pub cache_misses: Option<u64>,
    /// Hits of all gets, 0.0 to 100.0; `None` where there is no cache.
    pub cache_hit_rate: Option<f64>,
    /// Entries that a limit pushed out of the read cache; `None` where there is none.
    pub cache_evictions: Option<u64>,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.id, self.count)
    }
}
