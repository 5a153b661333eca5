//! The one place that maps a file, and the page that tells a child of `fork`.

#![allow(unsafe_code, reason = "mapping a file; see docs/unsafe.md")]

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use memmap2::{Mmap, MmapMut, MmapOptions};

use super::limits::MappingPermit;

/// A file's bytes, mapped.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    _permit: MappingPermit,
}

impl Deref for MappedFile {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Maps the first `bytes` bytes of a file read-only. The caller has checked the file's length, and
/// holds the directory's lock. Or the user named the file. Then only its owner (this user, or root)
/// may write to it, and promises not to while it is open.
pub(super) fn map_read_only(file: &OwnedFd, bytes: usize) -> io::Result<MappedFile> {
    let permit = MappingPermit::take()?;
    // SAFETY: the bytes must not change, and the file must not shrink, while the mapping lives. No
    // other user's process does it: the file is a regular one with a single link, in a directory
    // that only this user writes to. Every writer of this user first takes the directory's lock,
    // which is held here. This process does not do it either: `DiskFile` cannot shorten a file, and
    // callers of `DiskFile::map` promise not to write those bytes meanwhile. For a file outside of
    // a data directory, the caller of `Snapshot::open` promises it, as its docs say.
    let map = unsafe { MmapOptions::new().len(bytes).map(file) }?;
    Ok(MappedFile { map, _permit: permit })
}

/// A page that begins with 1, and that the kernel fills with zeros in a child that `fork` makes;
/// `None` if the kernel cannot.
#[cfg(target_os = "linux")]
pub(super) fn wiped_on_fork() -> Option<MmapMut> {
    use rustix::mm::{Advice, madvise};

    // Without the page, the caller finds a fork by the process id.
    let mut page = MmapMut::map_anon(1).ok()?;
    let (address, bytes) = (page.as_mut_ptr(), page.len());
    // SAFETY: the range is a private, anonymous mapping that this function owns. The advice changes
    // nothing in this process. A child gets a page of zeros instead, which are also valid bytes.
    unsafe { madvise(address.cast(), bytes, Advice::LinuxWipeOnFork) }.ok()?;
    *page.first_mut()? = 1;
    Some(page)
}

/// Returns `None`: no other system has such pages.
#[cfg(not(target_os = "linux"))]
pub(super) fn wiped_on_fork() -> Option<MmapMut> {
    None
}
