//! Faults that one operation can have.

use std::io;

use rustix::io::Errno;

/// An error of the system, as the caller of the disk receives it.
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

/// Fault of one operation ([`SimDisk::fail_at`](super::SimDisk::fail_at)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The operation fails and changes nothing. The items of a failed sync stay unsynced, and the
    /// next successful sync covers them.
    Error(FaultError),
    /// The first `bytes` bytes of the write are written, then it fails with `EIO`. Any other
    /// operation fails with `EIO` and changes nothing.
    ShortWriteThenError {
        /// Number of bytes that are written.
        bytes: usize,
    },
    /// The power fails before the operation, which does not happen. From then on every call fails,
    /// until a power cut of [`SimDisk`](super::SimDisk) decides what is left.
    PowerCut,
    /// The sync (of a file or of the directory) reports success and makes nothing durable. Other
    /// operations are not affected.
    LostSync,
    /// The sync of a file fails with `EIO`, and its pages count as clean. Reads still show them,
    /// but no later sync makes them durable, unless they are written again. Linux behaves in this
    /// way. Other operations fail with `EIO` and change nothing.
    SyncErrorThenClean,
}
