//! What fjall says, in the words of the storage seam.

use std::any::Any;
use std::io;
use std::path::PathBuf;

use fjall::LsmError;
use sprag::machine::storage::StorageError;

/// A directory could not be opened as a storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory that the storage's directory would be in is missing.
    #[error("{path}: the directory above it does not exist; create that first")]
    NoParent {
        /// The directory of the storage.
        path: PathBuf,
    },
    /// A file is at the path.
    #[error("{path} is a file; name a directory")]
    IsFile {
        /// The file.
        path: PathBuf,
    },
    /// Another storage has the directory open, in this process or in another one.
    #[error(
        "{path} is open elsewhere, in this process or in another one; close it there first, and \
         drop its snapshots"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something other than a fjall database.
    #[error("{path} has {found:?} in it, which is not fjall's; name another directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something in it that fjall does not make.
        found: String,
    },
    /// The directory is a fjall database of another program.
    #[error("{path} is a fjall database of another program: it has the keyspace {keyspace:?}")]
    ForeignTable {
        /// The directory.
        path: PathBuf,
        /// A keyspace that no state machine makes.
        keyspace: String,
    },
    /// The directory has a format that this version of fjall does not read.
    #[error(
        "{path} has version {version} of fjall's format; this version of fjall reads version 3"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// The version of the format.
        version: u8,
    },
    /// What was read is not what was written.
    #[error("{path} is damaged: {message}; restore it from a snapshot")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The disk refused; a full disk is among these.
    #[error("{what} {path} failed: {source}")]
    Io {
        /// What was being done, as "opening".
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that fjall said.
    #[error("opening {path} failed: {message}")]
    Failed {
        /// The directory.
        path: PathBuf,
        /// What fjall said.
        message: String,
    },
}

impl OpenError {
    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source.kind()),
            _ => false,
        }
    }

    /// What fjall said while it opened `path`.
    pub(crate) fn of(path: PathBuf, error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::Locked { path },
            fjall::Error::InvalidVersion(Some(version)) => {
                Self::Version { path, version: version.into() }
            }
            fjall::Error::InvalidVersion(None) => Self::Foreign { path, found: "version".into() },
            error => match storage_error("opening", error) {
                StorageError::Io { what, source } => Self::Io { what, path, source },
                StorageError::Corrupt { message } => Self::Damaged { path, message },
                other => Self::Failed { path, message: other.to_string() },
            },
        }
    }

    /// fjall panicked while it opened `path`. It does so over some kinds of damage.
    pub(crate) fn of_panic(path: PathBuf, panic: &(dyn Any + Send)) -> Self {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        let message = format!("fjall panicked: {}", message.unwrap_or("without a message"));
        Self::Damaged { path, message }
    }
}

pub(crate) fn is_full(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, FileTooLarge | QuotaExceeded | StorageFull)
}

/// What fjall said while `what` was being done. fjall puts no key and no value into its messages.
pub(crate) fn storage_error(what: &'static str, error: fjall::Error) -> StorageError {
    use fjall::Error;
    match error {
        Error::Io(source) | Error::Storage(LsmError::Io(source)) => {
            StorageError::Io { what, source }
        }
        Error::Storage(error) => StorageError::Corrupt { message: error.to_string() },
        Error::JournalRecovery(_)
        | Error::Decompress(_)
        | Error::InvalidTrailer
        | Error::InvalidTag(_)
        | Error::Unrecoverable => StorageError::Corrupt { message: error.to_string() },
        Error::Poisoned => StorageError::Failed {
            what,
            message: "an earlier write of fjall failed, perhaps one of its threads'; close the \
                      storage and open it again"
                .to_owned(),
        },
        other => StorageError::Failed { what, message: other.to_string() },
    }
}

/// For `map_err`: what any call of fjall said while `what` was being done.
pub(crate) fn failed(what: &'static str) -> impl Fn(fjall::Error) -> StorageError {
    move |error| storage_error(what, error)
}
