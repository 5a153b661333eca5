//! The bell: wakes callers that wait for something that no watermark says. Examples are a durable
//! frame, a worker that is done, and a thread that has ended.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, Rank};

/// A bell, with any number of listening threads. It says that something changed, and not what: a
/// listener looks again.
#[derive(Debug)]
pub(crate) struct Bell {
    /// Number of listeners. It lets a ring skip the lock. SeqCst fences on both sides order it
    /// against what a listener looks at.
    listening: AtomicU64,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    threads: Vec<(u64, Thread)>,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            listening: AtomicU64::new(0),
            listeners: Mutex::new(Rank::Listeners, Listeners::default()),
        }
    }
}

impl Bell {
    /// Registers the calling thread. The thread then looks for what it waits for, and sleeps if
    /// that is not there. Each ring after this call is for the thread too.
    pub(crate) fn listen(&self) -> Listener<'_> {
        let mut listeners = self.listeners.lock();
        let number = listeners.next;
        listeners.next += 1;
        listeners.threads.push((number, thread::current()));
        self.listening.store(listeners.threads.len() as u64, Ordering::Relaxed);
        drop(listeners);
        // Pairs with the fence in `ring`: the listener sees the change, or the ring sees the
        // listener.
        fence(Ordering::SeqCst);
        Listener { bell: self, number }
    }

    /// Wakes all listeners. The caller has made the change visible, and released the locks that a
    /// listener tries. Costs a fence and a load if no thread listens.
    #[inline]
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        self.ring_after_fence();
    }

    /// Rings as [`Bell::ring`] does, for a caller that has passed a SeqCst fence since the change.
    #[inline]
    pub(crate) fn ring_after_fence(&self) {
        if self.listening.load(Ordering::Relaxed) > 0 {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        // Unparking a thread runs no foreign code.
        self.listeners.lock().threads.iter().for_each(|(_, thread)| thread.unpark());
    }
}

/// A thread that listens to a bell until this is dropped.
#[derive(Debug)]
pub(crate) struct Listener<'b> {
    bell: &'b Bell,
    number: u64,
}

impl Listener<'_> {
    /// Sleeps until the bell rings, or for `longest`. A ring since the last sleep, or since the
    /// thread began to listen, ends the sleep at once. It may return early.
    pub(crate) fn sleep(&self, longest: Option<Duration>) {
        match longest {
            Some(longest) => thread::park_timeout(longest),
            None => thread::park(),
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut listeners = self.bell.listeners.lock();
        if let Some(at) = listeners.threads.iter().position(|(number, _)| *number == self.number) {
            listeners.threads.swap_remove(at);
        }
        self.bell.listening.store(listeners.threads.len() as u64, Ordering::Relaxed);
    }
}
