//! The registered waiters: any index, any number of them, threads and tasks alike.
//!
//! No wake-up is lost: a waiter registers, fences, and looks at the watermark again; whatever moves a watermark stores it,
//! fences, and looks for waiters. One of the two sees the other.
//!
//! Threads are unparked where the watermark moves. A task's waker is foreign code: it runs later, in
//! [`Waiters::wake_tasks`], which callers reach without any lock of the engine.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::cuts::Cuts;
use super::order::{Order, Ticket, WaiterId};
use super::places::{Kind, Places, Target};
use super::watermark::Stage;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use crate::sync::thread::Thread;
use crate::sync::{Mutex, MutexGuard, thread_local};

/// The lowest index of an order that has no waiter. No mark is above it.
const NONE: u64 = u64::MAX;
/// Threads taken off an order at a time.
const THREADS: usize = 16;
/// The same of tasks.
const TASKS: usize = 32;

/// Which waiters are woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// Those of indexes that a mark covers.
    Below(u64),
    All,
}

/// What a waiter finds when it looks under the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// What it waits for was truncated.
    pub(crate) truncated: bool,
    /// It was woken because its stage covered its index.
    pub(crate) reached: bool,
}

/// The registered waiters.
#[derive(Debug)]
pub(crate) struct Waiters {
    /// For each stage the lowest index that a parked thread not yet notified waits for. They let movers skip the lock.
    threads: CachePadded<[AtomicU64; Stage::ALL.len()]>,
    /// The same of tasks.
    tasks: CachePadded<[AtomicU64; Stage::ALL.len()]>,
    /// Some task is to be woken whatever the marks are: after a truncation, a failure, or the end.
    tells_tasks: AtomicBool,
    /// How many truncations there were.
    cuts: AtomicU64,
    list: Mutex<List>,
    /// Wakers that panicked.
    panicked: AtomicU64,
    /// The longest call of a waker.
    longest_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct List {
    places: Places,
    threads: [Order; Stage::ALL.len()],
    tasks: [Order; Stage::ALL.len()],
    cuts: Cuts,
    /// Tasks that are to look, and whose wakers have not been called: their index is covered, or their entry is gone.
    told: VecDeque<WaiterId>,
    /// Each task is to be woken, whatever it waits for.
    over: bool,
}

impl Default for Waiters {
    fn default() -> Self {
        let none = || CachePadded::new([const { NONE }; Stage::ALL.len()].map(AtomicU64::new));
        Self {
            threads: none(),
            tasks: none(),
            tells_tasks: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            list: Mutex::default(),
            panicked: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lowest(&self, kind: Kind, stage: Stage) -> &AtomicU64 {
        let lowest = if kind == Kind::Thread { &self.threads } else { &self.tasks };
        &lowest[stage.at()]
    }

    fn update_lowest(&self, list: &mut List, kind: Kind, stage: Stage) {
        let (places, order) = list.order(kind, stage);
        let first = order.first(|ticket| places.is_queued(ticket));
        let lowest = first.map_or(NONE, |ticket| ticket.index);
        self.lowest(kind, stage).store(lowest, Ordering::Relaxed);
    }

    // ---- What moves a mark ----

    /// The marks of `stages` may have moved, and a fence has passed since: unparks each thread whose index is covered.
    #[inline]
    pub(crate) fn unpark(&self, stages: &[Stage], mark: impl Fn(Stage) -> u64) {
        for stage in stages {
            if mark(*stage) > self.lowest(Kind::Thread, *stage).load(Ordering::Relaxed) {
                self.unpark_due(*stage, Due::Below(mark(*stage)));
            }
        }
    }

    #[cold]
    fn unpark_due(&self, stage: Stage, due: Due) {
        loop {
            let mut threads = [const { None::<Thread> }; THREADS];
            let mut list = self.lock();
            for thread in &mut threads {
                *thread = match list.take_due(Kind::Thread, stage, due) {
                    Some(Target::Thread(thread)) => Some(thread),
                    _ => break,
                };
            }
            self.update_lowest(&mut list, Kind::Thread, stage);
            drop(list);
            for thread in threads.iter().flatten() {
                thread.unpark();
            }
            if threads.iter().any(Option::is_none) {
                return;
            }
        }
    }

    /// Whether a task's waker is to be called. After a fence that followed the move of a mark.
    #[inline]
    pub(crate) fn has_due_tasks(&self, mark: impl Fn(Stage) -> u64) -> bool {
        let due = |stage: &Stage| {
            let lowest = self.lowest(Kind::Task, *stage).load(Ordering::Relaxed);
            lowest != NONE && mark(*stage) > lowest
        };
        Stage::ALL.iter().any(due) || self.tells_tasks.load(Ordering::Relaxed)
    }

    /// Calls the waker of each task that is to be woken. The caller holds no lock of the engine.
    ///
    /// One waker is taken at a time, so that a waker that blocks holds up only this thread: another thread that comes here
    /// goes on with the next one.
    #[cold]
    pub(crate) fn wake_tasks(&self, mark: impl Fn(Stage) -> u64) {
        let Some(_inside) = Inside::enter(self) else {
            // This waker was called from in here: the loop that called it goes on after it.
            return;
        };
        loop {
            let mut list = self.lock();
            let waker = self.take_waker(&mut list, &mark);
            drop(list);
            match waker {
                Some(waker) => self.call(waker),
                None => return,
            }
        }
    }

    fn take_waker(&self, list: &mut List, mark: impl Fn(Stage) -> u64) -> Option<Waker> {
        loop {
            while let Some(id) = list.told.pop_front() {
                // A task that has looked meanwhile knows.
                let place = list.places.get(id);
                if let Some(Target::Task(waker)) = place.and_then(|place| place.target.take()) {
                    return Some(waker);
                }
            }
            let mut more = false;
            for stage in Stage::ALL {
                let due = if list.over { Due::All } else { Due::Below(mark(stage)) };
                if list.tell(stage, due) {
                    more = true;
                    self.tells_tasks.store(true, Ordering::Relaxed);
                    self.update_lowest(list, Kind::Task, stage);
                }
            }
            if !more {
                self.tells_tasks.store(false, Ordering::Relaxed);
                return None;
            }
        }
    }

    fn call(&self, waker: Waker) {
        if cfg!(any(loom, shuttle)) {
            // A checker's own panics are not ours to catch.
            return waker.wake();
        }
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.longest_ns.fetch_max(took_ns, Ordering::Relaxed);
        if let Err(panic) = outcome {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            // What was thrown may panic itself when it is dropped; then it is leaked.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(panic)));
            dropped.unwrap_or_else(std::mem::forget);
        }
    }

    /// Everything of indexes from mark `cut` on was truncated, of what was submitted below mark `submitted`: each thread that
    /// waits for it is unparked, and each task's waker is to be called.
    pub(crate) fn truncate(&self, cut: u64, submitted: u64) {
        let mut list = self.lock();
        list.cuts.add(cut, submitted);
        self.cuts.store(list.cuts.count(), Ordering::Release);
        if list.truncate(cut, submitted) {
            self.tells_tasks.store(true, Ordering::Relaxed);
        }
    }

    /// Unparks every thread, and has the waker of every task called, to find out why: a failure, or the end.
    pub(crate) fn wake_all(&self) {
        let mut list = self.lock();
        list.over = true;
        // A task that comes later finds out by itself.
        if list.tasks.iter().any(|order| !order.is_empty()) {
            self.tells_tasks.store(true, Ordering::Relaxed);
        }
        drop(list);
        for stage in Stage::ALL {
            self.unpark_due(stage, Due::All);
        }
    }

    // ---- What waits ----

    /// How many truncations there were: what [`Waiters::was_cut`] goes by.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Whether the entry at `index` was truncated since there were `since` truncations.
    pub(crate) fn was_cut(&self, index: u64, since: u64) -> bool {
        // The mark that a replacement moved was seen with Acquire, so its truncation is seen here.
        self.cuts() != since && self.lock().cuts.covers(index, since)
    }

    /// Registers a waiter whose wait began when there were `since` truncations.
    pub(crate) fn register(
        &self,
        index: u64,
        stage: Stage,
        since: u64,
        target: Target,
    ) -> (WaiterId, Seen) {
        let kind = target.kind();
        let mut list = self.lock();
        let truncated = list.cuts.covers(index, since);
        let id = list.places.add(index, stage, target);
        list.queue(kind, stage, Ticket { index, id });
        self.lower(kind, stage, index);
        let seen = Seen { truncated, reached: false };
        drop(list);
        // Pairs with the fence in `Progress::moved`.
        fence(Ordering::SeqCst);
        (id, seen)
    }

    fn lower(&self, kind: Kind, stage: Stage, index: u64) {
        let lowest = self.lowest(kind, stage);
        if index < lowest.load(Ordering::Relaxed) {
            lowest.store(index, Ordering::Relaxed);
        }
    }

    /// Has a registered thread wait on.
    pub(crate) fn renew_thread(&self, id: WaiterId, thread: impl FnOnce() -> Thread) -> Seen {
        let mut list = self.lock();
        let seen = list.seen(id);
        if let Some(place) = list.places.get(id)
            && !seen.is_settled()
        {
            place.target.get_or_insert_with(|| Target::Thread(thread()));
        }
        self.wait_on(list, id, seen)
    }

    /// Has a registered task wait on, with another waker. Both wakers are foreign code: the new one is cloned and the old
    /// one is dropped without the lock.
    pub(crate) fn renew_task(&self, id: WaiterId, waker: &Waker) -> Seen {
        let mut list = self.lock();
        let mut before = None;
        let is_same = list.places.get(id).is_some_and(|place| place.has_waker(waker));
        if !is_same {
            drop(list);
            let waker = waker.clone();
            list = self.lock();
            let place = list.places.get(id);
            before = place.and_then(|place| place.target.replace(Target::Task(waker)));
        }
        let seen = list.seen(id);
        let seen = self.wait_on(list, id, seen);
        drop(before);
        seen
    }

    /// Puts a waiter that was taken off its order back into it, unless what it waits for is settled.
    fn wait_on(&self, mut list: MutexGuard<'_, List>, id: WaiterId, seen: Seen) -> Seen {
        if let Some(place) = list.places.get(id)
            && !place.queued
            && !seen.is_settled()
        {
            let (kind, index, stage) = (place.kind, place.index, place.stage);
            place.queued = true;
            list.queue(kind, stage, Ticket { index, id });
            self.lower(kind, stage, index);
        }
        drop(list);
        // As in `register`.
        fence(Ordering::SeqCst);
        seen
    }

    /// Removes a waiter; whether what it waits for was truncated before it was reached.
    pub(crate) fn deregister(&self, id: WaiterId) -> bool {
        let mut list = self.lock();
        let Some(gone) = list.places.remove(id) else { return false };
        if gone.queued {
            let (places, order) = list.order(gone.kind, gone.stage);
            order.leave(|ticket| places.is_queued(ticket));
            if self.lowest(gone.kind, gone.stage).load(Ordering::Relaxed) == gone.index {
                self.update_lowest(&mut list, gone.kind, gone.stage);
            }
        }
        drop(list);
        // A task's waker is dropped with it here: without the lock.
        gone.truncated
    }

    /// Waiters that there is room for without an allocation, and so many tickets.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn capacity(&self) -> (usize, usize) {
        let list = self.lock();
        let orders = list.threads.iter().chain(&list.tasks);
        (list.places.capacity(), orders.map(Order::capacity).sum())
    }

    // ---- What is counted ----

    /// How many calls of a waker panicked.
    pub(crate) fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    /// How long the longest call of a waker took.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed))
    }
}

impl Seen {
    /// Whether there is nothing left to wait for.
    fn is_settled(self) -> bool {
        self.reached || self.truncated
    }
}

impl List {
    fn order(&mut self, kind: Kind, stage: Stage) -> (&Places, &mut Order) {
        let orders = if kind == Kind::Thread { &mut self.threads } else { &mut self.tasks };
        (&self.places, &mut orders[stage.at()])
    }

    fn queue(&mut self, kind: Kind, stage: Stage, ticket: Ticket) {
        self.order(kind, stage).1.add(ticket);
    }

    /// Takes the first waiter of an order, if it is due.
    fn take_due(&mut self, kind: Kind, stage: Stage, due: Due) -> Option<Target> {
        loop {
            let (places, order) = self.order(kind, stage);
            let first = order.first(|ticket| places.is_queued(ticket))?;
            if matches!(due, Due::Below(mark) if first.index >= mark) {
                return None;
            }
            order.remove_first();
            let place = self.places.get(first.id)?;
            place.queued = false;
            place.reached |= due != Due::All && !place.truncated;
            if let Some(target) = place.target.take() {
                return Some(target);
            }
        }
    }

    /// Notes the tasks that are due, a few at a time; whether any ticket was.
    fn tell(&mut self, stage: Stage, due: Due) -> bool {
        let order = &mut self.tasks[stage.at()];
        // First the tickets, then the places: the processor waits for all of these at once.
        let mut tickets = [const { None }; TASKS];
        for ticket in &mut tickets {
            *ticket = match due {
                Due::Below(mark) => order.pop_below(mark),
                Due::All => order.pop(),
            };
            if ticket.is_none() {
                break;
            }
        }
        for ticket in tickets.iter().flatten() {
            match self.places.get(ticket.id).filter(|place| place.queued) {
                Some(place) => {
                    place.queued = false;
                    place.reached |= due != Due::All && !place.truncated;
                    self.told.push_back(ticket.id);
                }
                None => order.has_died(),
            }
        }
        tickets.iter().any(Option::is_some)
    }

    /// Marks the waiters whose entries are gone; unparks the threads, and notes the tasks. Whether there are any.
    fn truncate(&mut self, cut: u64, submitted: u64) -> bool {
        let before = self.told.len();
        let Self { places, threads, tasks, told, .. } = self;
        for ticket in threads.iter().flat_map(|order| order.between(cut, submitted)) {
            if let Some(Target::Thread(thread)) = places.truncate(&ticket) {
                // Under the lock: a truncation is rare, and unparking a thread runs no foreign code.
                thread.unpark();
            }
        }
        for ticket in tasks.iter().flat_map(|order| order.between(cut, submitted)) {
            if places.truncate(&ticket).is_some() {
                told.push_back(ticket.id);
            }
        }
        told.len() > before
    }

    fn seen(&mut self, id: WaiterId) -> Seen {
        let place = self.places.get(id);
        Seen {
            truncated: place.as_ref().is_some_and(|place| place.truncated),
            reached: place.is_some_and(|place| place.reached),
        }
    }
}

/// Whether this thread calls wakers of some waiters at the moment, and whose.
struct Inside(usize);

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")]
    static INSIDE: Cell<usize> = Cell::new(0);
}

impl Inside {
    /// `None` if it is inside of the same already.
    fn enter(waiters: &Waiters) -> Option<Self> {
        let address = std::ptr::from_ref(waiters).addr();
        let before = INSIDE.with(|inside| inside.replace(address));
        (before != address).then_some(Self(before))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(self.0));
    }
}
