//! Waking the engine's own threads, at the cost of one load when they are awake.

use std::time::Duration;

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::thread::{self, Thread};

/// A sleeping place for one thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Set by the thread before its last look for work. SeqCst fences on both sides order that look
    /// against the work being made visible.
    asleep: AtomicBool,
    /// Whether the thread sleeps for a time only; undefined while it is awake. Stored before
    /// `asleep`.
    timed: AtomicBool,
    thread: OnceLock<Thread>,
    /// Number of times that the thread was woken.
    #[cfg(all(test, not(any(loom, shuttle))))]
    wakes: std::sync::atomic::AtomicU64,
}

impl Signal {
    /// Registers the thread that will sleep here; called once by that thread.
    pub(crate) fn attach(&self) {
        let attached = self.thread.set(thread::current()).is_ok();
        debug_assert!(attached, "one thread sleeps at a signal");
    }

    /// Wakes the thread if it sleeps; the work it should find is already visible.
    #[inline]
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Wakes the thread if it sleeps without a time. A thread that sleeps for a time looks again
    /// soon enough.
    pub(crate) fn notify_of_time(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Acquire) && !self.timed.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Not a swap: a thread that finds it unset must leave nothing that could hide the next time
        // it is set.
        if self.asleep.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && let Some(thread) = self.thread.get()
        {
            #[cfg(all(test, not(any(loom, shuttle))))]
            self.wakes.fetch_add(1, Ordering::Relaxed);
            thread.unpark();
        }
    }

    /// Number of times that the thread was woken; returned once it sleeps.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn wakes_when_asleep(&self) -> Option<u64> {
        let asleep = self.asleep.load(Ordering::Acquire);
        asleep.then(|| self.wakes.load(Ordering::Relaxed))
    }

    /// Sleeps until notified (or for `longest`), unless `has_work` returns true. The call may
    /// return early.
    pub(crate) fn sleep(&self, longest: Option<Duration>, has_work: impl FnOnce() -> bool) {
        self.timed.store(longest.is_some(), Ordering::Relaxed);
        // Release: a thread that sees the flag and clears it also sees the thread that `attach`
        // left, and whether it sleeps for a time.
        self.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if !has_work() {
            match longest {
                Some(longest) => thread::park_timeout(longest),
                None => thread::park(),
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}
