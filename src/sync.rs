//! What the apply side shares between threads and waits with, from one place, so that a model checker can stand in.
//!
//! Normally these are the names of `std` and `crossbeam` and nothing else. Under `cfg(loom)` and `cfg(shuttle)` they are
//! the checker's own, which decide about every interleaving; what the checkers do not have is built on what they have,
//! and promises no more than the real thing does. There time stands still: a timeout never fires, so that a lost
//! wake-up is a deadlock, which both report.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use crossbeam_queue::ArrayQueue;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, RwLock, RwLockWriteGuard},
    thread_local,
};

#[cfg(not(any(loom, shuttle)))]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

#[cfg(not(any(loom, shuttle)))]
pub(crate) mod thread {
    pub(crate) use std::thread::{
        Builder, JoinHandle, Thread, available_parallelism, current, park, park_timeout, sleep,
        yield_now,
    };
}

#[cfg(any(loom, shuttle))]
mod parking;
pub(crate) mod signal;
pub(crate) mod spin;
#[cfg(loom)]
mod under_loom;
#[cfg(loom)]
pub(crate) use under_loom::*;
#[cfg(shuttle)]
mod under_shuttle;
#[cfg(shuttle)]
pub(crate) use under_shuttle::*;

/// How often to look before sleeping. A checker tries sleeping at once too, and has no use for the looks before it.
pub(crate) const fn looks(normally: u32) -> u32 {
    if cfg!(any(loom, shuttle)) { 0 } else { normally }
}

/// What a model leaves out on purpose, to see that the checker finds what comes of it.
#[cfg(any(loom, shuttle))]
pub(crate) mod canary {
    use std::cell::Cell;
    use std::panic::Location;

    // The checkers run all of a model's threads on the thread of its test.
    std::thread_local! {
        static LEFT_OUT: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Puts back what was left out.
    #[cfg(test)]
    #[derive(Debug)]
    pub(crate) struct LeftOut;

    #[cfg(test)]
    impl Drop for LeftOut {
        fn drop(&mut self) {
            LEFT_OUT.set(None);
        }
    }

    /// Leaves out what is called from `file` (fences under loom, unparking under shuttle) until the result is dropped.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn leave_out(file: &'static str) -> LeftOut {
        LEFT_OUT.set(Some(file));
        LeftOut
    }

    /// Whether a call is left out.
    pub(super) fn is_left_out(caller: &Location<'_>) -> bool {
        LEFT_OUT.get().is_some_and(|file| caller.file().ends_with(file))
    }
}
