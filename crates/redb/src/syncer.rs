//! The thread that syncs batches committed without `sync`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time since when something is committed and not durable.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    is_closing: bool,
}

impl Unsynced {
    /// Records that something is not durable any more. Does nothing if that is already recorded.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Records that everything is durable. The thread notices when its waiting time is over.
    pub(crate) fn end(&self) {
        self.lock().since = None;
    }

    fn close(&self) {
        self.lock().is_closing = true;
        self.changed.notify_one();
    }

    /// Waits until something has been unsynced for `interval`. Returns false when the storage is
    /// being closed.
    fn wait(&self, interval: Duration) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_closing {
                return false;
            }
            let Some(since) = state.since else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = interval.saturating_sub(since.elapsed());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle of the thread; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    unsynced: Arc<Unsynced>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts a thread that calls `sync` each time something has been unsynced for `interval`,
    /// until `sync` reports a failure.
    pub(crate) fn start(
        unsynced: Arc<Unsynced>,
        interval: Duration,
        sync: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let watched = Arc::clone(&unsynced);
        let thread = thread::Builder::new()
            .name("sprag-redb-sync".to_owned())
            .spawn(move || while watched.wait(interval) && sync() {})?;
        Ok(Self { unsynced, thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.unsynced.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread comes from redb; the next write reports it.
            let _ = thread.join();
        }
    }
}
