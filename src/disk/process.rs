//! The distinction between the process that opened a directory and a child that `fork` made of it.
//!
//! A child has copies of everything, including the descriptors and the lock, and none of the
//! threads. Its writes would overwrite the parent's.

use std::hint::black_box;

use memmap2::MmapMut;

use super::mmap;

/// The process that made the value.
#[derive(Debug)]
pub(super) struct Process {
    id: u32,
    /// A page that begins with 1, and is all zeros in a child; `None` where the system has no such
    /// pages.
    mark: Option<MmapMut>,
}

impl Process {
    /// Records the calling process.
    pub(super) fn this() -> Self {
        Self { id: std::process::id(), mark: mmap::wiped_on_fork() }
    }

    /// Whether the caller is in that process. The call costs a load, or a system call on a system
    /// without such pages.
    pub(super) fn is_this(&self) -> bool {
        match &self.mark {
            // No code in this program clears the page, so the compiler must not assume its content.
            Some(mark) => black_box(&**mark).first() == Some(&1),
            None => std::process::id() == self.id,
        }
    }
}
