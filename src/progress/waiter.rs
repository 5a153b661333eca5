//! Waiting for an index: a thread spins, yields, and parks; a task leaves its waker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::order::WaiterId;
use super::seats::Target;
use super::waiters::Seen;
use super::watermark::{Progress, Stage};
use crate::error::WaitError;
use crate::sync::spin::Spin;
use crate::sync::{looks, thread};

/// A wait in progress.
pub(crate) struct Wait<'a> {
    progress: &'a Progress,
    index: u64,
    stage: Stage,
    /// Number of truncations when it began.
    since: u64,
    id: Option<WaiterId>,
}

impl<'a> Wait<'a> {
    /// Begins a wait. From here on a truncation of the entry decides the wait, even if another
    /// entry takes its index.
    pub(crate) fn begin(progress: &'a Progress, index: u64, stage: Stage) -> Self {
        Self { progress, index, stage, since: progress.waiters.truncations(), id: None }
    }

    /// Whether the stage covers the index. A mark is one more than the index it covers, so
    /// `u64::MAX` is never covered.
    fn is_reached(&self) -> bool {
        self.progress.mark(self.stage).covers(self.index)
    }

    /// The outcome, if the stage covers the index. It takes a lock only if the wait is registered,
    /// or there was a truncation.
    ///
    /// Truncations are checked after the mark, because the replacing entry may have moved the mark.
    pub(crate) fn settle(&mut self) -> Option<Result<(), WaitError>> {
        if !self.is_reached() {
            return None;
        }
        let waiters = &self.progress.waiters;
        let truncated = match self.id.take() {
            Some(id) => waiters.deregister(id),
            None => waiters.was_cut(self.index, self.since),
        };
        Some(if truncated { Err(self.truncated()) } else { Ok(()) })
    }

    /// Registers a thread that is about to park; returns the outcome, if there is one.
    pub(crate) fn look_as_thread(&mut self) -> Option<Result<(), WaitError>> {
        let waiters = &self.progress.waiters;
        let seen = match self.id {
            Some(id) => waiters.renew_thread(id, thread::current),
            None => self.register(Target::Thread(thread::current())),
        };
        self.outcome(seen)
    }

    /// Leaves the waker of a task that is about to return; returns the outcome, if there is one.
    fn look_as_task(&mut self, context: &Context<'_>) -> Option<Result<(), WaitError>> {
        let seen = match self.id {
            Some(id) => self.progress.waiters.renew_task(id, context.waker()),
            None => self.register(Target::Task(context.waker().clone())),
        };
        self.outcome(seen)
    }

    fn register(&mut self, target: Target) -> Seen {
        let waiters = &self.progress.waiters;
        let (id, seen) = waiters.register(self.index, self.stage, self.since, target);
        self.id = Some(id);
        seen
    }

    /// The outcome of a wait that has just registered, if there is one.
    ///
    /// Poison and the end are checked before the mark, so that a mark reached before them still
    /// counts.
    fn outcome(&mut self, seen: Seen) -> Option<Result<(), WaitError>> {
        let poison = self.progress.poison.get();
        let has_ended = self.progress.lifecycle.has_ended();
        if seen.truncated {
            return Some(Err(self.truncated()));
        }
        if seen.reached {
            return Some(Ok(()));
        }
        if let Some(outcome) = self.settle() {
            return Some(outcome);
        }
        if let Some(poison) = poison {
            return Some(Err(WaitError::Poisoned(poison.clone())));
        }
        has_ended.then_some(Err(WaitError::Closed { index: self.index }))
    }

    fn truncated(&self) -> WaitError {
        WaitError::Truncated { index: self.index }
    }

    fn timeout(&self, waited: Duration) -> WaitError {
        WaitError::Timeout {
            index: self.index,
            reached: self.progress.mark(self.stage).last(),
            submitted: self.progress.submitted_mark().last(),
            waited,
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.progress.waiters.deregister(id);
        }
    }
}

/// Number of yields after the looks, before a waiter parks.
const YIELDS: u32 = looks(8);

/// Blocks until `stage` covers `index`.
pub(crate) fn wait(
    progress: &Progress,
    index: u64,
    stage: Stage,
    timeout: Duration,
) -> Result<(), WaitError> {
    wait_helping(progress, index, stage, timeout, None::<fn()>)
}

/// Blocks until `stage` covers `index`. `help`, if there is any, runs before the caller sleeps, and
/// may take any time.
///
/// A caller that helps registers first: many truncations may come meanwhile, and the registration
/// records each. Another caller looks a few times before it registers, so that a mover that is
/// nearly done finds no waiter to unpark.
pub(crate) fn wait_helping(
    progress: &Progress,
    index: u64,
    stage: Stage,
    timeout: Duration,
    help: Option<impl FnOnce()>,
) -> Result<(), WaitError> {
    let mut wait = Wait::begin(progress, index, stage);
    if let Some(outcome) = wait.settle() {
        return outcome;
    }
    let started = Instant::now();
    if let Some(help) = help {
        if let Some(outcome) = wait.look_as_thread() {
            return outcome;
        }
        help();
    }
    let mut spin = Spin::long();
    while spin.pass(YIELDS) {
        if let Some(outcome) = wait.settle() {
            return outcome;
        }
    }
    loop {
        if let Some(outcome) = wait.look_as_thread() {
            return outcome;
        }
        let waited = started.elapsed();
        match timeout.checked_sub(waited) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return Err(wait.timeout(waited)),
        }
    }
}

/// The wait of a task for an index; the futures of the engine are made of it.
///
/// The wait begins with the first poll.
#[derive(Debug)]
pub(crate) struct TaskWait {
    progress: Arc<Progress>,
    index: u64,
    stage: Stage,
    id: Option<WaiterId>,
}

impl TaskWait {
    pub(crate) fn new(progress: Arc<Progress>, index: u64, stage: Stage) -> Self {
        Self { progress, index, stage, id: None }
    }

    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<(), WaitError>> {
        let mut wait = Wait::begin(&self.progress, self.index, self.stage);
        wait.id = self.id.take();
        if let Some(outcome) = wait.settle().or_else(|| wait.look_as_task(context)) {
            return Poll::Ready(outcome);
        }
        // The wait continues, so the future keeps the registration.
        self.id = wait.id.take();
        Poll::Pending
    }
}

impl Drop for TaskWait {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.progress.waiters.deregister(id);
        }
    }
}

/// Future that completes when an index is acknowledged;
/// [`ApplyManager::acknowledged`](crate::ApplyManager::acknowledged) makes it.
///
/// The future is bound to no runtime. Dropping it cancels only the wait. Registering and waking
/// cost O(log n) of all waiters at most.
#[derive(Debug)]
pub struct Acknowledged(TaskWait);

impl Acknowledged {
    pub(crate) fn new(progress: Arc<Progress>, index: u64) -> Self {
        Self(TaskWait::new(progress, index, Stage::Acknowledged))
    }
}

impl Future for Acknowledged {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}
