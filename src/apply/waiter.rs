//! Those who wait for an index: any index, any number of them, threads and tasks alike.
//!
//! No wake-up is lost: a waiter registers, fences, and looks at the watermark again; whoever moves a watermark stores
//! it, fences, and looks for waiters. One of the two sees the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::watermark::{Progress, Stage, decode};
use crate::error::WaitError;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, MutexGuard, looks, spin_loop, thread_local};

const NOBODY: u64 = u64::MAX;
/// Wakers taken off the list at a time.
const WAKERS: usize = 16;

/// The registered waiters.
#[derive(Debug)]
pub(crate) struct Waiters {
    /// The least mark that somebody not yet notified waits for; [`NOBODY`] if none. It lets movers skip the lock.
    lowest: AtomicU64,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    next_id: u64,
    closed: bool,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    mark: u64,
    stage: Stage,
    notified: bool,
    truncated: bool,
    waker: Waker,
}

impl Default for Waiters {
    fn default() -> Self {
        Self { lowest: AtomicU64::new(NOBODY), list: Mutex::default() }
    }
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some mark moved, and a fence has passed since: wakes those who have what they waited for.
    #[inline]
    pub(crate) fn notify(&self, mark: impl Fn(Stage) -> u64) {
        let lowest = self.lowest.load(Ordering::Relaxed);
        if lowest == NOBODY {
            return;
        }
        // Acknowledged needs applied, and durable needs written: nothing can be reached below these two.
        if mark(Stage::Applied).max(mark(Stage::Written)) >= lowest {
            self.notify_slow(mark);
        }
    }

    #[cold]
    fn notify_slow(&self, mark: impl Fn(Stage) -> u64) {
        self.wake_where(|waiting| {
            let reached = !waiting.notified && mark(waiting.stage) >= waiting.mark;
            waiting.notified |= reached;
            reached
        });
    }

    /// Wakes the waiters that `pick` picks, each at most once. No waker runs under the lock: it may be anybody's code.
    fn wake_where(&self, mut pick: impl FnMut(&mut Waiting) -> bool) {
        let mut after = 0;
        loop {
            let mut wakers = [const { None::<Waker> }; WAKERS];
            let mut list = self.lock();
            let rest = list.waiting.iter_mut().filter(|waiting| waiting.id >= after);
            let picked = rest.filter_map(|waiting| pick(waiting).then_some(waiting));
            let mut last = None;
            for (waker, waiting) in wakers.iter_mut().zip(picked) {
                *waker = Some(waiting.waker.clone());
                last = Some(waiting.id);
            }
            self.update_lowest(&list);
            drop(list);
            wakers.iter().flatten().for_each(Waker::wake_by_ref);
            match last {
                Some(last) if wakers.iter().all(Option::is_some) => after = last + 1,
                _ => return,
            }
        }
    }

    fn update_lowest(&self, list: &List) {
        let unnotified = list.waiting.iter().filter(|waiting| !waiting.notified);
        let lowest = unnotified.map(|waiting| waiting.mark.min(NOBODY - 1)).min();
        let lowest = lowest.unwrap_or(NOBODY);
        self.lowest.store(lowest, Ordering::Relaxed);
    }

    /// Wakes everybody, to find out why: poison.
    pub(crate) fn wake_all(&self) {
        self.wake_where(|_| true);
    }

    /// Wakes everybody to the end of the manager; later waits for what was not reached fail at once.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake_where(|_| true);
    }

    /// Everything above `mark` was truncated, of what was submitted up to `submitted`: those who wait for it are told.
    pub(crate) fn truncate(&self, mark: u64, submitted: u64) {
        self.wake_where(|waiting| {
            let gone = waiting.mark > mark && waiting.mark <= submitted;
            let cut = gone && !waiting.truncated;
            waiting.truncated |= cut;
            cut
        });
    }

    fn register(&self, mark: u64, stage: Stage, waker: Waker) -> u64 {
        let mut list = self.lock();
        let id = list.next_id;
        list.next_id += 1;
        list.waiting.push(Waiting { id, mark, stage, notified: false, truncated: false, waker });
        self.update_lowest(&list);
        drop(list);
        // Pairs with the fence in `Progress::moved`.
        fence(Ordering::SeqCst);
        id
    }

    /// Waits on with another waker; what happened to the waiter meanwhile is kept.
    fn renew(&self, id: u64, waker: &Waker) -> u64 {
        let mut list = self.lock();
        if let Some(waiting) = list.waiting.iter_mut().find(|waiting| waiting.id == id) {
            waiting.waker.clone_from(waker);
            waiting.notified = false;
        }
        self.update_lowest(&list);
        drop(list);
        // As in `register`.
        fence(Ordering::SeqCst);
        id
    }

    /// Takes a waiter off the list; whether it was truncated meanwhile.
    fn deregister(&self, id: u64) -> bool {
        let mut list = self.lock();
        let Some(at) = list.waiting.iter().position(|waiting| waiting.id == id) else {
            return false;
        };
        // In order of their ids, which `wake_where` goes by.
        let gone = list.waiting.remove(at);
        if !gone.notified {
            self.update_lowest(&list);
        }
        gone.truncated
    }

    fn state(&self, id: u64) -> (bool, bool) {
        let list = self.lock();
        let waiting = list.waiting.iter().find(|waiting| waiting.id == id);
        (list.closed, waiting.is_some_and(|waiting| waiting.truncated))
    }
}

/// Unparks a thread.
struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// One for each thread that ever waited, so that waiting allocates nothing.
    static WAKER: Waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
}

/// One wait under way.
struct Wait<'a> {
    progress: &'a Progress,
    index: u64,
    /// The index plus one, as marks are kept. No mark reaches that of `u64::MAX`, which is no index.
    mark: u64,
    stage: Stage,
    id: Option<u64>,
}

impl<'a> Wait<'a> {
    fn new(progress: &'a Progress, index: u64, stage: Stage) -> Self {
        Self { progress, index, mark: index.saturating_add(1), stage, id: None }
    }

    fn reached(&self) -> bool {
        self.progress.mark(self.stage) >= self.mark
    }

    /// The outcome, if there is one.
    ///
    /// Poison and the end are looked at before the mark, so that a mark reached before them still counts; truncation
    /// once more after it, as the mark may have been reached by what replaced the entry.
    fn outcome(&mut self) -> Option<Result<(), WaitError>> {
        let poison = self.progress.poison.get();
        let (closed, truncated) = self.id.map_or_else(
            || (self.progress.waiters.lock().closed, false),
            |id| self.progress.waiters.state(id),
        );
        if truncated {
            return Some(Err(WaitError::Truncated { index: self.index }));
        }
        if self.reached() {
            let id = self.id.take();
            return Some(match id.is_some_and(|id| self.progress.waiters.deregister(id)) {
                true => Err(WaitError::Truncated { index: self.index }),
                false => Ok(()),
            });
        }
        if let Some(poison) = poison {
            return Some(Err(WaitError::Poisoned(poison.clone())));
        }
        if closed {
            return Some(Err(WaitError::Closed { index: self.index }));
        }
        None
    }

    fn timeout(&self, waited: Duration) -> WaitError {
        WaitError::Timeout {
            index: self.index,
            reached: decode(self.progress.mark(self.stage)),
            submitted: decode(self.progress.submitted_mark()),
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

/// How often a waiter looks before it parks: each look is a `spin_loop` hint, then a few yields.
const SPINS: u32 = looks(64);
const YIELDS: u32 = looks(8);

/// Blocks until `stage` covers `index`.
pub(crate) fn wait(
    progress: &Progress,
    index: u64,
    stage: Stage,
    timeout: Duration,
) -> Result<(), WaitError> {
    wait_helping(progress, index, stage, timeout, || {})
}

/// The same; `help` runs before the caller sleeps, and may take as long as it takes.
///
/// It runs once the waiter is registered: what becomes of the entry meanwhile is known afterwards, also if another one
/// has taken its index.
pub(crate) fn wait_helping(
    progress: &Progress,
    index: u64,
    stage: Stage,
    timeout: Duration,
    help: impl FnOnce(),
) -> Result<(), WaitError> {
    let mut wait = Wait::new(progress, index, stage);
    if wait.reached() {
        return Ok(());
    }
    let started = Instant::now();
    wait.id = Some(WAKER.with(|waker| progress.waiters.register(wait.mark, stage, waker.clone())));
    help();
    for look in 0..SPINS + YIELDS {
        if wait.reached() {
            break;
        }
        if look < SPINS { spin_loop() } else { thread::yield_now() }
    }
    loop {
        if let Some(outcome) = wait.outcome() {
            return outcome;
        }
        let waited = started.elapsed();
        match timeout.checked_sub(waited) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return Err(wait.timeout(waited)),
        }
    }
}

/// Completes when an index is acknowledged; made by [`ApplyManager::acknowledged`](crate::ApplyManager::acknowledged).
///
/// Bound to no runtime. Dropping it cancels only the waiting.
#[derive(Debug)]
pub struct Acknowledged {
    progress: Arc<Progress>,
    index: u64,
    id: Option<u64>,
}

impl Acknowledged {
    pub(crate) fn new(progress: Arc<Progress>, index: u64) -> Self {
        Self { progress, index, id: None }
    }
}

impl Future for Acknowledged {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (waiters, stage) = (&this.progress.waiters, Stage::Acknowledged);
        let mut wait = Wait::new(&this.progress, this.index, stage);
        wait.id = Some(match this.id.take() {
            Some(id) => waiters.renew(id, context.waker()),
            None => waiters.register(wait.mark, stage, context.waker().clone()),
        });
        let outcome = wait.outcome();
        if outcome.is_none() {
            // Still waiting: the registration stays, and is ours again.
            this.id = wait.id.take();
            return Poll::Pending;
        }
        drop(wait);
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Acknowledged {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.progress.waiters.deregister(id);
        }
    }
}
