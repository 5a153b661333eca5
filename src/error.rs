//! Errors, one enum for each family of calls.
//!
//! Errors carry indexes, offsets and lengths, never keys or values. Every enum is
//! `#[non_exhaustive]`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

mod fatal;
pub(crate) mod snapshot;
mod storage;
mod submission;

pub use crate::codec::{DecodeError, EntryError};
use crate::entry::LogId;
pub use fatal::Fatal;
pub use snapshot::SnapshotError;
pub use storage::StorageError;
pub use submission::{ApplyError, Excess, ProposeError, SubmitError};

mod lock;
mod poison;

pub use lock::LockLost;
pub use poison::Poison;
pub(crate) use poison::{is_disk_full, is_out_of_descriptors, what_limit};

/// Reason why a data directory could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is missing, and the options do not create it.
    #[error("{path}: no such directory (create it by opening with create(true))")]
    Missing {
        /// The path given.
        path: String,
    },
    /// The directory is to be made, and its parent is missing. Opening makes one directory only,
    /// because the parent may be the place of a disk that is not mounted.
    #[error(
        "{path}: there is no directory {parent} to make it in (opening makes one directory only: \
         make the parent first, or mount its disk)"
    )]
    MissingParent {
        /// The path given.
        path: String,
        /// The directory that is missing.
        parent: String,
    },
    /// The path is something other than a directory.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The path given.
        path: String,
    },
    /// Another user owns the directory, and so could change its files. It can be opened read-only.
    #[error(
        "{path}: owned by user {owner}, not by user {user}; sprag writes only to directories of its own user, and reads any"
    )]
    ForeignOwner {
        /// The path given.
        path: String,
        /// User id of the owner.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// Other users may write to the directory. It can be opened read-only.
    #[error("{path}: others may write to it (mode {mode:03o}); run: chmod go-w on it")]
    WritableByOthers {
        /// The path given.
        path: String,
        /// Permission bits of the directory.
        mode: u32,
    },
    /// Another process has the directory open, even if it only reads it, or this process still has.
    /// `holder` says which of these it is. For this process it names the value to drop: a manager,
    /// or a [`Reader`](crate::Reader), [`Value`](crate::Value), [`View`](crate::View),
    /// [`Snapshot`](crate::Snapshot) or incoming snapshot that was kept after `close()`.
    #[error("{path}: already open: {holder}")]
    Locked {
        /// The path given.
        path: String,
        /// Description of the holder.
        holder: String,
    },
    /// The directory holds no log, but holds a file that is not sprag's and does not appear by
    /// itself. So another program uses it, and nothing is made in it. Beside a log, foreign files
    /// are ignored and reported ([`ForeignFiles`](crate::ForeignFiles)).
    #[error(
        "{path}: not a data directory: it has no log, and holds {file:?}, which is not a file of sprag; give a new directory or an empty one"
    )]
    ForeignFile {
        /// The path given.
        path: String,
        /// The file's name.
        file: String,
    },
    /// A name that the engine needs belongs to something that the engine did not make: a directory,
    /// a link, another program's file. Nothing is written until it is moved away. Reading works
    /// without it.
    #[error(
        "{path}: {file:?} has the name of a file of sprag and is none; move it out of the directory (reading works meanwhile)"
    )]
    NameTaken {
        /// The path given.
        path: String,
        /// The file's name.
        file: String,
    },
    /// The path lies in a data directory, which holds the engine's files only. Nothing was made.
    #[error(
        "{path}: lies in the data directory {directory}, which is for the engine's files only; choose a place outside of it"
    )]
    InsideDataDirectory {
        /// The path given.
        path: String,
        /// The data directory that it lies in.
        directory: String,
    },
    /// The directory or its lock file was moved or replaced while it was being opened. Nothing was
    /// written.
    #[error(transparent)]
    LockLost(#[from] LockLost),
    /// The directory already has a log or a state, which a restore must not replace.
    #[error(
        "{path}: has a log already; restore into a directory that does not exist yet, or is empty"
    )]
    NotEmpty {
        /// The path given.
        path: String,
    },
    /// A file has a format version that this release does not read.
    #[error("{file} has format version {found}; this release reads version {supported}")]
    UnknownVersion {
        /// The file.
        file: String,
        /// The version in the file.
        found: u16,
        /// The version this release reads.
        supported: u16,
    },
    /// The directory was made for the other commit mode.
    #[error("the directory commits {found}, not {asked}; open it the way it was created")]
    CommitMode {
        /// Mode that it was created with.
        found: &'static str,
        /// Mode that it was opened with.
        asked: &'static str,
    },
    /// The directory was made for the other rule of contiguity.
    #[error(
        "the indexes of the directory rise {found}, not {asked}; open it the way it was created"
    )]
    Contiguity {
        /// Rule that it was created with.
        found: &'static str,
        /// Rule that it was opened with.
        asked: &'static str,
    },
    /// The directory was made by another kind of state machine, and this one would make another
    /// state of the same log. Nothing was changed.
    ///
    /// The check only distinguishes key-value machines from machines of embedders. Two machines of
    /// embedders look alike: begin the bytes of [`snapshot`](crate::StateMachine::snapshot) with a
    /// name of their content, and a version.
    #[error(
        "snapshots of the directory's state machine hold {found}, and those of this one {asked}; open it with the machine \
         that it was made with"
    )]
    OtherState {
        /// Content of snapshots of the machine that made the directory.
        found: &'static str,
        /// Content of snapshots of the machine that tried to open it.
        asked: &'static str,
    },
    /// Bytes that were durable cannot be read back. Nothing was changed.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The log has a torn end, and the strict option refuses to cut it.
    #[error(
        "strict open: the log ends in {bytes} torn bytes at {file} offset {offset}; open without strict to cut them"
    )]
    Torn {
        /// The segment.
        file: String,
        /// Offset of the end of the last whole frame.
        offset: u64,
        /// Number of bytes that would be cut.
        bytes: u64,
    },
    /// A state machine panicked or failed while the log was replayed into it.
    #[error("replaying the log failed: {0}")]
    Replay(Poison),
    /// The state machine came with its own state, and the log has not committed the state's last
    /// entry, or has another entry in its place. Nothing was changed. Give the machine the log that
    /// its state comes from, or an empty machine.
    #[error("the state machine has applied {applied}, but the log has {}", match found {
        Some(found) => format!("{found} there: it is of another log"),
        None => "not committed that entry".to_owned(),
    })]
    OtherLog {
        /// The last entry that the machine reports as applied.
        applied: LogId,
        /// The log's entry at that index.
        found: Option<LogId>,
    },
    /// The state machine keeps its state in a storage that is behind the log's first entry: the
    /// entries between are in neither. Nothing was changed. Give the machine the storage that it
    /// was closed with, or a directory with a snapshot of another node
    /// ([`restore`](fn@crate::restore)).
    #[error(
        "the storage of the state machine has {}, and the log begins after entry {purged}: entries {} to {purged} are in \
         neither; open it with the storage that it was closed with, or restore a snapshot",
        match applied {
            Some(applied) => format!("entries up to {applied}"),
            None => "no entry".to_owned(),
        },
        applied.map_or(0, |applied| applied + 1)
    )]
    StorageBehind {
        /// The last entry that the storage has.
        applied: Option<u64>,
        /// The last entry that was purged from the log.
        purged: u64,
    },
    /// A snapshot that the log depends on cannot be used.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// The storage under a state machine failed.
    #[error("{storage}: {source}")]
    Storage {
        /// Name of the storage.
        storage: &'static str,
        /// The storage's error.
        source: StorageError,
    },
    /// An option is out of its range.
    #[error("{option}: {message}")]
    Config {
        /// Name of the option.
        option: &'static str,
        /// Description of the error.
        message: String,
    },
    /// The operating system failed an operation.
    #[error("{action} {file} failed{}: {source}", what_limit(source))]
    Io {
        /// The operation.
        action: &'static str,
        /// The file.
        file: String,
        /// The system's error.
        source: io::Error,
    },
}

impl OpenError {
    /// Wraps an I/O error with the operation and the file.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        match LockLost::of(&source) {
            Some(lost) => Self::LockLost(lost),
            None => Self::Io { action, file: file.into(), source },
        }
    }

    /// The error for an unreadable snapshot that the log depends on.
    pub(crate) fn of_snapshot(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io { action, file, source } => Self::Io { action, file, source },
            SnapshotError::UnknownVersion { file, found, supported } => {
                Self::UnknownVersion { file, found, supported }
            }
            SnapshotError::Corrupt { file, offset, what } => {
                Corrupt { file, offset, index: None, what }.into()
            }
            other => Self::Snapshot(other),
        }
    }

    /// The error for a failure that would poison a running engine, met before there is one.
    pub(crate) fn before_start(poison: Poison) -> Self {
        match poison {
            Poison::Io { action, file, source } => {
                let source = Arc::try_unwrap(source)
                    .unwrap_or_else(|shared| io::Error::new(shared.kind(), shared.to_string()));
                Self::Io { action, file, source }
            }
            Poison::LockLost(lost) => Self::LockLost(lost),
            other => Self::Replay(other),
        }
    }
}

/// Damage of bytes that were known to be durable.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{file} is corrupt at offset {offset}{}: {what}; it was durable before, so nothing was cut (`sprag verify` shows all damage)",
    index.map_or(String::new(), |index| format!(", index {index}"))
)]
pub struct Corrupt {
    /// The damaged file of the directory.
    pub file: String,
    /// Offset of the damaged part.
    pub offset: u64,
    /// The first index that cannot be read; `None` if it is unknown.
    pub index: Option<u64>,
    /// Description of the damage.
    pub what: &'static str,
}

/// Reason why a wait ended without success.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Time ran out. Nothing was cancelled: submitted entries are still in progress, and can be
    /// waited for again.
    #[error(
        "timed out after {waited:?} waiting for index {index} (reached {reached:?}, submitted {submitted:?}); \
         nothing was cancelled, what was submitted is still under way"
    )]
    Timeout {
        /// The index waited for.
        index: u64,
        /// Position of the awaited watermark.
        reached: Option<u64>,
        /// Last submitted index.
        submitted: Option<u64>,
        /// Time waited.
        waited: Duration,
    },
    /// The entry was removed by `truncate_after` before it was committed.
    #[error("index {index} was truncated before it was committed")]
    Truncated {
        /// The index waited for.
        index: u64,
    },
    /// Another entry has the index of the awaited log id, or the log skips the index. The awaited
    /// entry was truncated, or never came: submit its content again.
    #[error("the entry waited for at index {index} is not in the log: {}", instead(found.as_ref()))]
    Replaced {
        /// The index of the log id waited for.
        index: u64,
        /// The log's entry at that index; `None`: there is none, and none will come.
        found: Option<LogId>,
    },
    /// The log id is older than what the log remembers. A snapshot covers its index, with this
    /// entry or another one.
    #[error(
        "whether the entry waited for at index {index} was applied is no longer known: the log begins after it"
    )]
    NoLongerKnown {
        /// The index of the log id waited for.
        index: u64,
    },
    /// The machine keeps no log, so none of its entries becomes durable.
    #[error("index {index} never becomes durable: this state machine keeps no log")]
    NeverDurable {
        /// The index waited for.
        index: u64,
    },
    /// The manager was closed before the index was reached.
    #[error("the apply manager was closed before index {index} was reached")]
    Closed {
        /// The index waited for.
        index: u64,
    },
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}

fn instead(found: Option<&LogId>) -> String {
    found.map_or("the index is left out".to_owned(), |found| format!("the log has {found}"))
}

/// Reason why a call on the log failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Committed entries are never truncated.
    #[error("cannot truncate to {asked:?}: {committed} is committed")]
    BelowCommitted {
        /// The highest index that was to be kept.
        asked: Option<u64>,
        /// The committed index.
        committed: u64,
    },
    /// No durable snapshot covers the index, so it is only in the log.
    #[error("cannot purge through {index}: no durable snapshot covers it")]
    NotCovered {
        /// The highest index that was to be purged.
        index: u64,
    },
    /// A range reaches outside of the log.
    #[error("the log does not hold index {index} (it holds {first:?} to {last:?})")]
    NotInLog {
        /// The first index that is missing.
        index: u64,
        /// First index of the log.
        first: Option<u64>,
        /// Last index of the log.
        last: Option<u64>,
    },
    /// The hard state is longer than its slot.
    #[error("the hard state has {bytes} bytes, more than the limit of {limit}")]
    HardStateTooLarge {
        /// Length of the hard state in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The request did not reach the disk in time; it is still in progress.
    #[error("the log is slow: {0}")]
    Timeout(WaitError),
    /// The log's buffers are full; try again when an entry has become durable.
    #[error("the log is full right now; nothing was changed, try again")]
    Full,
    /// Writing the snapshot for a purge, or the purge itself, failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The machine keeps no log of this library.
    #[error("this state machine keeps no log")]
    NoLog,
    /// The log is not a consensus engine's: it was opened with another
    /// [`CommitMode`](crate::CommitMode) than `ByCommit`.
    #[error(
        "the log commits {mode}: a consensus engine opens it with CommitMode::ByCommit; otherwise \
         use manager.apply or propose"
    )]
    CommitMode {
        /// Name of the log's commit mode.
        mode: &'static str,
    },
    /// The directory was opened read-only.
    #[error("the directory was opened read-only")]
    ReadOnly,
    /// Stored bytes cannot be read back.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The operating system failed a read.
    #[error("reading {file} failed{}: {source}", what_limit(source))]
    Io {
        /// The file.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// The manager is closed.
    #[error("the apply manager is closed")]
    Closed,
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}

/// Reason why a read of the state failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The engine has failed; its state may be ahead of the durable entries.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
    /// A part of the snapshot that the directory was opened from cannot be read back.
    #[error("{0}")]
    Snapshot(Arc<SnapshotError>),
    /// The storage under the state machine failed.
    #[error("{storage}: {source}")]
    Storage {
        /// Name of the storage.
        storage: &'static str,
        /// The storage's error.
        source: Arc<StorageError>,
    },
    /// The operating system failed to read a segment that it cannot map.
    #[error("reading {file} failed{}: {source}", what_limit(source))]
    Io {
        /// The file.
        file: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The place of a value could not be resolved. This is a defect of sprag; please report it.
    #[error("a value's place is gone (segment {segment}, offset {offset})")]
    Misplaced {
        /// The segment of the place.
        segment: u32,
        /// The offset in it.
        offset: u32,
    },
}

impl ReadError {
    pub(crate) fn of_snapshot(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Poisoned(poison) => Self::Poisoned(poison),
            other => Self::Snapshot(Arc::new(other)),
        }
    }
}

/// Reason why there is no view.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// Only the built-in key-value machines have views, and [`view_read_only`] only serves a
    /// machine that was opened read-only.
    ///
    /// [`view_read_only`]: crate::PersistentStateMachine::view_read_only
    #[error(
        "no views this way: a manager views the built-in machines, view_read_only one opened to be read"
    )]
    Unsupported,
    /// A part of the snapshot that the directory was opened from cannot be read back.
    #[error("{0}")]
    Snapshot(Arc<SnapshotError>),
    /// The storage under the machine failed.
    #[error(transparent)]
    Read(ReadError),
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}

impl From<SnapshotError> for ViewError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Poisoned(poison) => Self::Poisoned(poison),
            SnapshotError::Read(error) => Self::Read(error),
            other => Self::Snapshot(Arc::new(other)),
        }
    }
}

/// Reason why a close was not clean.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Timeout: an entry was not acknowledged in time, or a thread had not ended. The threads end
    /// as soon as they can, and keep the directory locked until then. The next open recovers
    /// everything written.
    #[error("closing: {0}")]
    Wait(WaitError),
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}
