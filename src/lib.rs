//! sprag is the engine under a Raft node. It turns committed log entries into state: durable, in
//! log order, fast, and never backwards.
//!
//! An embedder makes a state machine and gives it to an [`ApplyManager`]. Callers propose commands
//! to the manager, or feed it the entries of a log, and wait for them. Readers read the machine
//! meanwhile.
//!
//! ```
//! use std::time::Duration;
//! use sprag::{ApplyConfig, ApplyManager, Command, PersistentConfig, PersistentStateMachine, Reply};
//!
//! # let directory = std::env::temp_dir().join(format!("sprag-landing-{}", std::process::id()));
//! let timeout = Duration::from_secs(10);
//! let machine = PersistentStateMachine::open(PersistentConfig::new(&directory))?;
//! let manager = ApplyManager::new(machine, ApplyConfig::new())?;
//!
//! // Each call returns when its command is in the state and on stable storage.
//! manager.propose(Command::put(b"color", b"green"), timeout)?;
//! let reply = manager.propose(Command::increment(b"visits", 1), timeout)?;
//! assert_eq!(reply, Reply::Counter(1));
//!
//! // Readers need no lock of the engine, and see every entry that was acknowledged before.
//! let reader = manager.reader();
//! assert_eq!(reader.get(b"color")?.as_deref(), Some(&b"green"[..]));
//! drop(reader);
//! manager.close(timeout)?;
//!
//! // The state is there again when the directory is opened again.
//! let machine = PersistentStateMachine::open(PersistentConfig::new(&directory))?;
//! assert_eq!(machine.get(b"visits")?.as_deref(), Some(&b"1"[..]));
//! # drop(machine);
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Memory or persistent
//!
//! | the state is | take | a crash leaves |
//! |---|---|---|
//! | keys and values, durable | [`PersistentStateMachine`]: keys in memory, values on disk | everything acknowledged |
//! | keys and values, and a consensus engine has another log | [`MemoryStateMachine`] | nothing: the log fills it again |
//! | keys and values, larger than memory | a [`StorageMachine`] over a [`Storage`] (fjall, redb, or yours) | what its storage has |
//! | your own type, durable | your [`StateMachine`] in a [`Journaled`] | everything acknowledged |
//! | your own type, in memory | your [`StateMachine`] | nothing |
//!
//! [`Durability::Sync`] is the default. The other modes say what a power cut may take.
//!
//! # Which call when
//!
//! | to | call |
//! |---|---|
//! | let the engine number a command, and get its reply | [`propose`](ApplyManager::propose), [`propose_async`](ApplyManager::propose_async) (a future) |
//! | feed numbered entries and wait for them | [`apply`](ApplyManager::apply), [`apply_entries_sync`](ApplyManager::apply_entries_sync), [`apply_batch`](ApplyManager::apply_batch), [`apply_with_retry`](ApplyManager::apply_with_retry) |
//! | feed numbered entries and go on | [`apply_entries`](ApplyManager::apply_entries) |
//! | feed numbered entries, and wait for room only | [`apply_entries_waiting`](ApplyManager::apply_entries_waiting), [`apply_entries_async`](ApplyManager::apply_entries_async) (a future) |
//! | do it from async code, and get the replies | [`apply_async`](ApplyManager::apply_async), [`apply_batch_async`](ApplyManager::apply_batch_async), [`propose_waiting`](ApplyManager::propose_waiting) |
//! | wait | [`wait_for_apply`](ApplyManager::wait_for_apply), [`wait_until`](ApplyManager::wait_until) a [`Stage`], [`acknowledged`](ApplyManager::acknowledged) (a future), [`flush_pending`](ApplyManager::flush_pending) |
//! | wait for one entry, and no other at its index | [`wait_for_log_id`](ApplyManager::wait_for_log_id), [`acknowledged_log_id`](ApplyManager::acknowledged_log_id) (a future) |
//! | read | [`ApplyManager::reader`], then `get`, `get_with`, `get_into`, `contains`, `len`; a [`Value`] |
//! | read many keys at one index | [`Snapshots::view`] |
//! | be the log of a consensus engine | [`CommitMode::ByCommit`] and [`ApplyManager::consensus`]: [`append`](ConsensusLog::append), [`append_waiting`](ConsensusLog::append_waiting), [`commit`](ConsensusLog::commit), [`commit_with_replies`](ConsensusLog::commit_with_replies) (a future), [`commit_here`](ConsensusLog::commit_here), [`truncate_after`](ConsensusLog::truncate_after) |
//! | read the log, save a vote | [`ApplyManager::log`]: [`state`](ManagerLog::state), [`entries`](ManagerLog::entries), [`durable`](ManagerLog::durable) (a future), [`save_hard_state`](ManagerLog::save_hard_state) |
//! | say what entries do | [`Entry`], [`Payload`], [`Command`], and the [`Reply`] to each |
//! | run many engines on few threads | a [`Host`], and [`ApplyConfig::host`] |
//! | choose options | [`ApplyConfig`], [`PersistentConfig`], [`MemoryConfig`], [`StorageConfig`], [`Profile`], [`RetryPolicy`], [`Limits`] |
//! | watch | [`ApplyManager::stats`], [`ApplyStats`], [`StatsReader`] (keeps nothing open), [`RecoveryReport`], [`ApplyManager::poison`] |
//! | shorten the log, back up, restore | [`ApplyManager::snapshots`]: [`compact`](Snapshots::compact), [`write_to`](Snapshots::write_to); [`View::snapshot_to`], [`restore`](fn@restore) |
//! | look into a directory from outside | [`inspect`]: it never changes a byte |
//! | give up what is damaged | [`repair`](fn@repair) |
//! | test | [`testing`], with its [feature](#features): a simulated disk, the engine stepped by hand, a [suite](testing::conformance) for state machines and [another](testing::storage) for storages |
//!
//! Calls that wait for entries take a timeout; a timeout cancels nothing. These wait for the disk
//! or for the workers and take none: [`entries`](ManagerLog::entries),
//! [`save_hard_state`](ManagerLog::save_hard_state), [`write`](Snapshots::write) and its kin,
//! [`compact`](Snapshots::compact), [`purge`](ManagerLog::purge) and [`view`](Snapshots::view). For
//! the log they wait a minute at most. No call panics, whatever it is given.
//!
//! # Errors
//!
//! Each family of calls has one enum in [`error`]. Errors carry indexes and lengths, never keys or
//! values.
//!
//! | enum | what the caller does |
//! |---|---|
//! | [`OpenError`](error::OpenError) | mends what it names; [`Corrupt`](error::OpenError::Corrupt) names file, offset and index of damage |
//! | [`SubmitError`](error::SubmitError) | on `Full` waits and tries again: nothing was taken; any other is final |
//! | [`ProposeError`](error::ProposeError) | on `Taken` waits for the log id: the entry is under way |
//! | [`WaitError`](error::WaitError) | on a timeout may wait again; on `Truncated` or `Replaced` the entry is gone |
//! | [`ReadError`](error::ReadError), [`ViewError`](error::ViewError), [`SnapshotError`](error::SnapshotError) | does without that read, view or snapshot; the engine goes on unless it is poisoned |
//! | [`LogError`](error::LogError) | as a consensus engine: sends a snapshot where entries are gone |
//! | [`CloseError`](error::CloseError) | waits again, or drops the manager |
//!
//! The first failed write or sync, or a panic in a state machine, [poisons](error::Poison) the
//! engine. It begins no step afterwards, and every call fails. A step that had begun may complete,
//! and what it completes is acknowledged. Opening the directory again recovers everything that was
//! acknowledged.
//!
//! # What it guarantees
//!
//! 1. **Order.** State and replies are those of applying the log one entry at a time, in index
//!    order. Workers, batch size and timing change nothing.
//! 2. **Contiguity.** A watermark at an index covers everything up to it. A gap is refused; an
//!    entry that the log has already is not applied twice.
//! 3. **Acknowledgement.** What was acknowledged under [`Durability::Sync`], the default, survives
//!    a power cut.
//! 4. **All or nothing.** Of a submission every entry is taken or none.
//! 5. **No silent corruption.** A torn end is cut and reported. Damage to what was durable is
//!    [refused](error::Corrupt), with file, offset and index.
//! 6. **Bounded memory.** The memory of an engine beside keys and values is known when the engine
//!    is made ([`ApplyManager::memory_bytes`]). Live views and unfinished snapshots take 56 to 64
//!    bytes a key more, and long keys.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `uring` | on | [`IoBackend::Uring`] on Linux. Without it, an engine that asks for a ring uses [`IoBackend::Pwrite`] and says so in [`ApplyStats::io_fallback`] |
//! | `serde` | off | `Serialize` for [`ApplyStats`], [`RecoveryReport`], [`RepairReport`], the reports of [`inspect`] and of snapshots, and their parts. The `sprag` command prints these |
//! | `testing` | off | [`testing`]: the simulated disk, the engine stepped by hand, the conformance suites, and hooks that act as a failing kernel. Enable it for dev-dependencies only. It may change in any version |
//!
//! # The pages
//!
//! | page | what it answers |
//! |---|---|
//! | [`docs::embedding`] | how to write a state machine or a storage, and how to run it |
//! | [`docs::ordering`] | in what order things happen, and what a wait or a read may rely on; locks |
//! | [`docs::durability`] | what survives which crash, and what is assumed of the disk |
//! | [`docs::operating`] | running a node: figures, damage, backup, sizing, every option, every metric |
//! | [`docs::architecture`] | how an entry travels, where each part is; the glossary |
//! | [`docs::format`] | every byte on disk |
//! | [`docs::testing`] | which test proves which promise, and how to run each kind of test |
//! | [`docs::benchmarks`] | what is measured, against what, and how |
//! | [`docs::unsafe_files`] | every file with unsafe code, and why it is sound |

// What only `testing` shows is public there alone.
#![cfg_attr(
    not(any(test, feature = "testing")),
    allow(unreachable_pub, reason = "the feature `testing` makes it reachable")
)]

mod apply;
mod bytes;
mod clock;
mod codec;
pub mod config;
mod contract;
pub mod disk;
#[cfg(all(doc, not(doctest)))]
pub mod docs;
pub mod entry;
pub mod error;
mod hook;
mod image;
pub mod inspect;
mod log;
pub mod machine;
mod numbers;
mod opening;
mod places;
mod poison;
mod progress;
mod ranges;
mod repair;
mod restore;
#[cfg(feature = "serde")]
mod serial;
pub mod snapshot;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod threads;
mod times;

pub use apply::desks::compaction::CompactionStats;
pub use apply::manager::consensus::ConsensusLog;
pub use apply::manager::log::{LogOptions, LogState, ManagerLog};
pub use apply::manager::log_futures::{CommittedReplies, Durable};
pub use apply::manager::log_ids::AcknowledgedLogId;
pub use apply::manager::propose::Proposal;
pub use apply::manager::snapshots::CompactionReport;
pub use apply::manager::snapshots::SnapshotReport;
pub use apply::manager::snapshots::Snapshots;
pub use apply::manager::{ApplyManager, Reader};
pub use apply::pipeline::known::Submitted;
pub use apply::pipeline::latency::LatencyStats;
pub use apply::stats::ApplyStats;
pub use apply::stats::StatsReader;
pub use codec::{BatchRef, CommandRef, Limits, PayloadRef, ValueRef};
pub use config::{
    ApplyConfig, CommitMode, CompactionPolicy, Contiguity, Durability, IoBackend, PersistentConfig,
    Profile, RetryPolicy,
};
pub use contract::machine::{StateMachine, StateMachineStats};
pub use contract::value::Value;
pub use contract::view::{View, ViewIter};
pub use entry::{
    BatchRejection, Command, Entry, LeaderTag, LogId, Note, Payload, Rejection, Reply,
};
pub use error::{Fatal, StorageError};
pub use log::figures::{DiskStats, LogWriterStats, MemoryStats};
pub use log::reader::LogEntries;
pub use log::recovery::files::ForeignFiles;
pub use log::{Cut, Journal, RecoveryReport};
pub use machine::storage::{
    ScanEach, Storage, StorageBatch, StorageConfig, StorageMachine, StorageSnapshot, StorageStats,
    Table,
};
pub use machine::{Journaled, MemoryConfig, MemoryStateMachine, PersistentStateMachine};
pub use progress::waiter::Acknowledged;
pub use progress::watermark::Stage;
pub use ranges::partition::{Footprint, Partition};
pub use ranges::range::{Entries, EntryRange, EntryRef, Replies};
pub use repair::{LostLog, RepairOptions, RepairReport, repair};
pub use restore::{RestoreReport, restore};
pub use snapshot::{Snapshot, SnapshotSink, SnapshotSource};
pub use threads::cores::{PinOutcome, PinnedThread};
pub use threads::host::{Host, HostConfig};
pub use times::{SizeHistogram, TimeHistogram, TimeStats};

/// The README, whose examples are compiled and run with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
