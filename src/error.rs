//! What can go wrong, one enum per family of calls.
//!
//! Errors carry indexes, offsets and lengths, never keys or values. Every enum is `#[non_exhaustive]`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

mod submission;

pub use crate::codec::{DecodeError, EntryError};
use crate::entry::LogId;
pub use crate::machine::storage::StorageError;
pub use crate::snapshot::error::SnapshotError;
pub use submission::{ApplyError, ProposeError, SubmitError};

mod lock;
mod poison;

pub use lock::LockLost;
pub use poison::Poison;
pub(crate) use poison::{is_disk_full, is_out_of_descriptors, what_limit};

/// Why a data directory could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such directory, and creating it was not asked for.
    #[error("{path}: no such directory (create it by opening with create(true))")]
    Missing {
        /// The path given.
        path: String,
    },
    /// The path is something other than a directory.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The path given.
        path: String,
    },
    /// Another user owns the directory, and so could change what is in it: it is opened to be read only.
    #[error(
        "{path}: owned by user {owner}, not by user {user}; sprag writes only to directories of its own user, and reads any"
    )]
    ForeignOwner {
        /// The path given.
        path: String,
        /// Who owns it.
        owner: u32,
        /// Who this process runs as.
        user: u32,
    },
    /// Others may write to the directory: it is opened to be read only.
    #[error("{path}: others may write to it (mode {mode:03o}); run: chmod go-w on it")]
    WritableByOthers {
        /// The path given.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process has it open, also one that only reads it, or this process still has. `holder` says which of these it
    /// is, and what of this process to drop: a manager, or a [`Reader`](crate::Reader), [`Value`](crate::Value),
    /// [`View`](crate::View), [`Snapshot`](crate::Snapshot) or snapshot that is being received, kept after `close()`.
    #[error("{path}: already open: {holder}")]
    Locked {
        /// The path given.
        path: String,
        /// What holds it.
        holder: String,
    },
    /// The directory holds no log, and a file that is not sprag's and does not appear by itself. So it is in use for
    /// something else: nothing is made in it. Beside a log, foreign files are passed over and reported
    /// ([`ForeignFiles`](crate::ForeignFiles)).
    #[error(
        "{path}: not a data directory: it has no log, and holds {file:?}, which is not a file of sprag; give a new directory or an empty one"
    )]
    ForeignFile {
        /// The path given.
        path: String,
        /// The file's name.
        file: String,
    },
    /// A name that the engine needs is of something that the engine did not make: a directory, a link, another
    /// program's file. Nothing is written until it is moved away. Reading works without it.
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
    /// The directory was moved or replaced, or its lock file was, while it was being opened. Nothing was written.
    #[error(transparent)]
    LockLost(#[from] LockLost),
    /// There is a log or a state in the directory already, and nothing may take its place.
    #[error(
        "{path}: has a log already; restore into a directory that does not exist yet, or is empty"
    )]
    NotEmpty {
        /// The path given.
        path: String,
    },
    /// A file's format version is not one this release reads.
    #[error("{file} has format version {found}; this release reads version {supported}")]
    UnknownVersion {
        /// Which file.
        file: String,
        /// The version in it.
        found: u16,
        /// The version this release reads.
        supported: u16,
    },
    /// The directory was made for the other way of committing.
    #[error("the directory commits {found}, not {asked}; open it the way it was created")]
    CommitMode {
        /// How it was created.
        found: &'static str,
        /// How it was opened.
        asked: &'static str,
    },
    /// The directory was made for the other rule of which indexes follow each other.
    #[error(
        "the indexes of the directory rise {found}, not {asked}; open it the way it was created"
    )]
    Contiguity {
        /// How it was created.
        found: &'static str,
        /// How it was opened.
        asked: &'static str,
    },
    /// The directory was made by another kind of state machine: of the same log, this one would make another state.
    /// Nothing was changed.
    ///
    /// Only key-value machines and machines of one's own are told apart. Two of one's own are not: begin the bytes of
    /// [`snapshot`](crate::StateMachine::snapshot) with what they are of, and a version.
    #[error(
        "snapshots of the directory's state machine hold {found}, and those of this one {asked}; open it with the machine \
         that it was made with"
    )]
    OtherState {
        /// What snapshots of the machine hold that has made it.
        found: &'static str,
        /// What those of the machine hold that was to open it.
        asked: &'static str,
    },
    /// Bytes that were durable do not read back. Nothing was changed.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The log has a torn end, and the strict option refuses to cut it.
    #[error(
        "strict open: the log ends in {bytes} torn bytes at {file} offset {offset}; open without strict to cut them"
    )]
    Torn {
        /// Which segment.
        file: String,
        /// Where the last whole frame ends.
        offset: u64,
        /// How many bytes would be cut.
        bytes: u64,
    },
    /// A state machine panicked or failed while the log was replayed into it.
    #[error("replaying the log failed: {0}")]
    Replay(Poison),
    /// The state machine came with state of its own, and the log has not committed its last entry, or has another one
    /// in its place. Nothing was changed. Give it the log that state is of, or an empty machine.
    #[error("the state machine has applied {applied}, but the log has {}", match found {
        Some(found) => format!("{found} there: it is of another log"),
        None => "not committed that entry".to_owned(),
    })]
    OtherLog {
        /// The last entry the machine says it has applied.
        applied: LogId,
        /// What the log has at that index.
        found: Option<LogId>,
    },
    /// The state machine keeps its state in a storage, and the storage is behind the log: entries between the two are in
    /// neither. Nothing was changed. Give the machine the storage that it was closed with, or a directory with a snapshot of
    /// another node ([`restore`](fn@crate::restore)).
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
        /// The last entry that is gone from the log.
        purged: u64,
    },
    /// A snapshot that the log cannot do without cannot be used.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// The storage under a state machine failed.
    #[error("{storage}: {source}")]
    Storage {
        /// What the storage is called.
        storage: &'static str,
        /// What it said.
        source: StorageError,
    },
    /// An option is out of its range.
    #[error("{option}: {message}")]
    Config {
        /// Which option.
        option: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The operating system refused.
    #[error("{action} {file} failed{}: {source}", what_limit(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// Wraps an I/O error with what was being done to which file.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        match LockLost::of(&source) {
            Some(lost) => Self::LockLost(lost),
            None => Self::Io { action, file: file.into(), source },
        }
    }

    /// A snapshot that the log cannot do without does not read back.
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

    /// A failure that would poison a running engine, met before there is one.
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

/// Damage to bytes that were known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{file} is corrupt at offset {offset}{}: {what}; it was durable before, so nothing was cut (`sprag verify` shows all damage)",
    index.map_or(String::new(), |index| format!(", index {index}"))
)]
pub struct Corrupt {
    /// Which file of the directory.
    pub file: String,
    /// Where the damaged part starts.
    pub offset: u64,
    /// The first index that cannot be read, if it is known.
    pub index: Option<u64>,
    /// What does not hold.
    pub what: &'static str,
}

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Time ran out. Nothing was cancelled: what was submitted is still under way, and may be waited for again.
    #[error(
        "timed out after {waited:?} waiting for index {index} (reached {reached:?}, submitted {submitted:?}); \
         nothing was cancelled, what was submitted is still under way"
    )]
    Timeout {
        /// The index waited for.
        index: u64,
        /// How far the awaited watermark was.
        reached: Option<u64>,
        /// How far submissions were.
        submitted: Option<u64>,
        /// For how long.
        waited: Duration,
    },
    /// The entry was removed by `truncate_after` before it was committed.
    #[error("index {index} was truncated before it was committed")]
    Truncated {
        /// The index waited for.
        index: u64,
    },
    /// Another entry has the index of the log id waited for, or the log passes over the index. The entry waited for was
    /// truncated, or never came: submit what it asked for again.
    #[error("the entry waited for at index {index} is not in the log: {}", instead(found.as_ref()))]
    Replaced {
        /// The index of the log id waited for.
        index: u64,
        /// What the log has at its index; `None`: no entry, and none will come.
        found: Option<LogId>,
    },
    /// The log id is from before what the log remembers: a snapshot covers its index, and with it this entry or another one.
    #[error(
        "whether the entry waited for at index {index} was applied is no longer known: the log begins after it"
    )]
    NoLongerKnown {
        /// The index of the log id waited for.
        index: u64,
    },
    /// The machine keeps no log, so nothing of it becomes durable.
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

/// Why a call on the log failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Committed entries are never truncated.
    #[error("cannot truncate to {asked:?}: {committed} is committed")]
    BelowCommitted {
        /// The index to keep, at most.
        asked: Option<u64>,
        /// What is committed.
        committed: u64,
    },
    /// No durable snapshot covers the index, so the log is the only place it is in.
    #[error("cannot purge through {index}: no durable snapshot covers it")]
    NotCovered {
        /// The index asked for.
        index: u64,
    },
    /// A range reaches outside of what the log holds.
    #[error("the log does not hold index {index} (it holds {first:?} to {last:?})")]
    NotInLog {
        /// The first index that is not there.
        index: u64,
        /// First index of the log.
        first: Option<u64>,
        /// Last index of the log.
        last: Option<u64>,
    },
    /// A hard state longer than its slot.
    #[error("the hard state has {bytes} bytes, more than the limit of {limit}")]
    HardStateTooLarge {
        /// Its length.
        bytes: usize,
        /// The most there can be.
        limit: usize,
    },
    /// What was asked for did not reach the disk in time; it is still under way.
    #[error("the log is slow: {0}")]
    Timeout(WaitError),
    /// The log's buffers are full; try again when something is durable.
    #[error("the log is full right now; nothing was changed, try again")]
    Full,
    /// The snapshot that covers what is to be given up, or giving it up, failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The machine keeps no log of ours.
    #[error("this state machine keeps no log")]
    NoLog,
    /// The directory was opened read-only.
    #[error("the directory was opened read-only")]
    ReadOnly,
    /// Stored bytes do not read back.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The operating system refused a read.
    #[error("reading {file} failed{}: {source}", what_limit(source))]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The manager is closed.
    #[error("the apply manager is closed")]
    Closed,
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}

/// Why a read of the state failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The engine has failed; what it holds may be ahead of what is durable.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
    /// A part of the snapshot that the directory was opened from does not read back.
    #[error("{0}")]
    Snapshot(Arc<SnapshotError>),
    /// The storage under the state machine failed.
    #[error("{storage}: {source}")]
    Storage {
        /// What the storage is called.
        storage: &'static str,
        /// What it said.
        source: Arc<StorageError>,
    },
    /// The operating system refused to read a segment that it gives no mapping for.
    #[error("reading {file} failed{}: {source}", what_limit(source))]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A value's place could not be resolved. This is a defect of sprag; please report it.
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

/// Why there is no view.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// Only the built-in key-value machines can be viewed, and by [`view_read_only`] only one that was opened so.
    ///
    /// [`view_read_only`]: crate::PersistentStateMachine::view_read_only
    #[error(
        "no views this way: a manager views the built-in machines, view_read_only one opened to be read"
    )]
    Unsupported,
    /// A part of the snapshot that the directory was opened from does not read back.
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

/// Why a close was not clean.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Not everything was acknowledged in time, or a thread had not ended. The threads end as soon as they can, and keep the directory locked until
    /// then; the next open recovers what had been written.
    #[error("closing: {0}")]
    Wait(WaitError),
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}
