//! Tests of calls that wait for room in the pipeline, and of calls for async code that return
//! replies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::common::machines::{Gate, gated, memory};
use crate::common::{
    CountingWaker, LONG, SHORT, Scratch, apply_config, block_on, eventually, manage,
};
use sprag::error::{ApplyError, SubmitError, WaitError};
use sprag::{ApplyConfig, Command, Entry, LogId, Payload, Reply};

fn small(depth: usize) -> ApplyConfig {
    apply_config(1).pipeline_depth(depth)
}

fn noops(first: u64, count: u64) -> Vec<Entry<'static>> {
    (first..first + count).map(|index| Entry::noop(index, 1)).collect()
}

fn visits(first: u64, count: u64) -> Vec<Entry<'static>> {
    let visit = || Payload::from(Command::increment(b"visits", 1));
    let visit = |index| Entry::new(LogId::new(index, 1), visit());
    (first..first + count).map(visit).collect()
}

fn is_full(outcome: &Result<sprag::Submitted, SubmitError>) -> bool {
    matches!(outcome, Err(SubmitError::Full { .. }))
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Arc<CountingWaker>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

/// Proves ORD-18.
#[test]
fn a_call_that_waits_for_room_is_taken_once_entries_are_acknowledged_and_takes_nothing_before() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), small(4)));
    let _opener = gate.opener();
    assert_eq!(manager.apply_entries(&noops(1, 4)).unwrap().new, 4);
    assert!(is_full(&manager.apply_entries_waiting(&noops(5, 3), SHORT)));
    assert!(is_full(&manager.apply_entries_waiting(&noops(5, 3), Duration::ZERO)));
    assert_eq!(manager.stats().submitted, Some(4));
    let waiting = thread::spawn({
        let manager = Arc::clone(&manager);
        move || manager.apply_entries_waiting(&noops(5, 3), LONG).unwrap()
    });
    thread::sleep(SHORT);
    assert!(!waiting.is_finished());
    gate.open();
    assert_eq!(waiting.join().unwrap().new, 3);
    manager.wait_for_apply(7, LONG).unwrap();
    let too_long = manager.apply_entries_waiting(&noops(8, 5), LONG).unwrap_err();
    assert!(matches!(too_long, SubmitError::TooLarge { .. }), "{too_long:?}");
}

/// Proves ORD-18.
#[test]
fn a_future_waits_for_room_without_its_thread_and_leaves_nothing_when_it_is_dropped() {
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), small(4));
    let _opener = gate.opener();
    let (dropped, kept) = (Arc::<CountingWaker>::default(), Arc::<CountingWaker>::default());
    let entries = noops(5, 4);
    {
        let mut unpolled = pin!(manager.apply_entries_async(&entries));
        assert_eq!(manager.apply_entries(&noops(1, 4)).unwrap().new, 4);
        assert!(poll(unpolled.as_mut(), &dropped).is_pending());
    }
    let mut future = pin!(manager.apply_entries_async(&entries));
    assert!(poll(future.as_mut(), &kept).is_pending());
    assert!(poll(future.as_mut(), &kept).is_pending());
    assert_eq!((kept.count(), manager.stats().submitted), (0, Some(4)));
    gate.open();
    assert!(eventually(LONG, || kept.count() > 0));
    assert_eq!(block_on(future).unwrap().new, 4);
    manager.wait_for_apply(8, LONG).unwrap();
    assert_eq!(dropped.count(), 0);
}

/// Proves ORD-18.
#[test]
fn a_leaked_future_in_front_holds_up_no_call_behind_it() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), small(4)));
    let _opener = gate.opener();
    assert_eq!(manager.apply_entries(&noops(1, 4)).unwrap().new, 4);
    let leaked: Vec<_> = (0..3)
        .map(|_| {
            let manager = Arc::clone(&manager);
            let mut future: Pin<Box<dyn Future<Output = _>>> =
                Box::pin(
                    async move { manager.propose_waiting(Command::put(b"k", b"v")).await.await },
                );
            assert!(poll(future.as_mut(), &Arc::default()).is_pending());
            future
        })
        .collect();
    std::mem::forget(leaked);
    let waiting = thread::spawn({
        let manager = Arc::clone(&manager);
        move || manager.apply_entries_waiting(&noops(5, 4), LONG).unwrap()
    });
    thread::sleep(SHORT);
    gate.open();
    assert_eq!(waiting.join().unwrap().new, 4);
    assert_eq!(
        manager.propose(Command::put(b"k", b"v"), LONG).unwrap(),
        Reply::Put { replaced: false }
    );
}

/// Proves ORD-18.
#[test]
fn a_thread_that_waits_for_the_whole_pipeline_is_not_starved_by_calls_that_do_not_wait() {
    let manager = Arc::new(manage(memory(), small(8)));
    let (done, visit) = (AtomicBool::new(false), || Command::increment(b"visits", 1));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(manager.propose_async(visit(), Duration::ZERO));
                }
            });
        }
        for _ in 0..20 {
            // The index may be another call's by the time there is room.
            let taken = loop {
                let entries = visits(manager.next_index(), 8);
                match manager.apply_entries_waiting(&entries, LONG) {
                    Err(SubmitError::Conflict { .. }) => {}
                    taken => break taken,
                }
            };
            assert!(taken.is_ok(), "{taken:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Proves ORD-18.
#[test]
fn a_close_and_a_failure_end_the_wait_for_room() {
    for fails in [true, false] {
        let gate = Gate::shut();
        let failing = Arc::clone(&gate);
        let machine = crate::common::machines::Hooked::new(memory(), move |_: &_, _| {
            failing.pass();
            if fails { Err(sprag::Fatal::new("of a test")) } else { Ok(()) }
        });
        let manager = Arc::new(manage(machine, small(4).inline_apply(false)));
        let opener = gate.opener();
        assert_eq!(manager.apply_entries(&noops(1, 4)).unwrap().new, 4);
        let waiting = thread::spawn({
            let manager = Arc::clone(&manager);
            move || manager.apply_entries_waiting(&noops(5, 4), LONG).unwrap_err()
        });
        let waker = Arc::<CountingWaker>::default();
        let entry = noops(5, 1);
        let mut future = pin!(manager.apply_async(&entry[0]));
        assert!(poll(future.as_mut(), &waker).is_pending());
        thread::sleep(SHORT);
        if fails {
            gate.open();
        } else {
            assert!(manager.shutdown(SHORT).is_err(), "the gate is shut");
        }
        let error = waiting.join().unwrap();
        let of_future = block_on(future).unwrap_err();
        let ApplyError::Submit { source: of_future, .. } = of_future else { panic!() };
        for error in [error, of_future] {
            let expected = match error {
                SubmitError::Poisoned(_) => fails,
                SubmitError::Closed => !fails,
                _ => false,
            };
            assert!(expected, "{error:?}");
        }
        drop(opener);
    }
}

/// Proves ORD-19.
#[test]
fn async_calls_return_the_replies_of_their_entries_through_a_small_pipeline() {
    let scratch = Scratch::new();
    let durable = scratch.open();
    let manager = manage(memory(), small(8));
    let check = |reply: Reply, at: usize| assert_eq!(reply, Reply::Counter(at.try_into().unwrap()));
    for at in 1..=20 {
        let entry = &visits(at, 1)[0];
        check(block_on(manager.apply_async(entry)).unwrap(), at.try_into().unwrap());
        check(block_on(durable.apply_async(entry)).unwrap(), at.try_into().unwrap());
        assert_eq!(durable.stats().acknowledged, Some(at));
    }
    let replies = block_on(manager.apply_batch_async(visits(21, 1_000))).unwrap();
    assert_eq!(replies.len(), 1_000);
    replies.into_iter().enumerate().for_each(|(at, reply)| check(reply, at + 21));
    let replies = block_on(durable.apply_batch_async(visits(21, 1_000))).unwrap();
    replies.into_iter().enumerate().for_each(|(at, reply)| check(reply, at + 21));
    assert_eq!(durable.stats().acknowledged, Some(1_020));
    assert_eq!(block_on(manager.apply_batch_async([])).unwrap(), []);
    // Entries of another call have their replies there.
    let replies = block_on(manager.apply_batch_async(visits(1_020, 2))).unwrap();
    assert_eq!(replies, [Reply::AlreadyApplied, Reply::Counter(1_021)]);
}

/// Proves ORD-19.
#[test]
fn an_async_batch_says_how_far_it_was_taken_and_its_parts_go_on_when_it_is_dropped() {
    let manager = manage(memory(), small(8));
    let gap = noops(1, 6).into_iter().chain(noops(8, 1));
    let error = block_on(manager.apply_batch_async(gap)).unwrap_err();
    let ApplyError::Submit { source: SubmitError::Gap { expected: 7, got: 8 }, submitted_through } =
        error
    else {
        panic!("{error:?}")
    };
    assert_eq!(submitted_through, Some(6));
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), small(8));
    let _opener = gate.opener();
    {
        let mut batch = pin!(manager.apply_batch_async(noops(1, 100)));
        assert!(poll(batch.as_mut(), &Arc::default()).is_pending());
    }
    gate.open();
    manager.wait_for_apply(8, LONG).unwrap();
    let later = manager.wait_for_apply(9, SHORT).unwrap_err();
    assert!(matches!(later, WaitError::Timeout { .. }), "{later:?}");
}

/// Proves ORD-18.
#[test]
fn an_append_waits_for_room_in_the_logs_buffers() {
    let scratch = Scratch::new();
    let config = scratch.by_commit().segment_bytes(1 << 20);
    let manager = crate::common::open(config);
    let log = manager.consensus().unwrap();
    let value = vec![7; 100 << 10];
    for index in 1..=200 {
        let entries = [Entry::put(index, 1, b"key", &value)];
        assert_eq!(log.append_waiting(&entries, LONG).unwrap().new, 1);
    }
    log.commit(200).unwrap();
    manager.wait_for_apply(200, LONG).unwrap();
}

#[test]
fn the_futures_may_move_between_threads() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let manager = manage(memory(), small(8));
    let entries = noops(1, 2);
    assert_eq!(block_on(is_send(manager.apply_entries_async(&entries[..1]))).unwrap().new, 1);
    block_on(is_send(manager.apply_async(&entries[1]))).unwrap();
    block_on(is_send(manager.apply_batch_async(noops(3, 2)))).unwrap();
    let proposal = block_on(is_send(manager.propose_waiting(Command::put(b"k", b"v"))));
    block_on(is_send(proposal)).unwrap();
}
