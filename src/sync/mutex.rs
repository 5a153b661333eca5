//! The one mutex of the engine: it has a rank, and goes on after a panic under it.
//!
//! A panic under a lock poisons the engine where it matters
//! ([`PoisonCell`](crate::poison::PoisonCell)), and what else a lock protects is replaced in one
//! step. So the mark that `std` leaves on a mutex says nothing more.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::rank::{Held, Key, Rank};
use super::raw;

/// Returns the result of a lock, whether or not a thread panicked under it before.
#[inline]
pub(super) fn whole<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// A mutex with a rank; see [`Rank`]. In a release build it is a mutex of `std` and nothing else.
pub(crate) struct Mutex<T> {
    key: Key,
    inner: raw::Mutex<T>,
}

#[cfg(not(any(debug_assertions, loom, shuttle)))]
const _: () = assert!(size_of::<Mutex<u64>>() == size_of::<std::sync::Mutex<u64>>());

impl<T> Mutex<T> {
    pub(crate) fn new(rank: Rank, value: T) -> Self {
        Self::numbered(rank, 0, value)
    }

    /// One of several mutexes of a rank, of which a thread may hold more than one: in the order of
    /// their numbers.
    pub(crate) fn numbered(rank: Rank, number: u32, value: T) -> Self {
        Self { key: Key::new(rank, number), inner: raw::Mutex::new(value) }
    }

    /// Waits until no other thread holds it. The calling thread holds locks of lower ranks only.
    #[inline]
    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.key.check();
        let guard = whole(self.inner.lock());
        MutexGuard { guard, held: self.key.hold() }
    }

    /// The lock, if no thread holds it. Waits for nothing, so the calling thread may hold any other
    /// lock.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = match self.inner.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { guard, held: self.key.hold() })
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A mutex that the thread holds.
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct MutexGuard<'a, T> {
    guard: raw::MutexGuard<'a, T>,
    #[allow(dead_code, reason = "says until its drop that the thread holds the lock")]
    held: Held,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A lock that a call holds for long. Another call can wait for it with a timeout.
pub(crate) struct Turn {
    key: Key,
    is_taken: raw::Mutex<bool>,
    /// Signals that the turn was given back.
    given_back: raw::Condvar,
}

impl Turn {
    pub(crate) fn new(rank: Rank) -> Self {
        let (is_taken, given_back) = (raw::Mutex::new(false), raw::Condvar::new());
        Self { key: Key::new(rank, 0), is_taken, given_back }
    }

    /// Waits until no other call has it. The calling thread holds locks of lower ranks only.
    #[track_caller]
    pub(crate) fn lock(&self) -> TurnGuard<'_> {
        self.key.check();
        let mut is_taken = whole(self.is_taken.lock());
        while *is_taken {
            is_taken = whole(self.given_back.wait(is_taken));
        }
        self.take(is_taken)
    }

    /// Waits as [`Turn::lock`] does, for `timeout` at most. Returns `None` if the turn was never
    /// free.
    #[track_caller]
    pub(crate) fn lock_within(&self, timeout: Duration) -> Option<TurnGuard<'_>> {
        self.key.check();
        let began = Instant::now();
        let mut is_taken = whole(self.is_taken.lock());
        while *is_taken {
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return None;
            }
            is_taken = whole(self.given_back.wait_timeout(is_taken, left)).0;
        }
        Some(self.take(is_taken))
    }

    /// Whether no call has it at the moment.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn is_free(&self) -> bool {
        !*whole(self.is_taken.lock())
    }

    fn take(&self, mut is_taken: raw::MutexGuard<'_, bool>) -> TurnGuard<'_> {
        *is_taken = true;
        TurnGuard { turn: self, held: self.key.hold() }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

/// A turn that the call has until this is dropped.
#[must_use = "the turn is given back when this is dropped"]
#[derive(Debug)]
pub(crate) struct TurnGuard<'a> {
    turn: &'a Turn,
    #[allow(dead_code, reason = "says until its drop that the thread holds the turn")]
    held: Held,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        *whole(self.turn.is_taken.lock()) = false;
        self.turn.given_back.notify_one();
    }
}

/// A signal to threads that wait under a mutex.
#[derive(Debug)]
pub(crate) struct Condvar(raw::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(raw::Condvar::new())
    }

    /// Releases the lock, waits for a signal at most so long, and takes the lock again. It may
    /// return early.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        let MutexGuard { guard, held } = guard;
        held.check_alone();
        let guard = whole(self.0.wait_timeout(guard, timeout)).0;
        MutexGuard { guard, held }
    }

    /// Wakes a thread that waits, if there is one.
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes every thread that waits.
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
