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

/// Maps the first `bytes` bytes of a file read-only. The caller has checked that the file is as long, and holds the
/// directory's lock; or the file is one that the user names, which nobody but its owner (this user, or root) may write
/// to, and which its owner undertakes not to change while it is open.
pub(super) fn map_read_only(file: &OwnedFd, bytes: usize) -> io::Result<MappedFile> {
    let permit = MappingPermit::take()?;
    // SAFETY: the bytes must not change, nor the file shrink, while the mapping lives. Nobody else's process does it:
    // the file is a regular one with a single link, in a directory that only this user writes to, and the directory's
    // lock, held here, is what every writer of this user takes first. This process does not either: `DiskFile` has no
    // way to shorten a file, and whoever calls `DiskFile::map` undertakes not to write those bytes meanwhile. Of a file
    // outside of any directory of ours it is the caller of `Snapshot::open` who undertakes that, as its docs say.
    let map = unsafe { MmapOptions::new().len(bytes).map(file) }?;
    Ok(MappedFile { map, _permit: permit })
}

/// A page that begins with 1, and that the kernel fills with zeros in a child that `fork` makes; `None` if it does not.
#[cfg(target_os = "linux")]
pub(super) fn wiped_on_fork() -> Option<MmapMut> {
    use rustix::mm::{Advice, madvise};

    let mut page = MmapMut::map_anon(1).ok()?;
    let (address, bytes) = (page.as_mut_ptr(), page.len());
    // SAFETY: the range is that of a private, anonymous mapping which this function owns. The advice changes nothing of
    // it in this process; a child gets a page of zeros in its place, which is as valid for bytes.
    unsafe { madvise(address.cast(), bytes, Advice::LinuxWipeOnFork) }.ok()?;
    *page.first_mut()? = 1;
    Some(page)
}

/// No other system has such pages.
#[cfg(not(target_os = "linux"))]
pub(super) fn wiped_on_fork() -> Option<MmapMut> {
    None
}
