//! Errors of redb, translated for the storage seam.

use std::io;
use std::path::PathBuf;

use sprag::machine::storage::StorageError;

/// Reason why a file could not be opened as a storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory of the file is missing.
    #[error("{path}: the directory of the file does not exist; create it first")]
    NoParent {
        /// The file.
        path: PathBuf,
    },
    /// The path names a directory.
    #[error("{path} is a directory; name a file in it")]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another storage has the file open, in this process or in another one.
    #[error("{name} is open elsewhere, in this process or in another one; close it there first")]
    Locked {
        /// The file.
        name: String,
    },
    /// The file holds something other than a redb database.
    #[error("{name} is not a redb file; name another file, or move this one away")]
    NotRedb {
        /// The file.
        name: String,
    },
    /// The file is a redb database of another program.
    #[error("{name} is a redb file of another program: it has the table {table:?}")]
    ForeignTable {
        /// The file.
        name: String,
        /// A table that no state machine makes.
        table: String,
    },
    /// The file has a format that this version of redb does not read.
    #[error("{name} has version {version} of redb's file format, which must be upgraded first")]
    Version {
        /// The file.
        name: String,
        /// The version of the format.
        version: u8,
    },
    /// The bytes read differ from the bytes written.
    #[error("{name} is damaged: {message}; restore it from a snapshot")]
    Damaged {
        /// The file.
        name: String,
        /// redb's message.
        message: String,
    },
    /// The disk failed; a full disk is one such failure.
    #[error("{what} {name} failed: {source}")]
    Io {
        /// The operation that failed, for example "opening".
        what: &'static str,
        /// The file.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error of redb.
    #[error("opening {name} failed: {message}")]
    Failed {
        /// The file.
        name: String,
        /// redb's message.
        message: String,
    },
}

impl OpenError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), FileTooLarge | QuotaExceeded | StorageFull)
            }
            _ => false,
        }
    }

    /// The error for redb's `error` while it opened the file of this name.
    pub(crate) fn of(name: &str, error: redb::Error) -> Self {
        let name = name.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::Locked { name }
            }
            redb::Error::UpgradeRequired(version) => Self::Version { name, version },
            // redb reports a file without its first bytes in this way.
            redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                Self::NotRedb { name }
            }
            other => match storage_error("opening", other) {
                StorageError::Io { what, source } => Self::Io { what, name, source },
                StorageError::Corrupt { message } => Self::Damaged { name, message },
                other => Self::Failed { name, message: other.to_string() },
            },
        }
    }
}

impl From<OpenError> for StorageError {
    /// Converts the error, without the name of the file in errors of the system and of damage.
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { what, source, .. } => Self::Io { what, source },
            OpenError::Damaged { message, .. } => Self::Corrupt { message },
            other => Self::Failed { what: "opening", message: other.to_string() },
        }
    }
}

/// The error for redb's `error` during `what`. redb puts no key and no value into its messages.
pub(crate) fn storage_error(what: &'static str, error: redb::Error) -> StorageError {
    match error {
        redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            StorageError::Corrupt { message: "the file is shorter than it was".to_owned() }
        }
        redb::Error::Io(source) => StorageError::Io { what, source },
        redb::Error::Corrupted(message) => StorageError::Corrupt { message },
        redb::Error::PreviousIo => StorageError::Failed {
            what,
            message: "an earlier read or write of the file failed; open it again".to_owned(),
        },
        other => StorageError::Failed { what, message: other.to_string() },
    }
}

/// An argument for `map_err`: the error for a failure of redb during `what`.
pub(crate) fn failed<E: Into<redb::Error>>(what: &'static str) -> impl Fn(E) -> StorageError {
    move |error| storage_error(what, error.into())
}
