//! What can go wrong with a snapshot.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

use crate::bytes::RkyvSettings;
use crate::error::{
    Corrupt, OpenError, Poison, ReadError, StorageError, ViewError, is_disk_full, what_limit,
};

/// Why a snapshot could not be taken, read, moved or restored.
///
/// A snapshot that cannot be written fails that call and nothing else: the log still has everything.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
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
    /// Bytes of the file are not what was written. Nothing was changed; take another snapshot, or fetch it again. Of a
    /// segment of the log, or of the snapshot before: see [`Snapshots::compact`](crate::Snapshots::compact).
    #[error("{file} is corrupt at offset {offset}: {what}")]
    Corrupt {
        /// Which file.
        file: String,
        /// Where the damaged part starts.
        offset: u64,
        /// What does not hold.
        what: &'static str,
    },
    /// It does not start as a snapshot does.
    #[error("{file} is not a snapshot of sprag")]
    NotASnapshot {
        /// Which file.
        file: String,
    },
    /// A later release has written it.
    #[error("{file} has snapshot format version {found}; this release reads version {supported}")]
    UnknownVersion {
        /// Which file.
        file: String,
        /// The version in it.
        found: u16,
        /// The version this release reads.
        supported: u16,
    },
    /// It was written by a build whose archives look different.
    #[error("{file} was written with rkyv settings {found}; this build has {ours}")]
    OtherSettings {
        /// Which file.
        file: String,
        /// The settings in it.
        found: RkyvSettings,
        /// This build's.
        ours: RkyvSettings,
    },
    /// The call is for the other kind: key-value entries are asked of a blob snapshot, or a blob of a key-value one.
    #[error("the snapshot is of another kind: it holds {holds}")]
    OtherKind {
        /// What it holds.
        holds: &'static str,
    },
    /// Keys must rise. The entry was not taken.
    #[error("entry {entry} does not have a higher key than the one before it")]
    OutOfOrder {
        /// How many entries were pushed before.
        entry: u64,
    },
    /// A key, value, or something beside the state is longer than what the format holds, or a key is empty.
    #[error("{what} has {bytes} bytes; the limit is {limit}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The most there can be; a key has at least 1.
        limit: u64,
    },
    /// A piece that starts after what has arrived. Send again from `expected`.
    #[error("a piece at offset {got} arrived where {expected} is next")]
    Gap {
        /// The offset that is next.
        expected: u64,
        /// The offset of the piece.
        got: u64,
    },
    /// A piece whose checksum does not fit its bytes, or that does not lie in its file. Send it again.
    #[error("the piece at offset {offset} was damaged on its way")]
    DamagedPiece {
        /// Its offset.
        offset: u64,
    },
    /// A piece of another snapshot than the one being received. Start anew to receive that one.
    #[error("a piece of another snapshot arrived")]
    OtherSnapshot,
    /// Not all pieces have arrived.
    #[error("only {received} bytes of the snapshot have arrived{}", of(*file_bytes))]
    Incomplete {
        /// How many bytes have.
        received: u64,
        /// How many there are; `None` if nothing arrived yet.
        file_bytes: Option<u64>,
    },
    /// It was received by another manager, into that one's directory. Nothing was changed in either.
    #[error("the snapshot was received into another directory")]
    OtherDirectory,
    /// A snapshot is being received already.
    #[error("a snapshot is being received already")]
    Busy,
    /// The state machine has no snapshots of this sort.
    #[error("this state machine does not support that: {what}")]
    Unsupported {
        /// What it does not support.
        what: &'static str,
    },
    /// A snapshot to be installed goes no further than what is committed here.
    #[error("the snapshot is of index {snapshot}, and {committed:?} is committed here already")]
    Stale {
        /// The entry that the snapshot is of.
        snapshot: u64,
        /// The last one committed.
        committed: Option<u64>,
    },
    /// No room in the log's buffers right now: nothing was changed, try again.
    #[error("the log's buffers are in use; nothing was changed, try again")]
    Full,
    /// The manager is closed.
    #[error("the apply manager is closed")]
    Closed,
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
    /// The storage under the state machine failed; of a snapshot that was to be loaded nothing is left in it.
    #[error("{storage}: {source}")]
    Storage {
        /// What the storage is called.
        storage: &'static str,
        /// What it said.
        source: StorageError,
    },
    /// A value could not be read.
    #[error(transparent)]
    Read(ReadError),
}

impl From<ReadError> for SnapshotError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Poisoned(poison) => Self::Poisoned(poison),
            other => Self::Read(other),
        }
    }
}

impl From<io::Error> for SnapshotError {
    /// What a [`SnapshotSink`](crate::snapshot::SnapshotSink) or a [`SnapshotSource`](crate::snapshot::SnapshotSource) says, for machines that
    /// pass it on with `?`.
    fn from(error: io::Error) -> Self {
        Self::io("writing or reading", "a snapshot", error)
    }
}

impl From<ViewError> for SnapshotError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Poisoned(poison) => Self::Poisoned(poison),
            ViewError::Read(error) => Self::Read(error),
            ViewError::Unsupported => Self::Unsupported { what: "views" },
            error @ ViewError::Snapshot(_) => Self::Io {
                action: "reading",
                file: "the snapshot before".to_owned(),
                source: io::Error::other(error),
            },
        }
    }
}

impl SnapshotError {
    /// Wraps an I/O error with what was being done to which file.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action, file: file.into(), source }
    }

    /// What opening would say of the log.
    pub(crate) fn of_log(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt(Corrupt { file, offset, what, .. }) => {
                Self::Corrupt { file, offset, what }
            }
            OpenError::Io { action, file, source } => Self::Io { action, file, source },
            other => Self::io("reading", "the log", io::Error::other(other)),
        }
    }

    /// Whether it is of the file's bytes, and comes back however often they are read: the disk's own error counts as that.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                let comes_back = [Errno::IO, Errno::BADMSG, Errno::UCLEAN];
                comes_back.iter().any(|no| source.raw_os_error() == Some(no.raw_os_error()))
                    || source.kind() == io::ErrorKind::UnexpectedEof
            }
            Self::Storage { source, .. } => matches!(source, StorageError::Corrupt { .. }),
            _ => true,
        }
    }

    /// Whether the disk (or a quota) was full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_disk_full(source),
            Self::Storage { source, .. } => source.is_disk_full(),
            Self::Read(ReadError::Storage { source, .. }) => source.is_disk_full(),
            _ => false,
        }
    }
}

fn of(file_bytes: Option<u64>) -> String {
    file_bytes.map_or(String::new(), |bytes| format!(" of {bytes}"))
}
