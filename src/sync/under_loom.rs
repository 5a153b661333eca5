//! loom's names, and substitutes for missing ones.

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, AtomicUsize};
pub(crate) use loom::sync::{RwLock, RwLockWriteGuard};
pub(crate) use loom::{hint::spin_loop, thread_local};

pub(super) mod raw {
    pub(in crate::sync) use loom::sync::{Condvar, Mutex, MutexGuard};
}

pub(crate) mod atomic {
    use std::panic::Location;

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use crate::sync::canary;

    #[track_caller]
    pub(crate) fn fence(ordering: Ordering) {
        if !canary::is_left_out(Location::caller()) {
            loom::sync::atomic::fence(ordering);
        }
    }
}

pub(crate) mod thread {
    use std::time::Duration;

    pub(crate) use loom::thread::yield_now;
    // Models take the steps of the engine's threads themselves, and start none of the threads.
    pub(crate) use std::thread::{Builder, JoinHandle, available_parallelism};

    // Loom's own parking loses the token of a thread that is unparked while it waits for a lock.
    pub(crate) use crate::sync::parking::{Thread, current, park, park_timeout};

    pub(crate) fn sleep(_standing_still: Duration) {
        yield_now();
    }
}

/// A substitute for `std`'s type: a thread that sees that it is set sees its value, and no more
/// than that.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { value: std::sync::OnceLock::new(), is_set: AtomicBool::new(false) }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.is_set.store(true, atomic::Ordering::Release);
        Ok(())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.is_set.load(atomic::Ordering::Acquire).then(|| self.value.get()).flatten()
    }
}

/// A substitute for `crossbeam`'s type, for one pusher and one popper at a time. A push happens
/// before the pop of its item, and nothing else is promised.
#[derive(Debug)]
pub(crate) struct ArrayQueue<T> {
    /// The items; the lock is never contended, because no other thread runs while one holds it.
    items: std::sync::Mutex<VecDeque<T>>,
    capacity: usize,
    pushed: AtomicUsize,
    popped: AtomicUsize,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let (pushed, popped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { items: std::sync::Mutex::default(), capacity, pushed, popped }
    }

    fn items(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        super::mutex::whole(self.items.lock())
    }

    fn len(&self) -> usize {
        let popped = self.popped.load(atomic::Ordering::Acquire);
        self.pushed.load(atomic::Ordering::Acquire).saturating_sub(popped)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.items().push_back(item);
        self.pushed.fetch_add(1, atomic::Ordering::Release);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let item = self.items().pop_front();
        self.popped.fetch_add(1, atomic::Ordering::Release);
        item
    }
}
