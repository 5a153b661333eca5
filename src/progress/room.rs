//! The line of calls that wait for room in the pipeline.
//!
//! The line is served from its front: a call is woken once there is room for it and for each call
//! before it. A later call that waits never passes one that stands in the line. A thread in the
//! line is not passed by a call that does not wait either.
//!
//! No wake-up is lost. A call lowers `wakes_at`, fences, and looks at the marks again. A mover
//! stores a mark, fences, and looks at `wakes_at`. One of the two sees the other. Room that no mark
//! tells of, as a free image or the end of a claim, comes with [`Room::changed`].

use std::collections::VecDeque;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use super::seats::Target;
use super::watermark::Progress;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard, Rank};

/// `wakes_at` if no call sleeps in the line.
const NONE: u64 = u64::MAX;
/// `wakes_at` if the first call that sleeps waits for any change.
const ANY: u64 = 0;

/// A place in the line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket(u64);

/// The line; see the module.
#[derive(Debug)]
pub(crate) struct Room {
    /// The pipeline's depth, in entries.
    depth: u64,
    marks: CachePadded<Marks>,
    line: Mutex<Line>,
}

/// The part that threads outside of the line look at.
#[derive(Debug)]
struct Marks {
    /// The acknowledged index, plus one, at which a call may be woken. [`NONE`] and [`ANY`] are no
    /// indexes.
    wakes_at: AtomicU64,
    /// Number of calls in the line.
    calls: AtomicU64,
    /// Entries of the threads in the line.
    reserved: AtomicU64,
    /// Whether a task in the line is to be woken.
    tells_tasks: AtomicBool,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// The calls, the first one first.
    seats: VecDeque<Seat>,
    /// Tasks whose wakers are due and not yet called.
    due: VecDeque<Ticket>,
}

#[derive(Debug)]
struct Seat {
    ticket: Ticket,
    /// Number of entries.
    need: u64,
    is_task: bool,
    /// Whether the call has been told to try, and has not come back to sleep. A thread comes back
    /// for certain; a task may never be polled again, so the line does not wait for it.
    told: bool,
    /// Whether the call was refused though the pipeline had room, so that any change may help it.
    blocked: bool,
    /// The way to wake the call; `None` while it is awake.
    target: Option<Target>,
}

impl Room {
    pub(super) fn new(depth: u64) -> Self {
        let marks = Marks {
            wakes_at: AtomicU64::new(NONE),
            calls: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            tells_tasks: AtomicBool::new(false),
        };
        let line = Mutex::new(Rank::RoomLine, Line::default());
        Self { depth, marks: CachePadded::new(marks), line }
    }

    // ---- Looks from outside ----

    /// Whether no call is in the line. A call that may wait enters the line if there is one.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.marks.calls.load(Ordering::Relaxed) == 0
    }

    /// Number of entries for which threads in the line wait: a call that does not wait leaves room
    /// for them.
    #[inline]
    pub(crate) fn reserved(&self) -> u64 {
        self.marks.reserved.load(Ordering::Relaxed)
    }

    /// Whether the pipeline has room for so many entries, by its depth alone.
    #[inline]
    pub(crate) fn has_room(&self, progress: &Progress, need: u64) -> bool {
        // A sum that saturates is above every depth.
        progress.pending().saturating_add(need) <= self.depth
    }

    // ---- Calls of movers ----

    /// Wakes calls for which there is room now. The acknowledged mark may have moved, and a fence
    /// has passed since.
    #[inline]
    pub(super) fn moved(&self, progress: &Progress) {
        let at = self.marks.wakes_at.load(Ordering::Relaxed);
        if at != NONE && progress.acknowledged_mark().next() >= at {
            self.tell(progress);
        }
    }

    /// Wakes calls after a change that no mark tells of. Costs a fence and a load if no call
    /// sleeps in the line.
    #[inline]
    pub(crate) fn changed(&self, progress: &Progress) {
        fence(Ordering::SeqCst);
        self.changed_after_fence(progress);
    }

    /// Wakes calls as [`Room::changed`] does, for a caller that has passed a SeqCst fence since
    /// the change.
    #[inline]
    pub(crate) fn changed_after_fence(&self, progress: &Progress) {
        if self.marks.wakes_at.load(Ordering::Relaxed) != NONE {
            self.tell(progress);
        }
    }

    #[cold]
    fn tell(&self, progress: &Progress) {
        let mut line = self.line.lock();
        self.serve(&mut line, progress, true, None);
    }

    /// Wakes every call, after a failure or at the end.
    pub(crate) fn wake_all(&self) {
        let mut line = self.line.lock();
        let Line { seats, due, .. } = &mut *line;
        for seat in seats.iter_mut().filter(|seat| !seat.told) {
            self.wake(seat, due);
        }
        self.marks.wakes_at.store(NONE, Ordering::Relaxed);
    }

    /// Whether a task's waker is due.
    #[inline]
    pub(super) fn has_due_tasks(&self) -> bool {
        self.marks.tells_tasks.load(Ordering::Relaxed)
    }

    /// Takes a waker that is due. The caller calls it without a lock.
    pub(super) fn take_waker(&self) -> Option<Waker> {
        if !self.has_due_tasks() {
            return None;
        }
        let mut line = self.line.lock();
        while let Some(ticket) = line.due.pop_front() {
            let seat = line.seat(ticket).filter(|seat| seat.told);
            if let Some(Target::Task(waker)) = seat.and_then(|seat| seat.target.take()) {
                return Some(waker);
            }
        }
        self.marks.tells_tasks.store(false, Ordering::Relaxed);
        None
    }

    // ---- Calls of those in the line ----

    /// Enters the line at its end, for `need` entries. The call is awake.
    pub(crate) fn enter(&self, need: u64, is_task: bool) -> Ticket {
        let need = need.min(self.depth);
        let mut line = self.line.lock();
        let ticket = Ticket(line.next);
        line.next += 1;
        let (told, blocked, target) = (true, false, None);
        line.seats.push_back(Seat { ticket, need, is_task, told, blocked, target });
        self.count(&line);
        ticket
    }

    /// Prepares the sleep of a call, which wakes by `target`. Returns whether the call tries once
    /// more instead: there is room for it and for each call before it. `blocked` says that it tried
    /// so, and was refused.
    pub(crate) fn prepare(
        &self,
        progress: &Progress,
        ticket: Ticket,
        blocked: bool,
        target: Target,
    ) -> bool {
        let mut line = self.line.lock();
        let mut before = None;
        if let Some(seat) = line.seat(ticket) {
            before = seat.target.replace(target);
            (seat.told, seat.blocked) = (false, blocked);
        }
        let tries = self.serve(&mut line, progress, false, Some(ticket));
        drop(line);
        // A waker is foreign code.
        drop(before);
        tries
    }

    /// Whether the call has been told to try.
    pub(crate) fn is_told(&self, ticket: Ticket) -> bool {
        self.line.lock().seat(ticket).is_some_and(|seat| seat.told)
    }

    /// Leaves the line. What there is room for now is woken.
    pub(crate) fn leave(&self, progress: &Progress, ticket: Ticket) {
        let mut line = self.line.lock();
        let at = line.seats.binary_search_by_key(&ticket, |seat| seat.ticket);
        // A call leaves once, so its seat is there.
        let gone = at.ok().and_then(|at| line.seats.remove(at));
        self.count(&line);
        self.serve(&mut line, progress, true, None);
        drop(line);
        // A waker is foreign code.
        drop(gone);
    }

    fn count(&self, line: &Line) {
        let threads = line.seats.iter().filter(|seat| !seat.is_task);
        let reserved = threads.map(|seat| seat.need).sum();
        self.marks.reserved.store(reserved, Ordering::Relaxed);
        self.marks.calls.store(line.seats.len() as u64, Ordering::Relaxed);
    }

    /// Tells the calls from the front on for which there is room, and notes at which mark to look
    /// again. After a `change` it also tells the first call that is blocked. The call `own` is
    /// awake, and is not woken. Returns whether there is room for it.
    fn serve(
        &self,
        line: &mut MutexGuard<'_, Line>,
        progress: &Progress,
        change: bool,
        own: Option<Ticket>,
    ) -> bool {
        if line.seats.iter().all(|seat| seat.told) {
            self.marks.wakes_at.store(NONE, Ordering::Relaxed);
            return false;
        }
        // A mover that finds this waits for the line, and looks after this look.
        self.marks.wakes_at.store(ANY, Ordering::Relaxed);
        // Pairs with the fence of each mover, in `Progress::moved` and in `changed`.
        fence(Ordering::SeqCst);
        let pending = progress.pending();
        let submitted = progress.submitted_mark().next();
        // Entries of the log that were found at opening may be more than the pipeline is deep.
        let mut room = self.depth.saturating_sub(pending);
        let (mut wakes_at, mut own_has_room) = (NONE, false);
        let Line { seats, due, .. } = &mut **line;
        for seat in seats.iter_mut() {
            if seat.told && seat.is_task {
                continue;
            }
            if seat.need > room {
                if !seat.told {
                    // A quarter of the pipeline more, so that few wakes serve many entries. The
                    // mark comes in any case: it is not above `submitted`.
                    let short = (seat.need - room).max(self.depth / 4).min(pending);
                    wakes_at = submitted - (pending - short);
                }
                break;
            }
            // A told task may never come. No mark moves after the last entry, so the room of an
            // empty pipeline is not kept for it.
            if !seat.is_task || pending > 0 {
                room -= seat.need;
            }
            own_has_room |= own == Some(seat.ticket);
            if seat.told {
                continue;
            }
            if seat.blocked && !change {
                wakes_at = ANY;
                break;
            }
            let is_last = seat.blocked;
            seat.told = true;
            if own != Some(seat.ticket) {
                self.wake(seat, due);
            }
            // A told task may never come: what changes next is for the call behind it. No change
            // may come in an empty pipeline, so all calls try there.
            if is_last && (!seat.is_task || pending > 0) {
                if seat.is_task {
                    wakes_at = ANY;
                }
                break;
            }
        }
        self.marks.wakes_at.store(wakes_at, Ordering::Relaxed);
        own_has_room
    }

    /// Wakes one call. Unparking a thread runs no foreign code; a task's waker is called later.
    fn wake(&self, seat: &mut Seat, due: &mut VecDeque<Ticket>) {
        seat.told = true;
        match &seat.target {
            Some(Target::Thread(thread)) => thread.unpark(),
            Some(Target::Task(_)) => {
                due.push_back(seat.ticket);
                self.marks.tells_tasks.store(true, Ordering::Relaxed);
            }
            None => {}
        }
    }
}

impl Line {
    fn seat(&mut self, ticket: Ticket) -> Option<&mut Seat> {
        // No seat: the call has left.
        let at = self.seats.binary_search_by_key(&ticket, |seat| seat.ticket).ok()?;
        self.seats.get_mut(at)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;
    use crate::numbers::Mark;
    use crate::progress::watermark::{AckRule, StartMarks};

    /// A progress of a pipeline of 4 entries, all of which wait to be applied.
    fn full() -> Progress {
        let progress = Progress::new(AckRule::Applied, StartMarks::default(), Arc::default());
        let progress = progress.with_depth(4);
        progress.submit_to(Mark::before(4)).unwrap();
        progress.commit_to(Mark::before(4)).unwrap();
        progress
    }

    fn thread() -> Target {
        Target::Thread(crate::sync::thread::current())
    }

    fn is_told(progress: &Progress, ticket: Ticket) -> bool {
        progress.room.line.lock().seat(ticket).unwrap().told
    }

    /// Proves ORD-18.
    #[test]
    fn a_call_is_told_once_there_is_room_for_it_and_for_each_call_before_it() {
        let progress = full();
        let enter = |need| {
            let ticket = progress.room.enter(need, false);
            assert!(!progress.room.prepare(&progress, ticket, false, thread()));
            ticket
        };
        let (first, second) = (enter(2), enter(1));
        assert_eq!(progress.room.reserved(), 3);
        progress.apply_to(Mark::before(1)).unwrap();
        assert!(!is_told(&progress, first) && !is_told(&progress, second));
        progress.apply_to(Mark::before(2)).unwrap();
        assert!(is_told(&progress, first) && !is_told(&progress, second));
        // The first one gives up: its room is the other's.
        progress.room.leave(&progress, first);
        assert!(is_told(&progress, second));
        progress.room.leave(&progress, second);
        assert!(progress.room.is_free());
        assert_eq!(progress.room.reserved(), 0);
    }

    /// Proves ORD-18.
    #[test]
    fn a_call_that_was_refused_in_spite_of_room_is_told_of_any_change() {
        let progress = full();
        progress.apply_to(Mark::before(4)).unwrap();
        let ticket = progress.room.enter(1, false);
        assert!(progress.room.prepare(&progress, ticket, false, thread()));
        assert!(progress.room.prepare(&progress, ticket, true, thread()), "it tries once more");
        assert!(!is_told(&progress, ticket));
        progress.room.changed(&progress);
        assert!(is_told(&progress, ticket));
    }

    /// Proves ORD-18.
    #[test]
    fn a_refused_task_that_is_never_polled_again_holds_up_no_call_behind_it() {
        let progress = full();
        progress.apply_to(Mark::before(2)).unwrap();
        let task = progress.room.enter(1, true);
        for blocked in [false, true] {
            let target = Target::Task(Waker::noop().clone());
            assert!(progress.room.prepare(&progress, task, blocked, target));
        }
        let thread_behind = progress.room.enter(1, false);
        assert!(!progress.room.prepare(&progress, thread_behind, false, thread()));
        progress.room.changed(&progress);
        assert!(is_told(&progress, task) && !is_told(&progress, thread_behind));
        progress.room.changed(&progress);
        assert!(is_told(&progress, thread_behind));
    }

    /// Proves ORD-18.
    #[test]
    fn tasks_that_are_never_polled_again_hold_up_no_call_behind_them() {
        let progress = full();
        for _ in 0..6 {
            let ticket = progress.room.enter(1, true);
            let target = Target::Task(Waker::noop().clone());
            assert!(!progress.room.prepare(&progress, ticket, false, target));
        }
        let ticket = progress.room.enter(4, false);
        assert!(!progress.room.prepare(&progress, ticket, false, thread()));
        progress.apply_to(Mark::before(4)).unwrap();
        assert!(is_told(&progress, ticket));
        assert!(progress.has_due_tasks());
    }
}
