//! One thread that makes changes durable. While it syncs, the next changes gather.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;

use super::log::{Change, Disk};
use super::types::Types;

/// Longest time for which the thread looks for the next change before it sleeps. A caller that
/// appends as soon as it is called back then pays for no wake-up.
const LOOK: Duration = Duration::from_micros(20);

/// Something that writes gathered changes with one sync.
pub(crate) trait Sink: Send + 'static {
    /// Changes that wait for a write, as the sink wants to have them.
    type Batch: Default + Send;

    /// Adds a change behind those that wait.
    fn gather(batch: &mut Self::Batch, change: &Change<'_>) -> io::Result<()>;

    /// Writes and syncs all of a batch, and empties it.
    fn write(&mut self, batch: &mut Self::Batch) -> io::Result<()>;
}

/// The thread, and what has gathered for it.
pub(crate) struct Gathered<S: Sink> {
    shared: Arc<Shared<S::Batch>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared<B> {
    queue: Mutex<Queue<B>>,
    wake: Condvar,
    syncs: AtomicU64,
}

/// Changes that the thread has not taken yet.
#[derive(Default)]
struct Queue<B> {
    batch: B,
    done: Vec<IOFlushed<Types>>,
    is_closed: bool,
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Queue<B>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until changes are there. `None` at the end.
    fn wait(&self) -> Option<MutexGuard<'_, Queue<B>>> {
        let began = Instant::now();
        loop {
            let queue = self.lock();
            if !queue.done.is_empty() {
                return Some(queue);
            }
            if queue.is_closed {
                return None;
            }
            if began.elapsed() > LOOK {
                let is_empty = |queue: &mut Queue<B>| queue.done.is_empty() && !queue.is_closed;
                let queue = self.wake.wait_while(queue, is_empty);
                let queue = queue.unwrap_or_else(PoisonError::into_inner);
                return (!queue.done.is_empty()).then_some(queue);
            }
            drop(queue);
            thread::yield_now();
        }
    }
}

impl<S: Sink> Gathered<S> {
    pub(crate) fn start(sink: S) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("log".to_owned());
        let thread = thread.spawn(move || run(&of_thread, sink))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Syncs so far.
    pub(crate) fn syncs(&self) -> u64 {
        // Relaxed: a tally.
        self.shared.syncs.load(Ordering::Relaxed)
    }
}

impl<S: Sink> Disk for Gathered<S> {
    fn write(&self, change: Change<'_>, done: IOFlushed<Types>) -> io::Result<()> {
        let mut queue = self.shared.lock();
        S::gather(&mut queue.batch, &change)?;
        queue.done.push(done);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl<S: Sink> Drop for Gathered<S> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Callers of a thread that panicked have been told by their dropped callbacks.
            drop(thread.join());
        }
    }
}

fn run<S: Sink>(shared: &Shared<S::Batch>, mut sink: S) {
    let (mut batch, mut done) = (S::Batch::default(), Vec::new());
    while let Some(mut queue) = shared.wait() {
        std::mem::swap(&mut queue.batch, &mut batch);
        std::mem::swap(&mut queue.done, &mut done);
        drop(queue);
        let written = sink.write(&mut batch);
        // Relaxed: a tally.
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        for done in done.drain(..) {
            // An error ends the node that hears of it.
            done.io_completed(match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            });
        }
    }
}
