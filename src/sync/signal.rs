//! Waking the engine's own threads, at the cost of one load when they are awake.

use std::time::Duration;

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::thread::{self, Thread};

/// One sleeping place, for one thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Set by the thread before it looks for work a last time. SeqCst fences on both sides order that look against the
    /// work being made visible.
    asleep: AtomicBool,
    /// Whether it sleeps for a time only; of no meaning while it is awake. Stored before `asleep`.
    timed: AtomicBool,
    thread: OnceLock<Thread>,
    /// How often the thread was woken.
    #[cfg(all(test, not(any(loom, shuttle))))]
    wakes: std::sync::atomic::AtomicU64,
}

impl Signal {
    /// Called once by the thread that will sleep here.
    pub(crate) fn attach(&self) {
        let attached = self.thread.set(thread::current()).is_ok();
        debug_assert!(attached, "one thread sleeps at a signal");
    }

    /// Wakes the thread if it sleeps; whatever it should find is visible already.
    #[inline]
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Wakes the thread if it sleeps for good. If it sleeps for a time, it comes to see what there is soon enough.
    pub(crate) fn notify_of_time(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Acquire) && !self.timed.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Not a swap: whoever finds it unset leaves nothing that could hide the next time it is set.
        if self.asleep.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && let Some(thread) = self.thread.get()
        {
            #[cfg(all(test, not(any(loom, shuttle))))]
            self.wakes.fetch_add(1, Ordering::Relaxed);
            thread.unpark();
        }
    }

    /// How often the thread was woken, once it sleeps.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn wakes_when_asleep(&self) -> Option<u64> {
        let asleep = self.asleep.load(Ordering::Acquire);
        asleep.then(|| self.wakes.load(Ordering::Relaxed))
    }

    /// Sleeps until notified (or for `longest`), unless `has_work` says otherwise. May return early.
    pub(crate) fn sleep(&self, longest: Option<Duration>, has_work: impl FnOnce() -> bool) {
        self.timed.store(longest.is_some(), Ordering::Relaxed);
        // Release: who sees it set, and swaps it, sees the thread that `attach` left, and whether it sleeps for a time.
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
