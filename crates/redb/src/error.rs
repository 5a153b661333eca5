//! What redb says, in the words of the storage seam.

use std::io;
use std::path::PathBuf;

use sprag::machine::storage::StorageError;

/// A file could not be opened as a storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory that the file would be in is missing.
    #[error("{path}: the directory of the file does not exist; create it first")]
    NoParent {
        /// The file.
        path: PathBuf,
    },
    /// A directory is at the path.
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
    /// What was read is not what was written.
    #[error("{name} is damaged: {message}; restore it from a snapshot")]
    Damaged {
        /// The file.
        name: String,
        /// What redb said.
        message: String,
    },
    /// The disk refused; a full disk is among these.
    #[error("{what} {name} failed: {source}")]
    Io {
        /// What was being done, as "opening".
        what: &'static str,
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that redb said.
    #[error("opening {name} failed: {message}")]
    Failed {
        /// The file.
        name: String,
        /// What redb said.
        message: String,
    },
}

impl OpenError {
    /// Whether there is no room on the disk.
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

    /// What redb said while it opened the file of this name.
    pub(crate) fn of(name: &str, error: redb::Error) -> Self {
        let name = name.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::Locked { name }
            }
            redb::Error::UpgradeRequired(version) => Self::Version { name, version },
            // This is how redb says that the file does not start as a redb file does.
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
    /// The same, without the name of the file in errors of the system and of damage.
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { what, source, .. } => Self::Io { what, source },
            OpenError::Damaged { message, .. } => Self::Corrupt { message },
            other => Self::Failed { what: "opening", message: other.to_string() },
        }
    }
}

/// What redb said while `what` was being done. redb puts no key and no value into its messages.
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

/// For `map_err`: what any call of redb said while `what` was being done.
pub(crate) fn failed<E: Into<redb::Error>>(what: &'static str) -> impl Fn(E) -> StorageError {
    move |error| storage_error(what, error.into())
}
