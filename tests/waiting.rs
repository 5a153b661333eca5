//! Tests of waiters among others: wakers that panic or block, threads and futures side by side, and
//! many of them at once.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::common::machines::memory;
use crate::common::{
    LONG, Scratch, StopOnDrop, Watch, apply_config, block_on, eventually, manage, within,
};
use sprag::error::WaitError;
use sprag::{Acknowledged, Entry};

fn poll(future: &mut Acknowledged, waker: &Waker) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(waker)).is_ready()
}

/// A waker that counts its calls, and panics at each.
#[derive(Default)]
struct Panics(AtomicUsize);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::panic::panic_any(PanicsAgain);
    }
}

/// A panic payload that panics again when it is dropped.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("told to, once more");
    }
}

#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Proves ORD-17.
#[test]
fn a_waker_that_panics_is_counted_and_every_other_waiter_is_woken() {
    for inline in [true, false] {
        let manager = Arc::new(manage(memory(), apply_config(2).inline_apply(inline)));
        let (panics, counts) = (Arc::new(Panics::default()), Arc::new(Counts::default()));
        let panicking = Waker::from(Arc::clone(&panics));
        let counting = Waker::from(Arc::clone(&counts));
        let mut futures: Vec<_> =
            (0..300).map(|at| (at, manager.acknowledged(1 + at % 3))).collect();
        for (at, future) in &mut futures {
            assert!(!poll(future, if *at % 2 == 0 { &panicking } else { &counting }));
        }
        let watch = Watch::default();
        let (waiting, here) = (Arc::clone(&manager), watch.clone());
        let thread = thread::spawn(move || {
            here.here();
            waiting.wait_for_apply(3, LONG)
        });
        watch.until_asleep();
        for index in 1..=3 {
            manager.apply(&Entry::noop(index, 1), LONG).unwrap();
        }
        within(LONG, "a thread", move || thread.join().unwrap()).unwrap();
        let woken =
            || (panics.0.load(Ordering::Relaxed), counts.0.load(Ordering::Relaxed)) == (150, 150);
        assert!(eventually(LONG, woken), "inline: {inline}");
        assert!(eventually(LONG, || manager.stats().wakers_panicked == 150));
        for (_, future) in &mut futures {
            assert!(poll(future, &counting));
        }
        // The panic poisons nothing.
        manager.apply(&Entry::noop(4, 1), LONG).unwrap();
        assert!(manager.poison().is_none());
    }
}

/// A waker that reports its thread, and returns when it is told to.
struct Blocks(SyncSender<ThreadId>, Mutex<Receiver<()>>);

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.0.send(thread::current().id()).unwrap();
        let _late = self.1.lock().unwrap().recv_timeout(3 * LONG);
    }
}

/// Proves ORD-17.
#[test]
fn every_parked_thread_is_unparked_before_a_waker_runs() {
    for inline in [true, false] {
        let scratch = Scratch::new();
        let machine = sprag::PersistentStateMachine::open(scratch.config()).unwrap();
        let manager = Arc::new(manage(machine, apply_config(1).inline_apply(inline)));
        let ((come, came), (open, opened)) = (sync_channel(1), sync_channel(1));
        let waker = Waker::from(Arc::new(Blocks(come, Mutex::new(opened))));
        let mut future = manager.acknowledged(1);
        assert!(!poll(&mut future, &waker));
        // There are more threads than are taken at a time.
        let threads: Vec<_> = (0..40)
            .map(|_| {
                let (manager, watch) = (Arc::clone(&manager), Watch::default());
                let here = watch.clone();
                let thread = thread::spawn(move || {
                    here.here();
                    manager.wait_for_apply(1, 3 * LONG)
                });
                watch.until_asleep();
                thread
            })
            .collect();
        let applying = Arc::clone(&manager);
        let caller = thread::spawn(move || applying.apply(&Entry::noop(1, 1), LONG).map(drop));
        came.recv_timeout(LONG).unwrap();
        // The waker is still running.
        for thread in threads {
            within(LONG, "a parked thread", move || thread.join().unwrap()).unwrap();
        }
        open.send(()).unwrap();
        within(LONG, "the caller", move || caller.join().unwrap()).unwrap();
        assert!(poll(&mut future, Waker::noop()));
    }
}

/// Proves ORD-17.
#[test]
fn a_waker_that_blocks_holds_up_only_the_thread_that_calls_it() {
    // A worker that looks for work at this moment gets the entry, and calls the waker, which then
    // blocks the worker. So the caller gets several chances.
    assert!((0..100).any(|_| a_waker_blocks_the_caller()));
}

/// Whether the waker blocked the caller.
fn a_waker_blocks_the_caller() -> bool {
    let manager = Arc::new(manage(memory(), apply_config(1)));
    let ((come, came), (open, opened)) = (sync_channel(1), sync_channel(1));
    let blocking = Waker::from(Arc::new(Blocks(come, Mutex::new(opened))));
    let counts = Arc::new(Counts::default());
    let counting = Waker::from(Arc::clone(&counts));
    let mut blocked = manager.acknowledged(1);
    assert!(!poll(&mut blocked, &blocking));
    let mut others: Vec<_> = (0..100).map(|at| manager.acknowledged(1 + at % 2)).collect();
    for future in &mut others {
        assert!(!poll(future, &counting));
    }
    let applying = Arc::clone(&manager);
    let caller = thread::spawn(move || applying.apply(&Entry::noop(1, 1), LONG).map(drop));
    if came.recv_timeout(LONG).unwrap() != caller.thread().id() {
        open.send(()).unwrap();
        within(LONG, "the caller", move || caller.join().unwrap()).unwrap();
        return false;
    }
    // The waker blocks the caller. Other threads submit, apply, read the figures, and call the
    // remaining wakers.
    within(LONG, "another caller", {
        let manager = Arc::clone(&manager);
        move || {
            manager.apply(&Entry::noop(2, 1), LONG).unwrap();
            let _ = manager.apply_entries(&[Entry::noop(3, 1)]).unwrap();
            manager.wait_for_apply(3, LONG).unwrap();
            assert_eq!(manager.stats().applied, Some(3));
        }
    });
    assert!(eventually(LONG, || counts.0.load(Ordering::Relaxed) == 100));
    let blocked_for = Duration::from_millis(20);
    thread::sleep(blocked_for);
    open.send(()).unwrap();
    within(LONG, "the caller", move || caller.join().unwrap()).unwrap();
    assert!(manager.stats().waker_longest >= blocked_for);
    true
}

/// Proves ORD-15.
#[test]
fn futures_are_woken_by_a_truncation_a_failure_and_the_end() {
    let scratch = Scratch::new();
    let manager = crate::common::open(scratch.by_commit());
    let noops = |indexes: std::ops::RangeInclusive<u64>| -> Vec<Entry<'_>> {
        indexes.map(|index| Entry::noop(index, 1)).collect()
    };
    let _ = manager.consensus().unwrap().append(&noops(1..=10)).unwrap();
    let futures: Vec<_> = (1..=12).map(|index| manager.acknowledged(index)).collect();
    let waiting: Vec<_> = futures
        .into_iter()
        .map(|future| {
            let watch = Watch::default();
            let here = watch.clone();
            let thread = thread::spawn(move || {
                here.here();
                block_on(future)
            });
            watch.until_asleep();
            thread
        })
        .collect();
    manager.consensus().unwrap().truncate_after(Some(6)).unwrap();
    manager.consensus().unwrap().commit(6).unwrap();
    manager.wait_for_apply(6, LONG).unwrap();
    let manager = Mutex::new(Some(manager));
    for (index, thread) in (1..).zip(waiting) {
        if index == 11 {
            // These wait for an entry that never comes.
            drop(manager.lock().unwrap().take());
        }
        let outcome = within(LONG, "a future", move || thread.join().unwrap());
        match index {
            1..=6 => outcome.unwrap(),
            7..=10 => assert!(matches!(outcome, Err(WaitError::Truncated { .. })), "{outcome:?}"),
            _ => assert!(matches!(outcome, Err(WaitError::Closed { .. })), "{outcome:?}"),
        }
    }
}

/// Futures arrive, are polled with several wakers, leave early, or wait to the end, beside threads
/// that wait with a timeout.
///
/// Proves ORD-14.
#[test]
fn all_of_many_waiters_that_come_and_go_are_woken_or_leave() {
    const ENTRIES: u64 = 20_000;
    let manager = Arc::new(manage(memory(), apply_config(2)));
    let (next, ended) = (AtomicU64::new(1), AtomicBool::new(false));
    thread::scope(|scope| {
        let (manager, next, ended) = (&manager, &next, &ended);
        let stopping = StopOnDrop(ended);
        for seed in 0..3_u64 {
            scope.spawn(move || {
                let counts = [(); 2].map(|()| Arc::new(Counts::default()));
                let wakers = counts.clone().map(Waker::from);
                let mut state = seed * 7919 + 1;
                let mut random = move |below: u64| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) % below
                };
                let mut kept: Vec<(u64, Acknowledged)> = Vec::new();
                while !ended.load(Ordering::Acquire) {
                    let index = next.load(Ordering::Relaxed).saturating_sub(50) + random(200);
                    let index = index.clamp(1, ENTRIES);
                    let mut future = manager.acknowledged(index);
                    if poll(&mut future, &wakers[0]) {
                        continue;
                    }
                    match random(4) {
                        0 => drop(future),
                        1 => {
                            let waited = manager.wait_for_apply(index, Duration::from_micros(50));
                            assert!(matches!(waited, Ok(()) | Err(WaitError::Timeout { .. })));
                        }
                        _ => {
                            let _ready = poll(&mut future, &wakers[1]);
                            kept.push((index, future));
                        }
                    }
                    if kept.len() > 500 {
                        kept.drain(..250);
                    }
                }
                for (index, future) in kept {
                    within(LONG, "a future that was kept", move || block_on(future)).unwrap();
                    assert!(index <= ENTRIES);
                }
            });
        }
        for index in 1..=ENTRIES {
            next.store(index, Ordering::Relaxed);
            if index % 3 == 0 {
                manager.apply(&Entry::noop(index, 1), LONG).unwrap();
            } else {
                while manager.apply_entries(&[Entry::noop(index, 1)]).is_err() {
                    thread::yield_now();
                }
            }
        }
        manager.wait_for_apply(ENTRIES, LONG).unwrap();
        drop(stopping);
    });
}
