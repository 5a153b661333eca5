//! Mapping a file that is in no data directory of ours: a snapshot that the user names.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::process::geteuid;

use super::{Mapping, WRITABLE_BY_OTHERS, mmap};

/// Maps all of a file, read-only. Links are followed: it is the user who named it. What is no regular file (a FIFO, a
/// directory, a device) is refused, and so is a file that somebody else could change under the mapping.
pub(crate) fn map(path: &Path) -> io::Result<Mapping> {
    // `NONBLOCK` means nothing to a regular file, and keeps a FIFO from blocking the open for good.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = retry_on_intr(|| fs::openat(CWD, path, flags, Mode::empty()))?;
    let bytes = check(&file)?;
    if bytes == 0 {
        return Ok(Mapping::Copied([].into()));
    }
    mmap::map_read_only(&file, bytes).map(Mapping::Mapped)
}

/// Its length.
fn check(file: &OwnedFd) -> io::Result<usize> {
    let refused = |kind, why| Err(io::Error::new(kind, why));
    let stat = fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refused(io::ErrorKind::InvalidInput, "not a regular file");
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        let why = "another user owns the file, and could change it while it is mapped";
        return refused(io::ErrorKind::PermissionDenied, why);
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(WRITABLE_BY_OTHERS) {
        let why = "others may write to the file; run: chmod go-w on it";
        return refused(io::ErrorKind::PermissionDenied, why);
    }
    usize::try_from(stat.st_size).map_err(io::Error::other)
}
