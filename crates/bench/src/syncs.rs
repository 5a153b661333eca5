//! Counts the syncs of the whole process: the calls of every library that go through the C library.
//! sprag makes its system calls without it, and counts its own.
#![allow(unsafe_code, reason = "the C library's functions are replaced by ones that count")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Syncs so far.
pub(crate) fn count() -> u64 {
    // Relaxed: a tally; the work between two readings is joined before the second.
    SYNCS.load(Ordering::Relaxed)
}

/// Runs work whose syncs are for its caller to count: they are taken off the count again.
pub(crate) fn apart<R>(work: impl FnOnce() -> R) -> R {
    let before = count();
    let outcome = work();
    SYNCS.store(before, Ordering::Relaxed);
    outcome
}

fn counted(call: impl FnOnce() -> libc::c_long) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // The kernel's functions return 0 or -1 here, and `syscall` has set errno.
    c_int::try_from(call()).unwrap_or(-1)
}

/// Replaces the C library's `fsync`.
// SAFETY: name, arguments and outcome are those of the C library's own function. The linker finds
// the symbol of the executable first.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: the call takes an integer, and the kernel checks that it is a descriptor.
    counted(|| unsafe { libc::syscall(libc::SYS_fsync, fd) })
}

/// Replaces the C library's `fdatasync`.
// SAFETY: as for `fsync`.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: as for `fsync`.
    counted(|| unsafe { libc::syscall(libc::SYS_fdatasync, fd) })
}

/// Replaces the C library's `msync`.
// SAFETY: as for `fsync`.
#[unsafe(no_mangle)]
extern "C" fn msync(address: *mut c_void, length: usize, flags: c_int) -> c_int {
    // SAFETY: the kernel checks the range, and changes no memory.
    counted(|| unsafe { libc::syscall(libc::SYS_msync, address, length, flags) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    #[test]
    fn a_sync_through_the_standard_library_is_counted() {
        let file = tempfile::tempfile().unwrap();
        let before = super::count();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        assert!(super::count() >= before + 2);
    }
}
