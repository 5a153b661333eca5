//! Tests of order, waiting, back-pressure, retries and stopping.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::machines::{Gate, Hooked, KeyValueReads, gated, memory};
use crate::common::model::Model;
use crate::common::ops::{Logged, Op, log_of, with_entries};
use crate::common::{LONG, PATIENT, SHORT, Scratch, Watch, apply_config, block_on, manage, within};
use sprag::error::{ApplyError, CloseError, SubmitError, WaitError};
use sprag::{
    ApplyManager, Entry, EntryRange, PersistentStateMachine, Reply, RetryPolicy, Stage,
    StateMachine,
};

fn puts(indexes: std::ops::RangeInclusive<u64>) -> Vec<Logged> {
    let first = *indexes.start();
    let put = |index: u64| Op::put((index % 50).to_be_bytes(), index.to_be_bytes());
    log_of(first, 1, indexes.map(put))
}

fn submit<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged]) -> Result<(), SubmitError> {
    with_entries(log, |entries| manager.apply_entries(entries)).map(|_taken| ())
}

fn u64_of(manager: &impl KeyValueReads, key: &[u8]) -> u64 {
    let value = manager.value_of(key).unwrap().unwrap();
    u64::from_be_bytes(value[..].try_into().unwrap())
}

// ---- Order ----

/// Proves ORD-1.
#[test]
fn several_workers_leave_every_key_at_its_last_value() {
    let manager = manage(memory(), apply_config(4).batch_size(16));
    let (keys, rounds) = (200_u64, 100_u64);
    let key_of = |index: u64| (index % keys).to_be_bytes();
    let log =
        log_of(1, 1, (1..=keys * rounds).map(|index| Op::put(key_of(index), index.to_be_bytes())));
    with_entries(&log, |entries| {
        manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap();
    });
    let stale = (1..=keys)
        .filter(|key| u64_of(manager.machine(), &key_of(*key)) <= keys * (rounds - 1))
        .count();
    assert_eq!(stale, 0, "keys that ended at an earlier value");
}

/// Proves ORD-1.
#[test]
fn a_caller_does_not_apply_itself_while_a_worker_is_still_at_an_earlier_entry() {
    let gate = Gate::shut();
    let held = Arc::clone(&gate);
    let machine = Hooked::new(memory(), move |range: &EntryRange<'_>, _| {
        if range.first().index == 1 {
            held.pass();
        }
        Ok(())
    });
    let manager = Arc::new(manage(machine, apply_config(1)));
    let _opener = gate.opener();
    let _ = manager.apply_entries(&[Entry::put(1, 1, b"k", b"1")]).unwrap();
    // The ring is empty from here on, but its worker is not done.
    gate.wait_for_somebody();
    let caller = thread::spawn({
        let manager = Arc::clone(&manager);
        move || manager.apply(&Entry::put(2, 1, b"k", b"2"), LONG)
    });
    thread::sleep(SHORT);
    assert_eq!(
        manager.machine().get(b"k").unwrap(),
        None,
        "the second was applied before the first"
    );
    gate.open();
    assert_eq!(caller.join().unwrap().unwrap(), Reply::Put { replaced: true });
    assert_eq!(manager.machine().get(b"k").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn several_callers_with_the_same_log_apply_it_once() {
    let manager = Arc::new(manage(memory(), apply_config(2).pipeline_depth(16)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let manager = Arc::clone(&manager);
            thread::spawn(move || {
                for index in 1..=500 {
                    let entry = Entry::increment(index, 1, b"counter", 1);
                    loop {
                        match manager.apply(&entry, LONG) {
                            Ok(Reply::AlreadyApplied) => break,
                            Ok(reply) => {
                                assert_eq!(reply, Reply::Counter(i64::try_from(index).unwrap()));
                                break;
                            }
                            Err(ApplyError::Submit {
                                source: SubmitError::Full { .. }, ..
                            }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    within(LONG, "the callers", move || callers.into_iter().for_each(|it| it.join().unwrap()));
    assert_eq!(manager.machine().get(b"counter").unwrap().as_deref(), Some(&b"500"[..]));
    assert_eq!(manager.stats().total_applied, 500);
}

// ---- Waiting ----

/// Proves ORD-13.
#[test]
fn any_index_can_be_waited_for_by_any_number_of_waiters_before_and_after_it_is_applied() {
    let manager = Arc::new(manage(memory(), apply_config(2)));
    let none_yet = manager.wait_for_apply(0, SHORT);
    assert!(
        matches!(
            none_yet,
            Err(WaitError::Timeout { index: 0, reached: None, submitted: None, .. })
        ),
        "{none_yet:?}"
    );
    // Two waiters register for each index before anything is submitted; most of the indexes end no
    // submission.
    let waiters: Vec<_> = (0..40)
        .map(|at| {
            let manager = Arc::clone(&manager);
            thread::spawn(move || manager.wait_for_apply(1 + at / 2, LONG))
        })
        .collect();
    thread::sleep(SHORT);
    submit(&manager, &puts(1..=7)).unwrap();
    submit(&manager, &puts(8..=20)).unwrap();
    for waiter in waiters {
        within(LONG, "a waiter", move || waiter.join().unwrap()).unwrap();
    }
    // Afterwards, wait repeatedly without blocking.
    for index in (1..=20).chain(1..=20) {
        manager.wait_for_apply(index, Duration::ZERO).unwrap();
        manager.wait_until(index, Stage::Applied, Duration::ZERO).unwrap();
    }
    assert!(matches!(
        manager.wait_for_apply(21, SHORT),
        Err(WaitError::Timeout { index: 21, reached: Some(20), submitted: Some(20), .. })
    ));
}

#[test]
fn the_stages_that_need_a_log_say_so_where_there_is_none() {
    let manager = manage(memory(), apply_config(1));
    submit(&manager, &puts(1..=1)).unwrap();
    for stage in [Stage::Written, Stage::Durable] {
        let outcome = manager.wait_until(1, stage, LONG);
        assert!(matches!(outcome, Err(WaitError::NeverDurable { index: 1 })), "{outcome:?}");
    }
}

/// Proves ORD-4.
#[test]
fn a_refusal_as_full_leaves_no_waiter_and_no_trace() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), apply_config(2).pipeline_depth(8)));
    let _opener = gate.opener();
    submit(&manager, &puts(1..=8)).unwrap();
    let full = |error: &SubmitError| matches!(error, SubmitError::Full { pending: 8 });
    assert!(full(&submit(&manager, &puts(9..=9)).unwrap_err()));
    let entry = Entry::put(9, 1, b"nine", b"9");
    match manager.apply(&entry, LONG).unwrap_err() {
        ApplyError::Submit { source, submitted_through: None } => assert!(full(&source)),
        error => panic!("{error}"),
    }
    let policy = RetryPolicy::new().retries_max(1);
    let refused = manager.apply_with_retry(&[entry], policy, &mut Vec::new());
    assert!(matches!(refused, Err(ApplyError::Submit { source, .. }) if full(&source)));
    assert_eq!(manager.pending_count(), 8);
    gate.open();
    let flusher = Arc::clone(&manager);
    within(LONG, "flush", move || flusher.flush_pending(LONG)).unwrap();
    let nine = manager.wait_for_apply(9, SHORT);
    assert!(matches!(nine, Err(WaitError::Timeout { submitted: Some(8), .. })), "{nine:?}");
    assert_eq!(manager.apply(&entry, LONG).unwrap(), Reply::Put { replaced: false });
}

/// Proves DUR-6.
#[test]
fn flush_returns_after_asynchronous_calls_and_covers_them() {
    let scratch = Scratch::new();
    let persistent = Arc::new(scratch.open());
    let memory = Arc::new(manage(memory(), apply_config(2)));
    within(LONG, "flush with nothing submitted", {
        let (persistent, memory) = (Arc::clone(&persistent), Arc::clone(&memory));
        move || {
            persistent.flush_pending(LONG).unwrap();
            memory.flush_pending(LONG).unwrap();
        }
    });
    within(PATIENT, "flush", move || {
        for index in 1..=200 {
            submit(&persistent, &puts(index..=index)).unwrap();
            persistent.flush_pending(LONG).unwrap();
            let stats = persistent.stats();
            assert_eq!((stats.acknowledged, stats.durable), (Some(index), Some(index)));
            submit(&memory, &puts(index..=index)).unwrap();
            memory.flush_pending(LONG).unwrap();
            assert_eq!(memory.stats().acknowledged, Some(index));
        }
    });
}

// ---- Retries ----

#[test]
fn a_retry_submits_again_only_while_full_and_applies_once() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), apply_config(1).pipeline_depth(4)));
    let _opener = gate.opener();
    submit(&manager, &puts(1..=4)).unwrap();
    let policy = RetryPolicy::new()
        .retries_max(10_000)
        .backoff(Duration::from_millis(1))
        .backoff_max(Duration::from_millis(2))
        .timeout(LONG);
    let retrier = thread::spawn({
        let manager = Arc::clone(&manager);
        move || {
            let mut replies = vec![Reply::Custom(1)];
            let entries = [Entry::increment(5, 1, b"c", 1), Entry::increment(6, 1, b"c", 1)];
            manager.apply_with_retry(&entries, policy, &mut replies).map(|()| replies)
        }
    });
    thread::sleep(SHORT);
    gate.open();
    let replies = within(LONG, "the retry", move || retrier.join().unwrap()).unwrap();
    assert_eq!(replies, [Reply::Counter(1), Reply::Counter(2)]);
    assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_retry_after_a_timeout_joins_what_is_under_way_and_applies_once() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), apply_config(1)));
    let _opener = gate.opener();
    // Submit one entry first, so that the call under test does not apply itself.
    let _ = manager.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    gate.wait_for_somebody();
    let entries = [Entry::increment(2, 1, b"c", 1)];
    let policy = RetryPolicy::new().retries_max(999).timeout(SHORT);
    let mut replies = Vec::new();
    let started = Instant::now();
    let outcome = manager.apply_with_retry(&entries, policy, &mut replies);
    assert!(
        matches!(
            outcome,
            Err(ApplyError::Wait {
                source: WaitError::Timeout { index: 2, .. },
                submitted_through: Some(2)
            })
        ),
        "{outcome:?}"
    );
    // Retries would take a thousand timeouts.
    assert!(started.elapsed() < LONG, "a timeout was retried");
    assert!(replies.is_empty());
    let watch = Watch::default();
    let again = thread::spawn({
        let (manager, watch) = (Arc::clone(&manager), watch.clone());
        move || {
            watch.here();
            manager.apply(&Entry::increment(2, 1, b"c", 1), LONG)
        }
    });
    watch.until_asleep();
    gate.open();
    assert_eq!(again.join().unwrap().unwrap(), Reply::Counter(1), "the pending entry's own reply");
    assert_eq!(manager.apply(&entries[0], LONG).unwrap(), Reply::AlreadyApplied);
    assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_permanent_refusal_and_a_rejection_are_not_retried() {
    let manager = manage(memory(), apply_config(1));
    let policy = RetryPolicy::new().backoff(2 * LONG).backoff_max(2 * LONG).timeout(LONG);
    let started = Instant::now();
    let mut replies = Vec::new();
    manager.apply_with_retry(&[Entry::put(1, 1, b"text", b"x")], policy, &mut replies).unwrap();
    let gap = manager.apply_with_retry(&[Entry::noop(9, 1)], policy, &mut replies);
    assert!(matches!(gap, Err(ApplyError::Submit { source: SubmitError::Gap { .. }, .. })));
    let rejected = [Entry::increment(2, 1, b"text", 1)];
    manager.apply_with_retry(&rejected, policy, &mut replies).unwrap();
    assert_eq!(replies, [Reply::Rejected(sprag::Rejection::NotANumber)]);
    assert!(started.elapsed() < LONG, "something was retried");
    assert_eq!(manager.stats().total_applied, 2);
}

#[test]
fn a_retry_backs_off_longer_and_longer_up_to_its_limit() {
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), apply_config(1).pipeline_depth(1));
    let _opener = gate.opener();
    submit(&manager, &puts(1..=1)).unwrap();
    let took = |retries_max, backoff, backoff_max| {
        let policy = RetryPolicy::new()
            .retries_max(retries_max)
            .backoff(backoff)
            .backoff_max(backoff_max)
            .timeout(LONG);
        let started = Instant::now();
        let outcome = manager.apply_with_retry(&[Entry::noop(2, 1)], policy, &mut Vec::new());
        assert!(matches!(
            outcome,
            Err(ApplyError::Submit { source: SubmitError::Full { .. }, .. })
        ));
        started.elapsed()
    };
    // The pauses are 20 + 40 + 80 ms, a quarter less or more.
    let short = Duration::from_millis(20);
    assert!(took(3, short, Duration::from_secs(1)) >= Duration::from_millis(105));
    // Twelve pauses take at most 20 ms each, not 20 ms to 41 s.
    assert!(took(12, short, short) < LONG);
    assert!(took(0, 2 * LONG, 2 * LONG) < LONG, "a call without retries sleeps not");
}

// ---- Batches ----

#[test]
fn a_batch_longer_than_the_pipeline_back_pressures() {
    fn check<M: StateMachine + KeyValueReads>(manager: &ApplyManager<M>) {
        let log = puts(1..=2000);
        let expected = Model::default().apply_all(&log);
        let mut replies = Vec::new();
        with_entries(&log, |entries| {
            let sink = |_, reply| replies.push(reply);
            let count = manager.apply_batch(entries.iter().copied(), PATIENT, sink).unwrap();
            assert_eq!(count, 2000);
        });
        assert_eq!(replies, expected);
        assert_eq!(manager.stats().acknowledged, Some(2000));
    }
    for depth in [1, 3, 8] {
        check(&manage(memory(), apply_config(2).pipeline_depth(depth)));
    }
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    check(&manage(machine, apply_config(2).pipeline_depth(64)));
}

#[test]
fn a_batch_that_times_out_says_how_far_it_was_taken_and_takes_nothing_back() {
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), apply_config(1).pipeline_depth(8));
    let _opener = gate.opener();
    // Submit one entry before the batch, so that its caller does not apply itself.
    submit(&manager, &puts(1..=1)).unwrap();
    gate.wait_for_somebody();
    let log = puts(2..=100);
    let mut seen = 0;
    let outcome = with_entries(&log, |entries| {
        manager.apply_batch(entries.iter().copied(), SHORT, |_, _| seen += 1)
    });
    let (ApplyError::Submit { submitted_through, .. } | ApplyError::Wait { submitted_through, .. }) =
        outcome.unwrap_err()
    else {
        panic!("another error")
    };
    let through = submitted_through.unwrap();
    assert_eq!((manager.stats().submitted, seen), (Some(through), 0));
    assert!((2..=8).contains(&through), "taken through {through} with room for 8");
    gate.open();
    manager.wait_for_apply(through, LONG).unwrap();
    manager.flush_pending(LONG).unwrap();
    assert_eq!(manager.stats().applied, Some(through));
    // The remaining entries are the ones that were not taken.
    with_entries(&log, |entries| {
        let rest = entries.iter().filter(|entry| entry.log_id.index > through);
        let count = manager.apply_batch(rest.copied(), LONG, |_, _| ()).unwrap();
        assert_eq!(count, 100 - through);
    });
}

// ---- Stopping ----

#[test]
fn closing_and_dropping_lose_nothing_that_was_accepted() {
    for close in [true, false] {
        let memory = manage(memory(), apply_config(2));
        let scratch = Scratch::new();
        let machine = PersistentStateMachine::open(scratch.config()).unwrap();
        let persistent = manage(machine, apply_config(2));
        for first in (1..=1800).step_by(60) {
            submit(&memory, &puts(first..=first + 59)).unwrap();
            submit(&persistent, &puts(first..=first + 59)).unwrap();
        }
        let reader = memory.reader();
        if close {
            memory.close(LONG).unwrap();
            persistent.close(LONG).unwrap();
        } else {
            drop((memory, persistent));
        }
        assert_eq!(reader.stats().applied_count, 1800);
        let again = scratch.open();
        assert_eq!(again.stats().applied, Some(1800));
        for key in 0..50_u64 {
            let last = if key == 0 { 1800 } else { 1750 + key };
            assert_eq!(u64_of(&*reader, &key.to_be_bytes()), last);
            assert_eq!(u64_of(again.machine(), &key.to_be_bytes()), last);
        }
    }
}

#[test]
fn a_reader_and_a_future_outlive_the_manager() {
    let manager = manage(memory(), apply_config(1));
    let (done, never) = (manager.acknowledged(1), manager.acknowledged(9));
    let reader = manager.reader();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    manager.close(LONG).unwrap();
    assert_eq!(reader.clone().get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert!(block_on(done).is_ok());
    assert!(matches!(block_on(never), Err(WaitError::Closed { index: 9 })));
}

#[test]
fn closing_says_so_when_it_runs_out_of_time_and_comes_back() {
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), apply_config(1));
    let _opener = gate.opener();
    submit(&manager, &puts(1..=3)).unwrap();
    gate.wait_for_somebody();
    let outcome = within(LONG, "close", move || manager.close(SHORT));
    assert!(matches!(outcome, Err(CloseError::Wait(WaitError::Timeout { .. }))), "{outcome:?}");
}
