//! shuttle's names. Missing ones are the real types: no thread is stopped inside of them, so a call
//! is one step.

pub(crate) use crossbeam_queue::ArrayQueue;
pub(crate) use shuttle::sync::{RwLock, RwLockWriteGuard};
pub(crate) use shuttle::{hint::spin_loop, thread_local};
pub(crate) use std::sync::OnceLock;

pub(super) mod raw {
    pub(in crate::sync) use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

pub(crate) mod thread {
    pub(crate) use shuttle::thread::{Builder, JoinHandle, sleep, yield_now};
    pub(crate) use std::thread::available_parallelism;

    // Shuttle's own parking ends spuriously, and so hides lost wake-ups.
    pub(crate) use crate::sync::parking::{Thread, current, park, park_timeout};
}
