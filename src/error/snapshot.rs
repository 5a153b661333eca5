//! Errors of snapshots.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

use crate::bytes::RkyvSettings;
use crate::error::{
    Corrupt, OpenError, Poison, ReadError, StorageError, ViewError, is_disk_full, what_limit,
};

/// Reason why a snapshot could not be taken, read, moved or restored.
///
/// A failure to write a snapshot concerns that call only: the log still has everything.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
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
    /// Bytes of the file are not what was written. Nothing was changed; take another snapshot, or
    /// fetch it again. Of a segment of the log, or of the snapshot before: see
    /// [`Snapshots::compact`](crate::Snapshots::compact).
    #[error("{file} is corrupt at offset {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Offset of the damaged part.
        offset: u64,
        /// Description of the damage.
        what: &'static str,
    },
    /// The file does not start as a snapshot does.
    #[error("{file} is not a snapshot of sprag")]
    NotASnapshot {
        /// The file.
        file: String,
    },
    /// A later release has written the file.
    #[error("{file} has snapshot format version {found}; this release reads version {supported}")]
    UnknownVersion {
        /// The file.
        file: String,
        /// The version in the file.
        found: u16,
        /// The version that this release reads.
        supported: u16,
    },
    /// A build with another form of archives has written the file.
    #[error("{file} was written with rkyv settings {found}; this build has {ours}")]
    OtherSettings {
        /// The file.
        file: String,
        /// The settings in the file.
        found: RkyvSettings,
        /// The settings of this build.
        ours: RkyvSettings,
    },
    /// The call is for the other kind: key-value entries of a blob snapshot, or the blob of a
    /// key-value one.
    #[error("the snapshot is of another kind: it holds {holds}")]
    OtherKind {
        /// Content of the snapshot.
        holds: &'static str,
    },
    /// Keys must rise. The entry was not taken.
    #[error("entry {entry} does not have a higher key than the one before it")]
    OutOfOrder {
        /// Number of entries that were pushed before.
        entry: u64,
    },
    /// A key, a value, or a part beside the state is longer than the format allows, or a key is
    /// empty.
    #[error("{what} has {bytes} bytes; the limit is {limit}")]
    Length {
        /// Name of the part.
        what: &'static str,
        /// Length of the part in bytes.
        bytes: u64,
        /// The limit in bytes; a key has at least 1.
        limit: u64,
    },
    /// A piece starts after the bytes that have arrived. Send again from `expected`.
    #[error("a piece at offset {got} arrived where {expected} is next")]
    Gap {
        /// The offset that is next.
        expected: u64,
        /// The offset of the piece.
        got: u64,
    },
    /// The checksum of a piece does not fit its bytes, or the piece does not lie in its file. Send
    /// it again.
    #[error("the piece at offset {offset} was damaged on its way")]
    DamagedPiece {
        /// Offset of the piece.
        offset: u64,
    },
    /// A piece belongs to another snapshot than the one being received. Start anew to receive that
    /// one.
    #[error("a piece of another snapshot arrived")]
    OtherSnapshot,
    /// A snapshot of which some pieces have not arrived.
    #[error("only {received} bytes of the snapshot have arrived{}", of(*file_bytes))]
    Incomplete {
        /// Number of bytes that have arrived.
        received: u64,
        /// Length of the file; `None` if nothing has arrived.
        file_bytes: Option<u64>,
    },
    /// Another manager received the snapshot, into its own directory. Nothing was changed in either
    /// directory.
    #[error("the snapshot was received into another directory")]
    OtherDirectory,
    /// Another snapshot is already being received.
    #[error("a snapshot is being received already")]
    Busy,
    /// The state machine has no snapshots of this kind.
    #[error("this state machine does not support that: {what}")]
    Unsupported {
        /// Name of the missing ability.
        what: &'static str,
    },
    /// A snapshot to install goes no further than the committed entries.
    #[error("the snapshot is of index {snapshot}, and {committed:?} is committed here already")]
    Stale {
        /// Index of the snapshot's entry.
        snapshot: u64,
        /// The last committed index.
        committed: Option<u64>,
    },
    /// The log's buffers have no room at the moment: nothing was changed, try again.
    #[error("the log's buffers are in use; nothing was changed, try again")]
    Full,
    /// The manager is closed.
    #[error("the apply manager is closed")]
    Closed,
    /// The engine has failed.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
    /// The storage under the state machine failed; it has nothing of a snapshot that was to be
    /// loaded.
    #[error("{storage}: {source}")]
    Storage {
        /// Name of the storage.
        storage: &'static str,
        /// The storage's error.
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
    /// Wraps an error of a [`SnapshotSink`](crate::snapshot::SnapshotSink) or a
    /// [`SnapshotSource`](crate::snapshot::SnapshotSource), for machines that pass it on with `?`.
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
    /// Wraps an I/O error with the operation and the file.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action, file: file.into(), source }
    }

    /// The error for damage of the log, as opening would report it.
    pub(crate) fn of_log(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt(Corrupt { file, offset, what, .. }) => {
                Self::Corrupt { file, offset, what }
            }
            OpenError::Io { action, file, source } => Self::Io { action, file, source },
            other => Self::io("reading", "the log", io::Error::other(other)),
        }
    }

    /// Whether the error concerns the file's bytes and recurs at every read; the disk's own error
    /// counts as such.
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
