//! How a thread is started, and what a step of one says to the loop that takes it.
//!
//! Only this file starts threads. The loops, and their end, are the engine's.

use std::io;

use crate::sync::thread::{self, JoinHandle};

pub(crate) mod cores;
pub(crate) mod crew;
pub(crate) mod host;

/// Result of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The step did something; there may be more.
    Worked,
    /// There is work that has to wait for another worker.
    Blocked,
    /// There was no work.
    Idle,
}

/// Starts a thread.
pub(crate) fn start(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(body)
}

/// Runs `run`, and `work` on another thread meanwhile. Returns when both have ended.
pub(crate) fn beside<R>(
    name: &str,
    work: impl FnOnce() + Send,
    run: impl FnOnce() -> R,
) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn_scoped(scope, work)?;
        Ok(run())
    })
}
