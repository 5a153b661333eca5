//! shuttle's names. What it has not is the real thing: no thread is stopped inside of that, so it is one step.

pub(crate) use crossbeam_queue::ArrayQueue;
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
pub(crate) use shuttle::{hint::spin_loop, thread_local};
pub(crate) use std::sync::OnceLock;

pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

pub(crate) mod thread {
    use std::panic::Location;

    pub(crate) use shuttle::thread::{Builder, JoinHandle, park, park_timeout, sleep, yield_now};
    pub(crate) use std::thread::available_parallelism;

    use crate::sync::canary;

    #[derive(Clone, Debug)]
    pub(crate) struct Thread(shuttle::thread::Thread);

    impl Thread {
        #[track_caller]
        pub(crate) fn unpark(&self) {
            if !canary::is_left_out(Location::caller()) {
                self.0.unpark();
            }
        }
    }

    pub(crate) fn current() -> Thread {
        Thread(shuttle::thread::current())
    }
}
