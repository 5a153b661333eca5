//! What can go wrong with another storage.

use std::io;

/// Failure of a storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk failed; a full disk is one such failure.
    #[error("{what} failed: {source}")]
    Io {
        /// The operation that failed, for example "committing a batch".
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes read differ from the bytes written.
    #[error("the storage is damaged: {message}")]
    Corrupt {
        /// The storage's message. It contains no key and no value.
        message: String,
    },
    /// Any other error of the storage.
    #[error("{what} failed: {message}")]
    Failed {
        /// The operation that failed.
        what: &'static str,
        /// The storage's message. It contains no key and no value.
        message: String,
    },
}

impl StorageError {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = |kind: io::ErrorKind| StorageError::Io {
            what: "committing a batch",
            source: kind.into(),
        };
        assert!(full(io::ErrorKind::StorageFull).is_disk_full());
        assert!(!full(io::ErrorKind::PermissionDenied).is_disk_full());
        assert!(!StorageError::Corrupt { message: String::new() }.is_disk_full());
    }
}
