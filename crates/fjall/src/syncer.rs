//! The thread that syncs what was committed without `sync`.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Syncer {
    /// Hangs up to end the thread.
    close: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Calls `sync` each `interval` until it says that it failed.
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
            // A panic of the thread is one of fjall's; the next write meets it.
            let _ = thread.join();
        }
    }
}
