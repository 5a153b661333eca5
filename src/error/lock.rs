//! Events that end the hold on a directory before anything is written.

use std::io;

use thiserror::Error;

/// The reason why a directory no longer belongs to this process for writing. The engine checks this
/// before it opens for writing, and before each write of `META` and of `HARD`. Nothing is written
/// after it was detected. Acknowledged entries are in the directory that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LockLost {
    /// The file `LOCK` was removed or replaced.
    #[error(
        "LOCK was removed or replaced while it was held, so another process may have opened the directory; see that none has, and open it again"
    )]
    LockFile,
    /// The path names another directory than the one that was opened, or none.
    #[error(
        "the directory was moved, removed or replaced while it was open; what was acknowledged is in the one that was opened: move it back, or open it where it is"
    )]
    Directory,
    /// The caller is in a child that `fork` made of the process that opened the directory.
    #[error(
        "this process was made by fork from the one that opened the engine; such a child writes nothing: open the directory after the fork"
    )]
    Forked,
}

impl LockLost {
    /// The loss inside an I/O error, if there is one.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<LockLost> for io::Error {
    fn from(lost: LockLost) -> Self {
        Self::other(lost)
    }
}
