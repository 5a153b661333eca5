//! Primitives of sharing and waiting between threads, in one place, so that a model checker can
//! replace them.
//!
//! In a normal build these are the names of `std` and `crossbeam` and nothing else. Under
//! `cfg(loom)` and `cfg(shuttle)` they are the checker's types, which control every interleaving.
//! What a checker lacks is built from what it has, and promises no more than the real type. In a
//! model time stands still: a timeout never fires, so a lost wake-up is a deadlock, which both
//! checkers report.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use crossbeam_queue::ArrayQueue;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{OnceLock, RwLock, RwLockWriteGuard},
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

/// The mutex and the signal under [`Mutex`] and [`Condvar`].
#[cfg(not(any(loom, shuttle)))]
mod raw {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
}

mod mutex;
mod rank;
mod telling;
pub(crate) use mutex::{Condvar, Mutex, MutexGuard, Turn, TurnGuard};
pub(crate) use rank::{Rank, assert_none_held, set_aside};
pub(crate) use telling::{tell, tell_under_locks};

pub(crate) mod bell;
#[cfg(any(loom, shuttle))]
mod parking;
pub(crate) mod signal;
pub(crate) mod spin;
#[cfg(loom)]
mod under_loom;
pub(crate) mod zeroed;
#[cfg(loom)]
pub(crate) use under_loom::*;
#[cfg(shuttle)]
mod under_shuttle;
#[cfg(shuttle)]
pub(crate) use under_shuttle::*;

/// Number of looks before sleeping. A checker also tries sleeping at once, and does not need the
/// looks before it.
pub(crate) const fn looks(normally: u32) -> u32 {
    if cfg!(any(loom, shuttle)) { 0 } else { normally }
}

/// Parts that a model leaves out on purpose, to prove that the checker finds the consequences.
#[cfg(any(loom, shuttle))]
pub(crate) mod canary {
    use std::cell::Cell;
    use std::panic::Location;

    // The checkers run all of a model's threads on the test's thread.
    std::thread_local! {
        static LEFT_OUT: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Guard that restores the omitted part when it is dropped.
    #[cfg(test)]
    #[derive(Debug)]
    pub(crate) struct LeftOut;

    #[cfg(test)]
    impl Drop for LeftOut {
        fn drop(&mut self) {
            LEFT_OUT.set(None);
        }
    }

    /// Omits calls from `file` (fences under loom, unparking under shuttle) until the result is
    /// dropped.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn leave_out(file: &'static str) -> LeftOut {
        LEFT_OUT.set(Some(file));
        LeftOut
    }

    /// Whether a call is omitted.
    pub(super) fn is_left_out(caller: &Location<'_>) -> bool {
        LEFT_OUT.get().is_some_and(|file| caller.file().ends_with(file))
    }
}
