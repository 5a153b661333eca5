//! Waking the engine's own threads, at the cost of one load when they are awake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::thread::{self, Thread};

/// A role that rests at a signal, in place of a thread that sleeps: see [`Signal::rest`].
pub(crate) trait Sleeper: fmt::Debug + Send + Sync {
    /// Takes the sleeper up. The caller has it: one call does, each time that it rests.
    fn wake(self: Arc<Self>);
}

/// The thread or the role of a signal.
#[derive(Debug)]
enum At {
    Thread(Thread),
    Role(Arc<dyn Sleeper>),
}

/// A sleeping place for one thread, or the resting place of one role.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Set by the thread before its last look for work. SeqCst fences on both sides order that look
    /// against the work being made visible.
    asleep: AtomicBool,
    /// Whether the thread sleeps for a time only; undefined while it is awake. Stored before
    /// `asleep`.
    timed: AtomicBool,
    at: OnceLock<At>,
    /// Number of times that the thread was woken.
    #[cfg(all(test, not(any(loom, shuttle))))]
    wakes: std::sync::atomic::AtomicU64,
}

impl Signal {
    /// Registers the thread that will sleep here; called once by that thread.
    pub(crate) fn attach(&self) {
        let attached = self.at.set(At::Thread(thread::current())).is_ok();
        debug_assert!(attached, "one thread sleeps at a signal");
    }

    /// Registers the role that will rest here; called once, before the role's first turn.
    pub(crate) fn attach_role(&self, role: Arc<dyn Sleeper>) {
        let attached = self.at.set(At::Role(role)).is_ok();
        debug_assert!(attached, "one role rests at a signal");
    }

    /// Whether a role rests here, and no thread sleeps.
    pub(crate) fn is_of_a_role(&self) -> bool {
        matches!(self.at.get(), Some(At::Role(_)))
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
        if self.rouse()
            && let Some(at) = self.at.get()
        {
            #[cfg(all(test, not(any(loom, shuttle))))]
            self.wakes.fetch_add(1, Ordering::Relaxed);
            match at {
                At::Thread(thread) => thread.unpark(),
                At::Role(role) => Arc::clone(role).wake(),
            }
        }
    }

    /// Clears the flag. Returns true for the one call that cleared it: this call has the role.
    pub(crate) fn rouse(&self) -> bool {
        // Not a swap: a thread that finds it unset must leave nothing that could hide the next time
        // it is set. Acquire: the turn before is over, and all of it is visible.
        self.asleep.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Lets the role rest until it is notified, unless `has_work` returns true. A role that is
    /// `timed` also has a timer. Returns whether the caller still has the role.
    ///
    /// After the flag is set another thread may take the role, also while this call looks for work.
    pub(crate) fn rest(&self, timed: bool, has_work: impl FnOnce() -> bool) -> bool {
        self.timed.store(timed, Ordering::Relaxed);
        // Release: the thread that clears the flag sees all of this turn.
        self.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        has_work() && self.rouse()
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
