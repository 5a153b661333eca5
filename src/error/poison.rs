//! The failure after which an engine goes on with nothing.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::LockLost;

/// The sticky first failure of an engine. Nothing is acknowledged after it, reads fail, and only opening the directory
/// anew gets out of it: that recovers everything that was acknowledged, and maybe more.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Poison {
    /// A write or sync of the log, of `META`, of `HARD`, or of the directory failed.
    #[error("{action} {file} failed ({}): {source}", describe_io(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file of the directory.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The directory is no longer this process's: it was moved or replaced, its lock file was, or the caller is in a child
    /// that `fork` made. Nothing was written.
    #[error(transparent)]
    LockLost(#[from] LockLost),
    /// A state machine panicked.
    #[error("the state machine panicked at the entry of index {index}")]
    Panic {
        /// The entry it was applying.
        index: u64,
    },
    /// A state machine said that it cannot go on.
    #[error("the state machine failed at the entry of index {index}: {message}")]
    Fatal {
        /// The entry it was applying.
        index: u64,
        /// What it said.
        message: String,
    },
    /// A snapshot was being installed and could not be made durable, or the one that the directory was opened from does
    /// not read back.
    #[error("a snapshot could not be used: {message}; open the directory again")]
    Snapshot {
        /// Why.
        message: String,
    },
    /// The engine met a state it has ruled out. This is a defect of sprag; please report it.
    #[error("an internal invariant does not hold: {0}")]
    Internal(&'static str),
}

impl Poison {
    /// Wraps an I/O error with what was being done to which file.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        match LockLost::of(&source) {
            Some(lost) => Self::LockLost(lost),
            None => Self::Io { action, file: file.into(), source: Arc::new(source) },
        }
    }

    /// Whether the disk (or a quota) was full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }
}

/// Whether an I/O error says that there is no space left.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn describe_io(error: &io::Error) -> &'static str {
    if is_disk_full(error) {
        "the disk is full; what was acknowledged is safe: make room and open the directory again"
    } else {
        "what was acknowledged is safe; open the directory again to go on from there"
    }
}
