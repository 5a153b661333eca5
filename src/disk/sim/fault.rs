//! What can be made to go wrong with one operation.

use std::io;

use rustix::io::Errno;

/// An error of the system, as the caller of the disk gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultError {
    /// The medium failed (`EIO`).
    Eio,
    /// No space is left (`ENOSPC`).
    Enospc,
}

impl From<FaultError> for io::Error {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::Eio => Errno::IO.into(),
            FaultError::Enospc => Errno::NOSPC.into(),
        }
    }
}

/// What happens to the operation it is set for ([`SimDisk::fail_at`](super::SimDisk::fail_at)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It fails and changes nothing. What a failed sync should have covered is left unsynced, and the next sync that
    /// succeeds covers it.
    Error(FaultError),
    /// The first `bytes` bytes of the write are written, then it fails with `EIO`. Any other operation fails with
    /// `EIO` and changes nothing.
    ShortWriteThenError {
        /// How many bytes are written.
        bytes: usize,
    },
    /// The power goes off before it: it does not happen, and from then on every call fails, until one of the power
    /// cuts of [`SimDisk`](super::SimDisk) decides what is left.
    PowerCut,
    /// The sync (of a file or of the directory) claims success and makes nothing durable. Nothing to any other
    /// operation.
    LostSync,
    /// The sync of a file fails with `EIO`, and what it should have covered is taken for clean: reads still show it,
    /// but no later sync makes it durable, unless it is written again. That is what Linux does. Any other operation
    /// fails with `EIO` and changes nothing.
    SyncErrorThenClean,
}
