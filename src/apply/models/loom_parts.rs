//! Models of the parts: watermarks, waiters, signals, poison.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Mutex;
use loom::thread;

use super::FOREVER;
use crate::error::{Poison, WaitError};
use crate::numbers::{FrameSequence, Mark};
use crate::progress::waiter::{self, Acknowledged, Wait};
use crate::progress::watermark::{AckRule, Progress, Stage, StartMarks, WakesTasks};
use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::bell::Bell;
use crate::sync::signal::Signal;
use crate::sync::thread::{Thread, current, park};
use crate::sync::{self, Rank, canary};

/// Runs `model` in every interleaving with at most `preemptions_max` preemptions, unless
/// `LOOM_MAX_PREEMPTIONS` sets another number.
pub(super) fn check(preemptions_max: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions_max);
    builder.max_branches = builder.max_branches.max(10_000);
    builder.check(model);
}

/// A progress with one entry submitted and committed.
fn progress(rule: AckRule) -> Arc<Progress> {
    let progress = Arc::new(Progress::new(rule, StartMarks::default(), Arc::default()));
    progress.submit_to(Mark::before(1)).unwrap();
    progress.commit_to(Mark::before(1)).unwrap();
    progress
}

fn spawn(
    progress: &Arc<Progress>,
    run: impl FnOnce(&Progress) + 'static,
) -> thread::JoinHandle<()> {
    let progress = Arc::clone(progress);
    thread::spawn(move || run(&progress))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn poll_once(future: Pin<&mut Acknowledged>) -> Poll<Result<(), WaitError>> {
    let waker = Waker::from(Arc::new(Unpark(current())));
    future.poll(&mut Context::from_waker(&waker))
}

fn block_on(mut future: Pin<&mut Acknowledged>) -> Result<(), WaitError> {
    loop {
        match poll_once(future.as_mut()) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => park(),
        }
    }
}

fn a_mark_moves_while_a_thread_begins_to_wait() {
    let progress = progress(AckRule::Applied);
    let mover = spawn(&progress, |progress| progress.apply_to(Mark::before(1)).unwrap());
    waiter::wait(&progress, 0, Stage::Applied, FOREVER).unwrap();
    mover.join().unwrap();
}

/// Proves ORD-14.
#[test]
fn a_waiter_that_registers_while_the_mark_moves_wakes() {
    check(3, a_mark_moves_while_a_thread_begins_to_wait);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_waiters_fence_its_wake_up_is_lost() {
    let _canary = canary::leave_out("progress/waiters.rs");
    check(3, a_mark_moves_while_a_thread_begins_to_wait);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_movers_fence_the_wake_up_is_lost() {
    let _canary = canary::leave_out("progress/watermark.rs");
    check(3, a_mark_moves_while_a_thread_begins_to_wait);
}

/// Proves ORD-14.
#[test]
fn a_task_that_registers_while_the_mark_moves_wakes() {
    check(3, || {
        let progress = progress(AckRule::Applied);
        let mover = spawn(&progress, |progress| {
            progress.apply_to(Mark::before(1)).unwrap();
            progress.wake_tasks();
        });
        block_on(pin!(Acknowledged::new(Arc::clone(&progress), 0))).unwrap();
        mover.join().unwrap();
    });
}

#[test]
fn a_task_whose_mark_moves_under_a_lock_is_woken_when_the_lock_is_free() {
    check(3, a_mark_moves_under_a_lock_while_a_task_registers);
}

/// A waker that takes the lock under which the mark moves: a mover that called it under the lock
/// would wait for itself.
struct Locks(Thread, Arc<Mutex<()>>);

impl Wake for Locks {
    fn wake(self: Arc<Self>) {
        drop(self.1.lock().unwrap());
        self.0.unpark();
    }
}

fn a_mark_moves_under_a_lock_while_a_task_registers() {
    let progress = progress(AckRule::Applied);
    let lock = Arc::new(Mutex::new(()));
    let theirs = Arc::clone(&lock);
    let mover = spawn(&progress, move |progress| {
        let _tasks = WakesTasks(progress);
        let _held = theirs.lock().unwrap();
        progress.apply_to(Mark::before(1)).unwrap();
    });
    let waker = Waker::from(Arc::new(Locks(current(), lock)));
    let mut future = pin!(Acknowledged::new(Arc::clone(&progress), 0));
    while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        park();
    }
    mover.join().unwrap();
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_waiters_fence_a_task_is_not_woken() {
    let _canary = canary::leave_out("progress/waiters.rs");
    check(3, a_mark_moves_under_a_lock_while_a_task_registers);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_movers_fence_a_task_is_not_woken() {
    let _canary = canary::leave_out("progress/watermark.rs");
    check(3, a_mark_moves_under_a_lock_while_a_task_registers);
}

/// Two threads move the two marks of one index, and each wakes tasks. Exactly one of them calls the
/// waker.
#[test]
fn of_two_who_make_an_index_acknowledged_together_one_wakes_the_task() {
    check(2, || {
        let progress = progress(AckRule::Durable);
        let worker = spawn(&progress, |progress| {
            progress.apply_to(Mark::before(1)).unwrap();
            progress.wake_tasks();
        });
        let writer = spawn(&progress, |progress| {
            progress.logged_to(FrameSequence::new(1), Mark::before(1), true).unwrap();
            progress.wake_tasks();
        });
        block_on(pin!(Acknowledged::new(Arc::clone(&progress), 0))).unwrap();
        worker.join().unwrap();
        writer.join().unwrap();
    });
}

/// Truncates index 0, and appends, applies and makes durable another entry in its place.
fn replace_the_first(progress: &Progress) {
    progress.truncate_to(FrameSequence::new(2), Mark::NONE).unwrap();
    progress.submit_to(Mark::before(1)).unwrap();
    progress.commit_to(Mark::before(1)).unwrap();
    progress.apply_to(Mark::before(1)).unwrap();
    progress.logged_to(FrameSequence::new(3), Mark::before(1), true).unwrap();
    progress.wake_tasks();
}

/// A wait has begun, and registers while its entry is truncated and replaced.
#[test]
fn a_wait_that_has_begun_is_not_satisfied_by_what_replaces_its_entry_before_it_registers() {
    check(3, || {
        let marks = StartMarks::default();
        let progress = Arc::new(Progress::new(AckRule::Durable, marks, Arc::default()));
        progress.submit_to(Mark::before(1)).unwrap();
        let mut wait = Wait::begin(&progress, 0, Stage::Acknowledged);
        let replacing = spawn(&progress, replace_the_first);
        let outcome = loop {
            if let Some(outcome) = wait.settle().or_else(|| wait.look_as_thread()) {
                break outcome;
            }
            park();
        };
        assert!(matches!(outcome, Err(WaitError::Truncated { index: 0 })), "{outcome:?}");
        replacing.join().unwrap();
    });
}

/// One waiter leaves while another registers and the mark moves to it.
#[test]
fn a_waiter_that_leaves_takes_no_wake_up_with_it() {
    check(2, || {
        let progress = progress(AckRule::Applied);
        progress.submit_to(Mark::before(2)).unwrap();
        progress.commit_to(Mark::before(2)).unwrap();
        let mover = spawn(&progress, |progress| {
            progress.apply_to(Mark::before(1)).unwrap();
            progress.apply_to(Mark::before(2)).unwrap();
        });
        let leaving = spawn(&progress, |progress| {
            let mut wait = Wait::begin(progress, 0, Stage::Applied);
            drop(wait.look_as_thread());
        });
        waiter::wait(&progress, 1, Stage::Applied, FOREVER).unwrap();
        mover.join().unwrap();
        leaving.join().unwrap();
    });
}

#[test]
fn two_waiters_for_two_indexes_wake_each_at_its_own() {
    check(2, || {
        let progress = progress(AckRule::Applied);
        progress.submit_to(Mark::before(2)).unwrap();
        progress.commit_to(Mark::before(2)).unwrap();
        let first = spawn(&progress, |progress| {
            waiter::wait(progress, 0, Stage::Applied, FOREVER).unwrap();
        });
        let mover = spawn(&progress, |progress| {
            progress.apply_to(Mark::before(1)).unwrap();
            progress.apply_to(Mark::before(2)).unwrap();
        });
        waiter::wait(&progress, 1, Stage::Applied, FOREVER).unwrap();
        first.join().unwrap();
        mover.join().unwrap();
    });
}

#[test]
fn of_two_who_make_an_index_acknowledged_together_one_wakes_the_waiter() {
    check(2, || {
        let progress = progress(AckRule::Durable);
        let worker = spawn(&progress, |progress| progress.apply_to(Mark::before(1)).unwrap());
        let writer = spawn(&progress, |progress| {
            progress.logged_to(FrameSequence::new(1), Mark::before(1), true).unwrap()
        });
        waiter::wait(&progress, 0, Stage::Acknowledged, FOREVER).unwrap();
        worker.join().unwrap();
        writer.join().unwrap();
    });
}

fn the_next_range_comes_while_a_worker_goes_to_sleep() {
    let shared = Arc::new((Signal::default(), ArrayQueue::new(4)));
    let theirs = Arc::clone(&shared);
    let worker = thread::spawn(move || {
        let (signal, ring) = &*theirs;
        signal.attach();
        let mut popped = 0;
        while popped < 2 {
            match ring.pop() {
                Some(()) => popped += 1,
                None => signal.sleep(None, || !ring.is_empty()),
            }
        }
    });
    let (signal, ring) = &*shared;
    for _range in 0..2 {
        ring.push(()).unwrap();
        signal.notify();
    }
    worker.join().unwrap();
}

/// Proves ORD-14.
#[test]
fn a_thread_that_goes_to_sleep_while_work_comes_wakes() {
    check(3, the_next_range_comes_while_a_worker_goes_to_sleep);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_signals_fences_a_wake_up_is_lost() {
    let _canary = canary::leave_out("sync/signal.rs");
    check(3, the_next_range_comes_while_a_worker_goes_to_sleep);
}

/// A caller writes in the log writer's post, and leaves a sync that is due by time. Meanwhile the
/// log writer's thread goes to sleep without a time.
fn a_deadline_comes_while_a_thread_goes_to_sleep() {
    let shared = Arc::new((Signal::default(), AtomicBool::new(false)));
    let theirs = Arc::clone(&shared);
    let sleeper = thread::spawn(move || {
        let (signal, timed) = &*theirs;
        signal.attach();
        // With a deadline it would sleep for a time, and then act.
        while !timed.load(Ordering::Acquire) {
            signal.sleep(None, || timed.load(Ordering::Acquire));
        }
    });
    let (signal, timed) = &*shared;
    timed.store(true, Ordering::Release);
    signal.notify_of_time();
    sleeper.join().unwrap();
}

#[test]
fn a_thread_that_goes_to_sleep_for_good_while_a_deadline_comes_wakes() {
    check(3, a_deadline_comes_while_a_thread_goes_to_sleep);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_signals_fences_a_deadline_is_slept_through() {
    let _canary = canary::leave_out("sync/signal.rs");
    check(3, a_deadline_comes_while_a_thread_goes_to_sleep);
}

/// Rings a bell while a caller begins to listen.
fn a_bell_rings_while_a_caller_begins_to_listen() {
    let shared = Arc::new((Bell::default(), AtomicBool::new(false)));
    let theirs = Arc::clone(&shared);
    let ringer = thread::spawn(move || {
        theirs.1.store(true, Ordering::Relaxed);
        theirs.0.ring();
    });
    let listener = shared.0.listen();
    while !shared.1.load(Ordering::Relaxed) {
        listener.sleep(None);
    }
    drop(listener);
    ringer.join().unwrap();
}

#[test]
fn a_caller_that_begins_to_listen_while_the_bell_rings_wakes() {
    check(3, a_bell_rings_while_a_caller_begins_to_listen);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_bells_fences_a_ring_is_lost() {
    let _canary = canary::leave_out("sync/bell.rs");
    check(3, a_bell_rings_while_a_caller_begins_to_listen);
}

/// A caller finds a place taken, and listens, while the thread that has it lets go of it and rings.
#[test]
fn a_caller_that_finds_a_place_taken_wakes_when_it_is_free() {
    check(3, || {
        let shared = Arc::new((Bell::default(), sync::Mutex::new(Rank::LogWriter, 0)));
        let theirs = Arc::clone(&shared);
        let holder = thread::spawn(move || {
            *theirs.1.lock() += 1;
            theirs.0.ring();
        });
        let mut listener = None;
        loop {
            if let Some(mut place) = shared.1.try_lock() {
                *place += 1;
                break;
            }
            match &listener {
                None => listener = Some(shared.0.listen()),
                Some(listener) => listener.sleep(None),
            }
        }
        drop(listener);
        holder.join().unwrap();
        assert_eq!(*shared.1.lock(), 2);
    });
}

/// A thread of a model that takes two locks against their ranks is told, though no other thread is
/// in its way.
#[test]
#[should_panic(expected = "ranks must rise")]
fn a_model_asserts_that_ranks_rise() {
    check(1, || {
        let (low, high) =
            (sync::Mutex::new(Rank::Appender, ()), sync::Mutex::new(Rank::Waiters, ()));
        let _high = high.lock();
        drop(low.lock());
    });
}

#[test]
fn poison_reaches_whoever_begins_to_wait() {
    check(3, || {
        let progress = progress(AckRule::Durable);
        let failing = spawn(&progress, |progress| progress.fail(Poison::Internal("of a model")));
        let outcome = waiter::wait(&progress, 0, Stage::Acknowledged, FOREVER);
        assert!(matches!(outcome, Err(WaitError::Poisoned(_))));
        failing.join().unwrap();
    });
}

/// Proves ORD-13.
#[test]
fn a_mark_reached_before_poison_still_counts() {
    check(3, || {
        let progress = progress(AckRule::Applied);
        let failing = spawn(&progress, |progress| {
            progress.apply_to(Mark::before(1)).unwrap();
            progress.fail(Poison::Internal("of a model"));
        });
        waiter::wait(&progress, 0, Stage::Acknowledged, FOREVER).unwrap();
        failing.join().unwrap();
    });
}

#[test]
fn of_two_failures_all_see_the_same() {
    check(3, || {
        let progress = progress(AckRule::Applied);
        let other = spawn(&progress, |progress| progress.fail(Poison::Internal("one")));
        progress.fail(Poison::Internal("two"));
        let first = progress.poison.get().map(ToString::to_string);
        other.join().unwrap();
        assert!(first.is_some());
        assert_eq!(first, progress.poison.get().map(ToString::to_string));
    });
}

#[test]
fn the_end_of_the_manager_reaches_whoever_begins_to_wait() {
    check(3, || {
        let progress = progress(AckRule::Applied);
        let closing = spawn(&progress, |progress| progress.end());
        let outcome = waiter::wait(&progress, 0, Stage::Applied, FOREVER);
        assert!(matches!(outcome, Err(WaitError::Closed { index: 0 })));
        closing.join().unwrap();
    });
}

#[test]
fn a_mark_reached_before_the_end_still_counts() {
    check(3, || {
        let progress = progress(AckRule::Applied);
        let closing = spawn(&progress, |progress| {
            progress.apply_to(Mark::before(1)).unwrap();
            progress.end();
        });
        waiter::wait(&progress, 0, Stage::Applied, FOREVER).unwrap();
        closing.join().unwrap();
    });
}

/// A waiter for index 0 is registered before that.
///
/// Proves ORD-15.
#[test]
fn a_waiter_is_never_satisfied_by_what_replaced_its_entry() {
    check(3, || {
        let marks = StartMarks::default();
        let progress = Arc::new(Progress::new(AckRule::Durable, marks, Arc::default()));
        progress.submit_to(Mark::before(1)).unwrap();
        let mut waiting = pin!(Acknowledged::new(Arc::clone(&progress), 0));
        assert!(poll_once(waiting.as_mut()).is_pending());
        let replacing = spawn(&progress, replace_the_first);
        let outcome = block_on(waiting);
        assert!(matches!(outcome, Err(WaitError::Truncated { index: 0 })), "{outcome:?}");
        replacing.join().unwrap();
    });
}

#[test]
fn a_truncation_wakes_whoever_waits_for_what_it_removes_and_nobody_else() {
    check(3, || {
        let progress = progress(AckRule::Durable);
        progress.submit_to(Mark::before(2)).unwrap();
        let mut kept = pin!(Acknowledged::new(Arc::clone(&progress), 0));
        let mut removed = pin!(Acknowledged::new(Arc::clone(&progress), 1));
        assert!(poll_once(kept.as_mut()).is_pending() && poll_once(removed.as_mut()).is_pending());
        let truncating = spawn(&progress, |progress| {
            progress.truncate_to(FrameSequence::new(2), Mark::before(1)).unwrap();
            progress.apply_to(Mark::before(1)).unwrap();
            progress.logged_to(FrameSequence::new(2), Mark::before(1), true).unwrap();
            progress.wake_tasks();
        });
        let outcome = block_on(removed);
        assert!(matches!(outcome, Err(WaitError::Truncated { index: 1 })), "{outcome:?}");
        block_on(kept).unwrap();
        truncating.join().unwrap();
    });
}
