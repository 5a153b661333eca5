//! Tells the process that opened a directory from a child that `fork` made of it.
//!
//! A child has copies of everything, the descriptors and the lock too, and none of the threads. Whatever it wrote would
//! be written over the parent's.

use std::hint::black_box;

use memmap2::MmapMut;

use super::mmap;

/// The process that made the value.
#[derive(Debug)]
pub(super) struct Process {
    id: u32,
    /// A page that begins with 1, and is all zeros in a child; `None` where the system has none such.
    mark: Option<MmapMut>,
}

impl Process {
    /// The calling process.
    pub(super) fn this() -> Self {
        Self { id: std::process::id(), mark: mmap::wiped_on_fork() }
    }

    /// Whether the caller is in that process. Costs a load, where the system has such pages, and else a system call.
    pub(super) fn is_this(&self) -> bool {
        match &self.mark {
            // Nothing in this program clears it, so the compiler must not take it for what it was.
            Some(mark) => black_box(&**mark).first() == Some(&1),
            None => std::process::id() == self.id,
        }
    }
}
