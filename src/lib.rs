//! sprag is the engine under a Raft node. It turns committed log entries into durable state, in log
//! order, fast, and never backwards.
//!
//! ```
//! use std::time::Duration;
//! use sprag::{ApplyConfig, ApplyManager, Command, Entry, MemoryConfig, MemoryStateMachine, Reply};
//!
//! let timeout = Duration::from_secs(10);
//! let machine = MemoryStateMachine::new(MemoryConfig::default())?;
//! let manager = ApplyManager::new(machine, ApplyConfig::new())?;
//!
//! // The engine numbers the commands; each is acknowledged when the call returns.
//! manager.propose(Command::put(b"color", b"green"), timeout)?;
//! let reply = manager.propose(Command::increment(b"visits", 1), timeout)?;
//! assert_eq!(reply, Reply::Counter(1));
//!
//! // A consensus engine numbers its entries itself. They are on their way when the call returns.
//! let taken = manager.apply_entries(&[Entry::increment(3, 1, b"visits", 1), Entry::noop(4, 1)])?;
//! assert_eq!(taken.new, 2);
//! manager.wait_for_apply(4, timeout)?;
//!
//! let reader = manager.reader();
//! assert_eq!(reader.get(b"color")?.as_deref(), Some(&b"green"[..]));
//! manager.close(timeout)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it guarantees
//!
//! 1. **Order.** State and replies equal those of applying the log one entry at a time, in index
//!    order. This holds for every number of workers, batch size and timing.
//! 2. **Contiguity.** A watermark at an index covers everything up to it. A gap is refused; an
//!    entry that the log already has is not applied twice.
//! 3. **Acknowledgement.** An entry acknowledged under [`Durability::Sync`], the default, survives
//!    a power cut. The other modes say what they may lose.
//! 4. **All or nothing.** A submission takes every entry or none. A full pipeline is an error that
//!    took nothing.
//! 5. **Failure.** The first failed write or sync, or a panic in a state machine,
//!    [poisons](error::Poison) the engine. It acknowledges nothing afterwards, and opening the
//!    directory again recovers everything acknowledged.
//! 6. **No silent corruption.** A torn end is cut and reported. Damage to bytes that were known to
//!    be durable is [refused](error::Corrupt), with file, offset and index. An open refuses it or,
//!    for the only snapshot, the first use of the damaged part
//!    ([`ReadError::Snapshot`](error::ReadError::Snapshot)).
//! 7. **Bounded memory.** The memory of an engine beside keys and values is known when it is made
//!    ([`ApplyManager::memory_bytes`]). Running out of it is back-pressure. Views and snapshots
//!    being written take 56 to 64 bytes a key more while they live, and long keys.
//!
//! # The map
//!
//! | to | there is |
//! |---|---|
//! | hold state | [`MemoryStateMachine`], [`PersistentStateMachine`], a [`StorageMachine`] over any [`Storage`], or your own [`StateMachine`], in memory only or, [`Journaled`], on disk |
//! | feed it, and let it number | [`propose`](ApplyManager::propose), [`propose_async`](ApplyManager::propose_async) (a future of the reply), [`next_index`](ApplyManager::next_index) |
//! | feed it from a log | [`ApplyManager`]: [`apply_entries`](ApplyManager::apply_entries), [`apply`](ApplyManager::apply), [`apply_entries_sync`](ApplyManager::apply_entries_sync), [`apply_batch`](ApplyManager::apply_batch), [`apply_with_retry`](ApplyManager::apply_with_retry) |
//! | wait | [`wait_for_apply`](ApplyManager::wait_for_apply), [`wait_until`](ApplyManager::wait_until) a [`Stage`], [`acknowledged`](ApplyManager::acknowledged) (a future), one entry: [`wait_for_log_id`](ApplyManager::wait_for_log_id), [`acknowledged_log_id`](ApplyManager::acknowledged_log_id); [`flush_pending`](ApplyManager::flush_pending) |
//! | read | [`ApplyManager::reader`], then `get`, `get_with`, `get_into`, `contains`, `len`; a [`Value`] |
//! | be the log of a consensus engine | [`CommitMode::ByCommit`], [`append`](ApplyManager::append), [`commit`](ApplyManager::commit), [`entries`](ApplyManager::entries), [`log_state`](ApplyManager::log_state), [`truncate_after`](ApplyManager::truncate_after), [`save_hard_state`](ApplyManager::save_hard_state) |
//! | say what entries do | [`Entry`], [`Payload`], [`Command`], and the [`Reply`] to each |
//! | choose | [`ApplyConfig`], [`PersistentConfig`], [`MemoryConfig`], [`RetryPolicy`], [`Limits`] |
//! | watch | [`ApplyManager::stats`], [`ApplyStats`], [`StatsReader`] (keeps nothing open), [`RecoveryReport`], [`ApplyManager::poison`] |
//! | look into a directory from outside | [`inspect`]: verify, what is in it, its entries; never changes a byte |
//! | handle failure | [`error`]: one enum for each family of calls; [`repair`](fn@repair) for a damaged directory |
//! | back up and restore | [`ApplyManager::snapshot_to`], [`PersistentStateMachine::view_read_only`] with [`View::snapshot_to`], [`restore`](fn@restore) |
//! | test | [`testing`]: a simulated disk, the engine stepped by hand, a [suite](testing::conformance) for state machines and [another](testing::storage) for storages |
//!
//! Calls that wait for entries take a timeout; a timeout cancels nothing. Some calls that wait for
//! the disk or for the workers take none: [`entries`](ApplyManager::entries),
//! [`save_hard_state`](ApplyManager::save_hard_state), [`snapshot`](ApplyManager::snapshot) and its
//! relatives, [`compact`](ApplyManager::compact), [`purge`](ApplyManager::purge) and
//! [`view`](ApplyManager::view). They wait for the log a minute at most. Errors carry indexes and
//! lengths, never keys or values. No call panics, whatever its arguments are.

mod apply;
mod clock;
mod codec;
pub mod config;
pub mod disk;
pub mod entry;
pub mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
mod log;
pub mod machine;
mod poison;
mod progress;
mod repair;
mod restore;
pub mod snapshot;
mod stats;
mod sync;
pub mod testing;
mod times;

pub use apply::compaction::CompactionStats;
pub use apply::cores::{PinOutcome, PinnedThread};
pub use apply::known::Submitted;
pub use apply::latency::LatencyStats;
pub use apply::log_calls::{LogOptions, LogState};
pub use apply::log_ids::AcknowledgedLogId;
pub use apply::manager::{ApplyManager, Reader};
pub use apply::propose::Proposal;
pub use apply::retry::RetryPolicy;
pub use apply::snapshots::{CompactionReport, SnapshotReport};
pub use codec::{BatchRef, CommandRef, Limits, PayloadRef, ValueRef};
pub use config::{
    ApplyConfig, CommitMode, CompactionPolicy, Contiguity, Durability, IoBackend, PersistentConfig,
    Profile,
};
pub use entry::{
    BatchRejection, Command, Entry, LeaderTag, LogId, Note, Payload, Rejection, Reply,
};
pub use log::figures::{DiskStats, LogWriterStats, MemoryStats};
pub use log::reader::LogEntries;
pub use log::recovery::files::ForeignFiles;
pub use log::{Cut, Journal, RecoveryReport};
pub use machine::storage::{
    ScanEach, Storage, StorageBatch, StorageConfig, StorageError, StorageMachine, StorageSnapshot,
    StorageStats, Table,
};
pub use machine::{
    Entries, EntryRef, Fatal, Footprint, Journaled, MemoryConfig, MemoryStateMachine, Partition,
    PersistentStateMachine, Range, Replies, StateMachine, StateMachineStats, Value, View, ViewIter,
};
pub use progress::waiter::Acknowledged;
pub use progress::watermark::Stage;
pub use repair::{LostLog, RepairOptions, RepairReport, repair};
pub use restore::{RestoreReport, restore};
pub use snapshot::{Snapshot, SnapshotSink, SnapshotSource};
pub use stats::{ApplyStats, StatsReader};
pub use times::{SizeHistogram, TimeHistogram, TimeStats};

/// The README, whose examples are compiled and run with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
