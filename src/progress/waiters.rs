//! The registered waiters, of any index and number, both threads and tasks.
//!
//! No wake-up is lost. A waiter registers, fences, and looks at the watermark again. A mover of a
//! watermark stores it, fences, and looks for waiters. One of the two sees the other.
//!
//! Threads are unparked by the thread that moves the watermark. A task's waker is foreign code: it
//! runs later, in [`Waiters::wake_tasks`], which callers reach without any lock of the engine.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::order::{Order, Ticket, WaiterId};
use super::seats::{Kind, Seats, Target};
use super::truncations::RecentTruncations;
use super::watermark::Stage;
use crate::bytes::nanos;
use crate::numbers::Mark;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use crate::sync::thread::Thread;
use crate::sync::{Mutex, MutexGuard, Rank, assert_none_held, thread_local};

/// The lowest index of an order without waiters. No mark is above it.
const NONE: u64 = u64::MAX;
/// Number of threads taken off an order at a time.
const THREADS: usize = 16;
/// Number of tasks taken off an order at a time.
const TASKS: usize = 32;

/// The waiters to wake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// Waiters for indexes that a mark covers.
    Below(Mark),
    All,
}

/// Findings of a waiter that looks under the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Whether its entry was truncated.
    pub(crate) truncated: bool,
    /// Whether it was woken because its stage covered its index.
    pub(crate) reached: bool,
}

/// The registered waiters.
#[derive(Debug)]
pub(crate) struct Waiters {
    /// For each stage, the lowest index that a parked and not yet notified thread waits for. Movers
    /// compare it and skip the lock.
    threads: CachePadded<[AtomicU64; Stage::ALL.len()]>,
    /// For each stage, the lowest index that a task waits for.
    tasks: CachePadded<[AtomicU64; Stage::ALL.len()]>,
    /// Whether tasks are to be woken independent of the marks: after a truncation, a failure, or
    /// the end.
    tells_tasks: AtomicBool,
    /// Number of truncations.
    truncations: AtomicU64,
    list: Mutex<List>,
    /// Number of wakers that panicked.
    panicked: AtomicU64,
    /// Longest call of a waker, in nanoseconds.
    longest_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct List {
    seats: Seats,
    threads: [Order; Stage::ALL.len()],
    tasks: [Order; Stage::ALL.len()],
    truncations: RecentTruncations,
    /// Tasks whose wakers are due and not yet called: their index is covered, or their entry is
    /// gone.
    told: VecDeque<WaiterId>,
    /// Whether every task is to be woken, whatever it waits for.
    over: bool,
}

impl Default for Waiters {
    fn default() -> Self {
        let none = || CachePadded::new([const { NONE }; Stage::ALL.len()].map(AtomicU64::new));
        Self {
            threads: none(),
            tasks: none(),
            tells_tasks: AtomicBool::new(false),
            truncations: AtomicU64::new(0),
            list: Mutex::new(Rank::Waiters, List::default()),
            panicked: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }
}

impl Waiters {
    fn lowest(&self, kind: Kind, stage: Stage) -> &AtomicU64 {
        let lowest = if kind == Kind::Thread { &self.threads } else { &self.tasks };
        &lowest[stage.at()]
    }

    fn update_lowest(&self, list: &mut List, kind: Kind, stage: Stage) {
        let (seats, order) = list.order(kind, stage);
        let first = order.first(|ticket| seats.is_queued(ticket));
        let lowest = first.map_or(NONE, |ticket| ticket.index);
        self.lowest(kind, stage).store(lowest, Ordering::Relaxed);
    }

    // ---- Calls of movers ----

    /// Unparks each thread whose index is covered. The marks of `stages` may have moved, and a
    /// fence has passed since.
    #[inline]
    pub(crate) fn unpark(&self, stages: &[Stage], mark: impl Fn(Stage) -> Mark) {
        for stage in stages {
            if mark(*stage).covers(self.lowest(Kind::Thread, *stage).load(Ordering::Relaxed)) {
                self.unpark_due(*stage, Due::Below(mark(*stage)));
            }
        }
    }

    #[cold]
    fn unpark_due(&self, stage: Stage, due: Due) {
        loop {
            let mut threads = [const { None::<Thread> }; THREADS];
            let mut list = self.list.lock();
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

    /// Whether a task's waker is due. The caller has fenced after the move of a mark.
    #[inline]
    pub(crate) fn has_due_tasks(&self, mark: impl Fn(Stage) -> Mark) -> bool {
        let due = |stage: &Stage| {
            let lowest = self.lowest(Kind::Task, *stage).load(Ordering::Relaxed);
            lowest != NONE && mark(*stage).covers(lowest)
        };
        Stage::ALL.iter().any(due) || self.tells_tasks.load(Ordering::Relaxed)
    }

    /// Calls the waker of each task that is to be woken. The caller holds no lock of the engine.
    ///
    /// One waker is taken at a time, so a blocking waker holds up only this thread: another thread
    /// that arrives continues with the next one. `others` takes the due wakers of tasks that wait
    /// for something else.
    #[cold]
    pub(crate) fn wake_tasks(
        &self,
        mark: impl Fn(Stage) -> Mark,
        others: impl Fn() -> Option<Waker>,
    ) {
        let Some(_inside) = Inside::enter(self) else {
            // A waker called this: the loop that called the waker continues afterwards.
            return;
        };
        loop {
            let mut list = self.list.lock();
            let waker = self.take_waker(&mut list, &mark);
            drop(list);
            match waker.or_else(&others) {
                Some(waker) => self.call(waker),
                None => return,
            }
        }
    }

    fn take_waker(&self, list: &mut List, mark: impl Fn(Stage) -> Mark) -> Option<Waker> {
        loop {
            while let Some(id) = list.told.pop_front() {
                // A task that has looked meanwhile knows.
                let seat = list.seats.get(id);
                if let Some(Target::Task(waker)) = seat.and_then(|seat| seat.target.take()) {
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
        assert_none_held("a waker");
        if cfg!(any(loom, shuttle)) {
            // A checker's own panics must pass.
            return waker.wake();
        }
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        let took_ns = nanos(began.elapsed());
        self.longest_ns.fetch_max(took_ns, Ordering::Relaxed);
        if let Err(panic) = outcome {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            // The payload may panic when it is dropped; then it is leaked.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(panic)));
            dropped.unwrap_or_else(std::mem::forget);
        }
    }

    /// Unparks each thread, and makes each task's waker due, that waits for a truncated index.
    /// Everything from mark `left` on was truncated, of the entries below mark `submitted`.
    pub(crate) fn truncate(&self, left: Mark, submitted: Mark) {
        let mut list = self.list.lock();
        list.truncations.add(left, submitted);
        self.truncations.store(list.truncations.count(), Ordering::Release);
        if list.truncate(left, submitted) {
            self.tells_tasks.store(true, Ordering::Relaxed);
        }
    }

    /// Whether waits fail at once from now on.
    #[cfg(test)]
    pub(super) fn is_over(&self) -> bool {
        self.list.lock().over
    }

    /// Unparks every thread, and makes every task's waker due, so that all learn of a failure or
    /// the end. With `is_untold` a thread calls [`Waiters::wake_tasks`] also if there is no task,
    /// because the failure is to be told.
    pub(crate) fn wake_all(&self, is_untold: bool) {
        let mut list = self.list.lock();
        list.over = true;
        // A later task finds out when it registers.
        if is_untold || list.tasks.iter().any(|order| !order.is_empty()) {
            self.tells_tasks.store(true, Ordering::Relaxed);
        }
        drop(list);
        for stage in Stage::ALL {
            self.unpark_due(stage, Due::All);
        }
    }

    // ---- Calls of waiters ----

    /// Number of truncations, for [`Waiters::was_cut`].
    pub(crate) fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    /// Whether the entry at `index` was truncated after the first `since` truncations.
    pub(crate) fn was_cut(&self, index: u64, since: u64) -> bool {
        // The mark that a replacement moved was loaded with Acquire, so its truncation is visible
        // here.
        self.truncations() != since && self.list.lock().truncations.covers(index, since)
    }

    /// Registers a waiter whose wait began after `since` truncations.
    pub(crate) fn register(
        &self,
        index: u64,
        stage: Stage,
        since: u64,
        target: Target,
    ) -> (WaiterId, Seen) {
        let kind = target.kind();
        let mut list = self.list.lock();
        let truncated = list.truncations.covers(index, since);
        let id = list.seats.add(index, stage, target);
        list.queue(kind, stage, Ticket { index, id });
        self.lower(kind, stage, index);
        let seen = Seen { truncated, reached: false };
        drop(list);
        // This fence pairs with the one in `Progress::moved`.
        fence(Ordering::SeqCst);
        (id, seen)
    }

    fn lower(&self, kind: Kind, stage: Stage, index: u64) {
        let lowest = self.lowest(kind, stage);
        if index < lowest.load(Ordering::Relaxed) {
            lowest.store(index, Ordering::Relaxed);
        }
    }

    /// Renews the wait of a registered thread.
    pub(crate) fn renew_thread(&self, id: WaiterId, thread: impl FnOnce() -> Thread) -> Seen {
        let mut list = self.list.lock();
        let seen = list.seen(id);
        if let Some(seat) = list.seats.get(id)
            && !seen.is_settled()
        {
            seat.target.get_or_insert_with(|| Target::Thread(thread()));
        }
        self.wait_on(list, id, seen)
    }

    /// Renews the wait of a registered task, with another waker. Both wakers are foreign code: the
    /// new one is cloned and the old one is dropped outside of the lock.
    pub(crate) fn renew_task(&self, id: WaiterId, waker: &Waker) -> Seen {
        let mut list = self.list.lock();
        let mut before = None;
        let is_same = list.seats.get(id).is_some_and(|seat| seat.has_waker(waker));
        if !is_same {
            drop(list);
            let waker = waker.clone();
            list = self.list.lock();
            let seat = list.seats.get(id);
            before = seat.and_then(|seat| seat.target.replace(Target::Task(waker)));
        }
        let seen = list.seen(id);
        let seen = self.wait_on(list, id, seen);
        drop(before);
        seen
    }

    /// Puts a waiter that was taken off its order back, unless its wait is settled.
    fn wait_on(&self, mut list: MutexGuard<'_, List>, id: WaiterId, seen: Seen) -> Seen {
        if let Some(seat) = list.seats.get(id)
            && !seat.queued
            && !seen.is_settled()
        {
            let (kind, index, stage) = (seat.kind, seat.index, seat.stage);
            seat.queued = true;
            list.queue(kind, stage, Ticket { index, id });
            self.lower(kind, stage, index);
        }
        drop(list);
        // This fence acts as in `register`.
        fence(Ordering::SeqCst);
        seen
    }

    /// Removes a waiter. Returns whether its entry was truncated before it was reached.
    pub(crate) fn deregister(&self, id: WaiterId) -> bool {
        let mut list = self.list.lock();
        let Some(gone) = list.seats.remove(id) else { return false };
        if gone.queued {
            let (seats, order) = list.order(gone.kind, gone.stage);
            order.leave(|ticket| seats.is_queued(ticket));
            if self.lowest(gone.kind, gone.stage).load(Ordering::Relaxed) == gone.index {
                self.update_lowest(&mut list, gone.kind, gone.stage);
            }
        }
        drop(list);
        // A task's waker is dropped here, outside of the lock.
        gone.truncated
    }

    /// Number of waiters, and of tickets, that fit without an allocation.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn capacity(&self) -> (usize, usize) {
        let list = self.list.lock();
        let orders = list.threads.iter().chain(&list.tasks);
        (list.seats.capacity(), orders.map(Order::capacity).sum())
    }

    // ---- Figures ----

    /// Number of waker calls that panicked.
    pub(crate) fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Duration of the longest waker call.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed))
    }
}

impl Seen {
    /// Whether the wait is decided.
    fn is_settled(self) -> bool {
        self.reached || self.truncated
    }
}

impl List {
    fn order(&mut self, kind: Kind, stage: Stage) -> (&Seats, &mut Order) {
        let orders = if kind == Kind::Thread { &mut self.threads } else { &mut self.tasks };
        (&self.seats, &mut orders[stage.at()])
    }

    fn queue(&mut self, kind: Kind, stage: Stage, ticket: Ticket) {
        self.order(kind, stage).1.add(ticket);
    }

    /// Takes the first waiter of an order, if it is due.
    fn take_due(&mut self, kind: Kind, stage: Stage, due: Due) -> Option<Target> {
        loop {
            let (seats, order) = self.order(kind, stage);
            let first = order.first(|ticket| seats.is_queued(ticket))?;
            if matches!(due, Due::Below(mark) if !mark.covers(first.index)) {
                return None;
            }
            order.remove_first();
            let seat = self.seats.get(first.id)?;
            seat.queued = false;
            seat.reached |= due != Due::All && !seat.truncated;
            if let Some(target) = seat.target.take() {
                return Some(target);
            }
        }
    }

    /// Notes the tasks that are due, a few at a time. Returns whether any ticket was.
    fn tell(&mut self, stage: Stage, due: Due) -> bool {
        let order = &mut self.tasks[stage.at()];
        // Read the tickets first, then the seats, so that the processor waits for all of these at
        // once.
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
            match self.seats.get(ticket.id).filter(|seat| seat.queued) {
                Some(seat) => {
                    seat.queued = false;
                    seat.reached |= due != Due::All && !seat.truncated;
                    self.told.push_back(ticket.id);
                }
                None => order.has_died(),
            }
        }
        tickets.iter().any(Option::is_some)
    }

    /// Marks the waiters whose entries are gone, unparks the threads, and notes the tasks. Returns
    /// whether there are any.
    fn truncate(&mut self, left: Mark, submitted: Mark) -> bool {
        let before = self.told.len();
        let Self { seats, threads, tasks, told, .. } = self;
        for ticket in threads.iter().flat_map(|order| order.between(left, submitted)) {
            if let Some(Target::Thread(thread)) = seats.truncate(&ticket) {
                // This is done under the lock, because a truncation is rare, and unparking a thread
                // runs no foreign code.
                thread.unpark();
            }
        }
        for ticket in tasks.iter().flat_map(|order| order.between(left, submitted)) {
            if seats.truncate(&ticket).is_some() {
                told.push_back(ticket.id);
            }
        }
        told.len() > before
    }

    fn seen(&mut self, id: WaiterId) -> Seen {
        let seat = self.seats.get(id);
        Seen {
            truncated: seat.as_ref().is_some_and(|seat| seat.truncated),
            reached: seat.is_some_and(|seat| seat.reached),
        }
    }
}

/// Mark that this thread is calling the wakers of some waiters.
struct Inside(usize);

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")]
    static INSIDE: Cell<usize> = Cell::new(0);
}

impl Inside {
    /// Enters the calls; `None` if this thread is already calling wakers of the same waiters.
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
