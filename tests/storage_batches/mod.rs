//! Tests of batches of a machine over a storage: when one ends, and that none of it shows before
//! the storage has committed it.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "tests")]

mod batched;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::common::{LONG, apply_config, eventually, manage, within};
use batched::{Batched, Call, Seen};
use sprag::error::{ApplyError, CloseError, Poison, ReadError, SubmitError, WaitError};
use sprag::testing::Stepped;
use sprag::{ApplyManager, Command, Durability, Entry, Reply, Stage};

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(1 << 20);

fn increment(index: u64) -> Entry<'static> {
    Entry::new(sprag::LogId::new(index, 1), Command::increment(b"counter", 1).into())
}

fn submit<M: sprag::StateMachine>(manager: &ApplyManager<M>, from: u64, to: u64) {
    let entries: Vec<_> = (from..=to).map(increment).collect();
    assert_eq!(manager.apply_entries(&entries).unwrap().new, entries.len() as u64);
}

fn stepped(machine: Batched) -> (Stepped<Batched>, Arc<Seen>) {
    let seen = Arc::clone(&machine.seen);
    (Stepped::new(machine, apply_config(1)).unwrap(), seen)
}

fn managed(machine: Batched) -> (ApplyManager<Batched>, Arc<Seen>) {
    let seen = Arc::clone(&machine.seen);
    (manage(machine, apply_config(1)), seen)
}

#[test]
fn a_batch_holds_batch_size_entries_and_less_only_when_the_ring_is_dry() {
    for (batch_size, expected) in [
        (1, vec![1; 300]),
        (7, [vec![7; 42], vec![6]].concat()),
        (100, vec![100, 100, 100]),
        (128, vec![128, 128, 44]),
        (299, vec![299, 1]),
        (1000, vec![300]),
    ] {
        // Ranges have at most 128 entries, and fewer with small submissions.
        for submissions in [vec![300], vec![3; 100], vec![130, 1, 1, 168]] {
            let (engine, seen) = stepped(Batched::new(batch_size));
            let mut next = 1;
            for entries in submissions {
                submit(&engine, next, next + entries - 1);
                next += entries;
            }
            engine.run_until_idle();
            assert_eq!(seen.commits(), expected, "batches of {batch_size}");
            assert_eq!(engine.stats().acknowledged, Some(300));
            assert_eq!(engine.machine().get(b"counter").unwrap().as_deref(), Some(&b"300"[..]));
        }
    }
}

#[test]
fn fewer_entries_than_a_batch_wait_for_batch_interval() {
    let interval = Duration::from_millis(10);
    let (engine, seen) = stepped(Batched::new(4).batch_interval(interval));
    submit(&engine, 1, 3);
    engine.run_until_idle();
    assert_eq!((seen.commits(), engine.stats().applied), (vec![], None));
    submit(&engine, 4, 4);
    engine.run_until_idle();
    assert_eq!((seen.commits(), engine.stats().applied), (vec![4], Some(4)), "a full batch");
    submit(&engine, 5, 14);
    engine.run_until_idle();
    assert_eq!((seen.commits(), engine.stats().applied), (vec![4, 4, 4], Some(12)));
    engine.advance(interval / 2);
    engine.run_until_idle();
    assert_eq!(seen.commits(), [4, 4, 4], "it is not over");
    engine.advance(interval / 2);
    engine.run_until_idle();
    assert_eq!((seen.commits(), engine.stats().applied), (vec![4, 4, 4, 2], Some(14)));
}

#[test]
fn a_batch_larger_than_the_pipeline_does_not_wait_for_what_cannot_come() {
    let machine = Batched::new(1000).batch_interval(NEVER);
    let seen = Arc::clone(&machine.seen);
    let engine = Stepped::new(machine, apply_config(1).pipeline_depth(8)).unwrap();
    submit(&engine, 1, 8);
    engine.run_until_idle();
    assert_eq!(seen.commits(), [8]);
}

/// Proves DUR-29.
#[test]
fn with_sync_writes_a_commit_syncs_and_is_what_acknowledges() {
    let (engine, seen) = stepped(Batched::new(4));
    submit(&engine, 1, 2);
    engine.run_until_idle();
    assert_eq!(seen.calls(), [Call::Commit(2, true)]);
    let stats = engine.stats();
    assert_eq!(stats.durability, Some(Durability::Sync));
    assert_eq!((stats.written, stats.durable, stats.acknowledged), (Some(2), Some(2), Some(2)));
}

#[test]
fn without_sync_writes_a_commit_acknowledges_and_is_not_durable() {
    let (engine, seen) = stepped(Batched::new(4).sync_writes(false));
    submit(&engine, 1, 2);
    engine.run_until_idle();
    assert_eq!(seen.calls(), [Call::Commit(2, false)]);
    let stats = engine.stats();
    assert_eq!(stats.durability, Some(Durability::Os));
    assert_eq!((stats.written, stats.durable, stats.acknowledged), (Some(2), None, Some(2)));

    let (engine, seen) = stepped(Batched::new(4).sync_writes(false).always_durable());
    submit(&engine, 1, 2);
    engine.run_until_idle();
    assert_eq!((seen.syncs(), engine.stats().durable), (0, Some(2)), "the storage said so");
}

#[test]
fn flush_and_close_sync_what_writes_did_not() {
    let (manager, seen) = managed(Batched::new(4).sync_writes(false));
    submit(&manager, 1, 3);
    manager.flush_pending(LONG).unwrap();
    assert_eq!((seen.syncs(), manager.stats().durable), (1, Some(3)));
    manager.flush_pending(LONG).unwrap();
    assert_eq!(seen.syncs(), 1, "all of it is durable");
    submit(&manager, 4, 5);
    manager.close(LONG).unwrap();
    assert_eq!((seen.syncs(), seen.committed()), (2, Some(5)));

    let (engine, seen) = stepped(Batched::new(4).sync_writes(false));
    submit(&engine, 1, 3);
    engine.into_manager().close(LONG).unwrap();
    assert_eq!((seen.syncs(), seen.committed()), (1, Some(3)), "by hand");
}

#[test]
fn waiting_for_durable_asks_the_storage_to_sync() {
    let (manager, seen) = managed(Batched::new(4).sync_writes(false).batch_interval(NEVER));
    submit(&manager, 1, 2);
    let (manager, waited) = within(LONG, "a wait for durable", move || {
        let waited = manager.wait_until(2, Stage::Durable, LONG);
        (manager, waited)
    });
    waited.unwrap();
    assert_eq!((seen.syncs(), manager.stats().durable), (1, Some(2)));
    manager.wait_until(1, Stage::Durable, LONG).unwrap();
    assert_eq!(seen.syncs(), 1);
    let late = manager.wait_until(3, Stage::Durable, Duration::from_millis(1));
    assert!(matches!(late, Err(WaitError::Timeout { index: 3, .. })), "{late:?}");
}

#[test]
fn callers_that_wait_do_not_wait_for_the_interval() {
    for inline in [false, true] {
        for sync_writes in [false, true] {
            let machine = Batched::new(1000).batch_interval(NEVER).sync_writes(sync_writes);
            let seen = Arc::clone(&machine.seen);
            let manager = manage(machine, apply_config(1).inline_apply(inline));
            within(LONG, "calls that wait", move || {
                assert_eq!(manager.apply(&increment(1), LONG).unwrap(), Reply::Counter(1));
                let reply = manager.propose(Command::increment(b"counter", 1), LONG).unwrap();
                assert_eq!(reply, Reply::Counter(2));
                submit(&manager, 3, 4);
                assert_eq!(manager.apply(&increment(5), LONG).unwrap(), Reply::Counter(5));
                submit(&manager, 6, 7);
                manager.wait_for_apply(7, LONG).unwrap();
                submit(&manager, 8, 8);
                assert_eq!(manager.snapshots().view().unwrap().log_id().unwrap().index, 8);
                submit(&manager, 9, 9);
                let mut file = Vec::new();
                let report = manager.snapshots().write_to(&mut file).unwrap();
                assert_eq!(report.log_id.unwrap().index, 9);
                submit(&manager, 10, 10);
                manager.flush_pending(LONG).unwrap();
                submit(&manager, 11, 12);
                manager.close(LONG).unwrap();
            });
            assert_eq!(seen.committed(), Some(12));
        }
    }
}

#[test]
fn what_is_only_submitted_waits_for_the_interval() {
    let (manager, seen) = managed(Batched::new(10).batch_interval(NEVER));
    submit(&manager, 1, 9);
    let mut future = pin!(manager.acknowledged(9));
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    std::thread::sleep(crate::common::SHORT);
    assert_eq!((seen.commits(), manager.stats().applied), (vec![], None));
    submit(&manager, 10, 10);
    assert!(eventually(LONG, || future.as_mut().poll(&mut context).is_ready()));
    assert_eq!(seen.commits(), [10]);
}

/// Proves DUR-29, ORD-12.
#[test]
fn no_reply_and_no_mark_is_given_before_the_commit() {
    for inline in [false, true] {
        let machine = Batched::new(100).sync_writes(false);
        let seen = Arc::clone(&machine.seen);
        let manager = Arc::new(manage(machine, apply_config(1).inline_apply(inline)));
        let _opener = seen.gate.opener();
        seen.gate.close();
        let other = Arc::clone(&manager);
        let caller = std::thread::spawn(move || other.apply(&increment(1), LONG));
        seen.gate.wait_for_somebody();
        assert_eq!(
            manager.machine().get(b"counter").unwrap().as_deref(),
            Some(&b"1"[..]),
            "it is staged"
        );
        let stats = manager.stats();
        let marks = (stats.applied, stats.written, stats.acknowledged, stats.total_applied);
        assert_eq!(marks, (None, None, None, 0));
        std::thread::sleep(crate::common::SHORT);
        assert!(!caller.is_finished());
        seen.gate.open();
        assert_eq!(caller.join().unwrap().unwrap(), Reply::Counter(1));
        assert_eq!(manager.stats().applied, Some(1));
    }
}

#[test]
fn a_future_has_its_reply_once_the_batch_is_committed() {
    let (engine, seen) = stepped(Batched::new(2));
    let mut future = pin!(engine.propose_async(Command::increment(b"counter", 5), LONG));
    let mut context = Context::from_waker(Waker::noop());
    assert!(engine.step_worker(0), "it is applied");
    assert!(seen.commits().is_empty());
    assert!(future.as_mut().poll(&mut context).is_pending());
    engine.run_until_idle();
    let Poll::Ready(reply) = future.as_mut().poll(&mut context) else { panic!("committed") };
    assert_eq!(reply.unwrap(), Reply::Counter(5));
}

#[test]
fn a_synchronous_call_alone_is_committed_at_once() {
    let (manager, seen) = managed(Batched::new(10).sync_writes(false));
    let entries: Vec<_> = (1..=25).map(increment).collect();
    let mut replies = Vec::new();
    manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap();
    assert_eq!(replies, (1..=25).map(Reply::Counter).collect::<Vec<_>>());
    assert_eq!(seen.commits(), [10, 10, 5]);
    assert_eq!(manager.stats().written, Some(25));
}

#[test]
fn callers_at_once_share_the_sync_of_a_commit() {
    let (manager, seen) = managed(Batched::new(100));
    let manager = Arc::new(manager);
    let _opener = seen.gate.opener();
    seen.gate.close();
    let propose = |manager: &Arc<ApplyManager<Batched>>| {
        let manager = Arc::clone(manager);
        std::thread::spawn(move || manager.propose(Command::increment(b"counter", 1), LONG))
    };
    let first = propose(&manager);
    seen.gate.wait_for_somebody();
    let others: Vec<_> = (0..6).map(|_| propose(&manager)).collect();
    assert!(eventually(LONG, || manager.stats().submitted == Some(7)));
    seen.gate.open();
    first.join().unwrap().unwrap();
    others.into_iter().for_each(|other| drop(other.join().unwrap().unwrap()));
    assert_eq!(seen.commits(), [1, 6]);
}

/// Proves ORD-12.
#[test]
fn a_failed_commit_ends_the_engine_and_gives_no_reply_of_its_batch() {
    for panics in [false, true] {
        for inline in [false, true] {
            let machine = Batched::new(4).sync_writes(false);
            let seen = Arc::clone(&machine.seen);
            let manager = manage(machine, apply_config(1).inline_apply(inline));
            assert_eq!(manager.apply(&increment(1), LONG).unwrap(), Reply::Counter(1));
            let faults = &seen.faults;
            let fault = if panics { &faults.commits_panic } else { &faults.commits };
            fault.store(true, Ordering::Relaxed);
            let entries = [increment(2), increment(3)];
            let mut replies = Vec::new();
            let failed = manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap_err();
            assert!(replies.is_empty());
            let (ApplyError::Wait { source: WaitError::Poisoned(poison), .. }
            | ApplyError::Submit { source: SubmitError::Poisoned(poison), .. }) = failed
            else {
                panic!("{failed}")
            };
            match poison {
                Poison::Panic { index: 2 } if panics => {}
                Poison::Fatal { index: 2, message } if !panics => {
                    assert!(message.contains("entries 2 to 3: the storage is broken"), "{message}");
                }
                other => panic!("{other}"),
            }
            assert!(matches!(manager.machine().get(b"counter"), Err(ReadError::Poisoned(_))));
            let stats = manager.stats();
            assert_eq!(
                (stats.applied, stats.written, stats.acknowledged),
                (Some(1), Some(1), Some(1))
            );
            assert_eq!(stats.total_applied, 1);
            let again = manager.apply(&increment(4), LONG);
            assert!(matches!(again, Err(ApplyError::Submit { .. })), "{again:?}");
            assert!(manager.snapshots().view().is_err() && manager.flush_pending(LONG).is_err());
            let closed = manager.close(LONG);
            assert!(matches!(closed, Err(CloseError::Poisoned(_))), "{closed:?}");
        }
    }
}

#[test]
fn a_failed_sync_ends_the_engine() {
    let (manager, seen) = managed(Batched::new(4).sync_writes(false));
    assert_eq!(manager.apply(&increment(1), LONG).unwrap(), Reply::Counter(1));
    seen.faults.syncs.store(true, Ordering::Relaxed);
    let failed = manager.flush_pending(LONG).unwrap_err();
    let WaitError::Poisoned(Poison::Fatal { index: 1, message }) = failed else {
        panic!("{failed}")
    };
    assert!(message.contains("entries 1 to 1 durable: the disk is gone"), "{message}");
    assert!(matches!(manager.machine().get(b"counter"), Err(ReadError::Poisoned(_))));
    assert_eq!(manager.stats().durable, None);
}

#[test]
fn a_view_is_of_what_the_storage_has_committed() {
    let (engine, seen) = stepped(Batched::new(100));
    submit(&engine, 1, 5);
    assert!(engine.step_worker(0), "applied, and not committed");
    assert!(seen.commits().is_empty());
    submit(&engine, 6, 8);
    let view = engine.snapshots().view().unwrap();
    assert_eq!((view.log_id().unwrap().index, seen.committed()), (8, Some(8)));
    assert_eq!(view.get(b"counter").unwrap().as_deref(), Some(&b"8"[..]));
    assert_eq!(engine.stats().applied, Some(8));
}

#[test]
fn a_machine_over_a_storage_has_one_worker_whatever_is_asked_for() {
    let manager = manage(Batched::new(4), apply_config(4));
    assert_eq!(manager.stats().worker_count, 1);
    let entries = (1..=100).map(increment);
    manager
        .apply_batch(entries, LONG, |index, reply| {
            assert_eq!(reply, Reply::Counter(i64::try_from(index).unwrap()));
        })
        .unwrap();
}
