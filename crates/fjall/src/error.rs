//! Errors of fjall, translated for the storage seam.

use std::any::Any;
use std::io;
use std::path::PathBuf;

use fjall::LsmError;
use sprag::machine::storage::StorageError;

/// Reason why a directory could not be opened as a storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of its range.
    #[error("{option}: {message}; set it within its range")]
    Config {
        /// Name of the option.
        option: &'static str,
        /// Description of the error.
        message: String,
    },
    /// The parent of the storage's directory is missing.
    #[error("{path}: the directory above it does not exist; create that first")]
    NoParent {
        /// The directory of the storage.
        path: PathBuf,
    },
    /// The path names a file.
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
        /// Name of a file or directory that fjall does not make.
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
    /// The bytes read differ from the bytes written.
    #[error("{path} is damaged: {message}; restore it from a snapshot")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Description of the damage.
        message: String,
    },
    /// The disk failed; a full disk is one such failure.
    #[error("{what} {path} failed: {source}")]
    Io {
        /// The operation that failed, for example "opening".
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error of fjall.
    #[error("opening {path} failed: {message}")]
    Failed {
        /// The directory.
        path: PathBuf,
        /// fjall's message.
        message: String,
    },
}

impl OpenError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source.kind()),
            _ => false,
        }
    }

    /// The error for fjall's `error` while it opened `path`.
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

    /// The error for a panic of fjall while it opened `path`. fjall panics over some kinds of
    /// damage.
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

/// The error for fjall's `error` during `what`. fjall puts no key and no value into its messages.
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

/// An argument for `map_err`: the error for a failure of fjall during `what`.
pub(crate) fn failed(what: &'static str) -> impl Fn(fjall::Error) -> StorageError {
    move |error| storage_error(what, error)
}
