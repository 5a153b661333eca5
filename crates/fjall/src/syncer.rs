//! The thread that syncs batches committed without `sync`.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Handle of the thread; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    /// Dropping this sender ends the thread.
    close: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts a thread that calls `sync` each `interval`, until `sync` reports a failure.
    pub(crate) fn start(
        interval: Duration,
        sync: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (close, closing) = mpsc::channel();
        let thread =
            thread::Builder::new().name("sprag-fjall-sync".to_owned()).spawn(move || {
                while closing.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) && sync() {}
            })?;
        Ok(Self { close: Some(close), thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.close = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread comes from fjall; the next write reports it.
            let _ = thread.join();
        }
    }
}
