//! Reading a file outside of data directories: a snapshot that the user names.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use rustix::io::{pread, retry_on_intr};
use rustix::process::geteuid;

use super::{Mapping, WRITABLE_BY_OTHERS, mmap};

/// Maps or copies all of a file, read-only. Links are followed, because the user named the file. A
/// path that is no regular file (a FIFO, a directory, a device) is refused. A file that another
/// user could change, or cut, is copied and not mapped.
pub(crate) fn map(path: &Path) -> io::Result<Mapping> {
    // `NONBLOCK` has no effect on a regular file, and keeps a FIFO from blocking the open forever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = retry_on_intr(|| fs::openat(CWD, path, flags, Mode::empty()))?;
    let (bytes, may_change) = check(&file)?;
    if bytes == 0 || may_change {
        return copy(&file, bytes).map(|copy| Mapping::Copied(copy.into()));
    }
    mmap::map_read_only(&file, bytes).map(Mapping::Mapped)
}

/// The file's length, and whether another user could change it.
fn check(file: &OwnedFd) -> io::Result<(usize, bool)> {
    let stat = fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let is_foreign = stat.st_uid != 0 && stat.st_uid != geteuid().as_raw();
    let may_change = is_foreign || Mode::from_raw_mode(stat.st_mode).intersects(WRITABLE_BY_OTHERS);
    Ok((usize::try_from(stat.st_size).map_err(io::Error::other)?, may_change))
}

/// Copies the first `bytes` bytes. A file that was cut meanwhile is an error; its checksums detect
/// other changes.
fn copy(file: &OwnedFd, bytes: usize) -> io::Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    copy.resize(bytes, 0);
    let mut done = 0;
    while done < bytes {
        match retry_on_intr(|| pread(file, &mut copy[done..], done as u64))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(copy)
}
