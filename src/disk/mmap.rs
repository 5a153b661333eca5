//! The one place that maps a file.

#![allow(unsafe_code, reason = "mapping a file; see docs/unsafe.md")]

use std::io;
use std::os::fd::OwnedFd;

use memmap2::{Mmap, MmapOptions};

/// Maps the first `bytes` bytes of a file read-only. The caller has checked that the file is as long, and holds the
/// directory's lock.
pub(super) fn map_read_only(file: &OwnedFd, bytes: usize) -> io::Result<Mmap> {
    // SAFETY: the bytes must not change, nor the file shrink, while the mapping lives. Nobody else's process does it:
    // the file is a regular one with a single link, in a directory that only this user writes to, and the directory's
    // lock, held here, is what every writer of this user takes first. This process does not either: `DiskFile` has no
    // way to shorten a file, and whoever calls `DiskFile::map` undertakes not to write those bytes meanwhile.
    unsafe { MmapOptions::new().len(bytes).map(file) }
}
