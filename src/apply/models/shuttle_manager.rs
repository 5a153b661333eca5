//! Models of the whole manager with its threads, over a toy machine, in random schedules.

use std::env;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shuttle::sync::Mutex;
use shuttle::thread;

use super::{FIRST, FOREVER, LAST, Toy, put};
use crate::apply::manager::ApplyManager;
use crate::apply::manager::propose::Proposal;
use crate::config::ApplyConfig;
use crate::entry::{Entry, Reply};
use crate::error::{ApplyError, SubmitError, WaitError};
use crate::sync::canary;

/// Number of schedules to try; `SPRAG_SHUTTLE_SCHEDULES` sets another number.
pub(super) fn schedules(normally: usize) -> usize {
    let asked = env::var("SPRAG_SHUTTLE_SCHEDULES").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(normally)
}

fn manager(workers: usize, inline: bool) -> ApplyManager<Toy> {
    let config = ApplyConfig::new()
        .worker_count(NonZeroUsize::new(workers).unwrap())
        .pipeline_depth(4)
        .batch_size(2)
        .inline_apply(inline)
        .pin_workers(false);
    ApplyManager::new(Toy::new(workers), config).unwrap()
}

/// Entries in turn for the first partition, the last one, and all.
fn entry(index: u64) -> Entry<'static> {
    match index % 4 {
        0 => Entry::noop(index, 1),
        1 => put(index, FIRST),
        _ => put(index, LAST),
    }
}

const ENTRIES: u64 = 8;

/// Submits the next index, whichever that is, until all are submitted.
fn submit_some(manager: &ApplyManager<Toy>, next: &Mutex<u64>, sync: bool) {
    loop {
        let mut index = next.lock().unwrap();
        if *index > ENTRIES {
            return;
        }
        let taken = if sync {
            let reply = manager.apply(&entry(*index), FOREVER);
            reply.map(|reply| assert_eq!(reply, Reply::Custom(*index)))
        } else {
            let taken = manager.apply_entries(&[entry(*index)]).map(drop);
            taken.map_err(|source| ApplyError::Submit { source, submitted_through: None })
        };
        match taken {
            Ok(()) => *index += 1,
            Err(ApplyError::Submit { source: SubmitError::Full { .. }, .. }) => {
                let last = *index - 1;
                drop(index);
                manager.wait_for_apply(last, FOREVER).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Two threads submit, one of them synchronously, one waits, and the manager is closed.
fn two_submit_one_waits_and_it_closes() {
    let manager = Arc::new(manager(2, true));
    let reader = manager.reader();
    let next = Arc::new(Mutex::new(1));
    let mut threads: Vec<_> = [false, true]
        .into_iter()
        .map(|sync| {
            let (manager, next) = (Arc::clone(&manager), Arc::clone(&next));
            thread::spawn(move || submit_some(&manager, &next, sync))
        })
        .collect();
    let waiting = Arc::clone(&manager);
    threads.push(thread::spawn(move || waiting.wait_for_apply(ENTRIES, FOREVER).unwrap()));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    Arc::into_inner(manager).unwrap().close(FOREVER).unwrap();

    let of = |keep: fn(&u64) -> bool| (1..=ENTRIES).filter(keep).collect::<Vec<_>>();
    assert_eq!(reader.applied_in(0), of(|index| matches!(index % 4, 0 | 1)));
    assert_eq!(reader.applied_in(1), of(|index| matches!(index % 4, 2 | 3)));
}

/// Proposes three entries, by the call or by futures that are polled once, when the entry is
/// acknowledged.
fn propose_some(manager: &ApplyManager<Toy>, sync: bool) -> Vec<Reply> {
    let payload = || put(0, FIRST).payload;
    if sync {
        return (0..3).map(|_| manager.propose(payload(), FOREVER).unwrap()).collect();
    }
    let futures: Vec<_> = (0..3).map(|_| manager.propose_async(payload(), FOREVER)).collect();
    // No future is polled while the other thread needs the room.
    let poll = |mut future: Proposal| {
        let index = future.log_id().unwrap().index;
        manager.wait_for_apply(index, FOREVER).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(reply) = Pin::new(&mut future).poll(&mut context) else {
            panic!("{index} is acknowledged");
        };
        let reply = reply.unwrap();
        assert_eq!(reply, Reply::Custom(index));
        reply
    };
    futures.into_iter().rev().map(poll).collect()
}

fn two_propose_and_every_entry_has_one_reply() {
    let manager = Arc::new(manager(1, true));
    let other = Arc::clone(&manager);
    let other = thread::spawn(move || propose_some(&other, false));
    let mut replies = propose_some(&manager, true);
    replies.extend(other.join().unwrap());
    for index in 1..=6 {
        assert!(replies.contains(&Reply::Custom(index)), "{index}: {replies:?}");
    }
    Arc::into_inner(manager).unwrap().close(FOREVER).unwrap();
}

#[test]
fn proposals_of_two_threads_have_a_reply_each_and_hold_no_slot() {
    shuttle::check_random(two_propose_and_every_entry_has_one_reply, schedules(400));
    shuttle::check_pct(two_propose_and_every_entry_has_one_reply, schedules(200), 3);
}

/// Proves ORD-1.
#[test]
fn every_partition_applies_in_log_order_and_everybody_wakes() {
    shuttle::check_random(two_submit_one_waits_and_it_closes, schedules(400));
}

#[test]
fn so_it_is_with_few_preemptions_at_bad_places() {
    shuttle::check_pct(two_submit_one_waits_and_it_closes, schedules(400), 4);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_a_worker_that_is_not_woken_is_found() {
    let _canary = canary::leave_out("sync/signal.rs");
    shuttle::check_random(two_submit_one_waits_and_it_closes, schedules(400));
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_a_waiter_that_is_not_woken_is_found() {
    let _canary = canary::leave_out("progress/waiters.rs");
    shuttle::check_random(two_submit_one_waits_and_it_closes, schedules(400));
}

/// An entry that is accepted during the close is applied; another one gets an error.
fn it_closes_while_one_submits() {
    let manager = manager(2, false);
    let reader = manager.reader();
    let engine = Arc::clone(&manager.engine);
    let submitter = thread::spawn(move || {
        let mut accepted = 0;
        for index in 1..=3 {
            match engine
                .pipeline()
                .submit(&[entry(index)], crate::apply::pipeline::submit::Mode::Async)
            {
                Ok(_) => accepted = index,
                Err(SubmitError::Closed) => break,
                Err(other) => panic!("{other}"),
            }
        }
        let outcome = engine.pipeline().wait(3, crate::Stage::Acknowledged, FOREVER);
        let in_time = accepted == 3 && outcome.is_ok();
        assert!(in_time || matches!(outcome, Err(WaitError::Closed { index: 3 })), "{outcome:?}");
        accepted
    });
    manager.close(FOREVER).unwrap();
    let accepted = submitter.join().unwrap();
    let of = |keep: fn(&u64) -> bool| (1..=accepted).filter(keep).collect::<Vec<_>>();
    assert_eq!(reader.applied_in(0), of(|index| matches!(index % 4, 0 | 1)));
    assert_eq!(reader.applied_in(1), of(|index| matches!(index % 4, 2 | 3)));
}

#[test]
fn what_is_accepted_while_it_closes_is_applied() {
    shuttle::check_random(it_closes_while_one_submits, schedules(400));
}

#[test]
fn a_batch_longer_than_the_pipeline_is_applied_with_its_replies_in_order() {
    shuttle::check_random(
        || {
            let manager = manager(2, true);
            let mut got = Vec::new();
            let entries = (1..=ENTRIES).map(entry);
            let count = manager.apply_batch(entries, FOREVER, |index, reply| {
                got.push((index, reply));
            });
            assert_eq!(count.unwrap(), ENTRIES);
            let expected = (1..=ENTRIES).map(|index| (index, Reply::Custom(index)));
            assert!(got.into_iter().eq(expected));
            manager.close(FOREVER).unwrap();
        },
        schedules(200),
    );
}

#[test]
fn a_machine_that_fails_ends_every_wait() {
    shuttle::check_random(
        || {
            let manager = Arc::new(manager(2, false));
            let waiting = Arc::clone(&manager);
            let waiter = thread::spawn(move || waiting.wait_for_apply(2, FOREVER));
            // The toy refuses an entry that does not follow its predecessor, and 0 has none.
            let _ = manager.apply_entries(&[Entry::noop(0, 1)]).unwrap();
            let outcome = manager.wait_for_apply(2, FOREVER);
            assert!(matches!(outcome, Err(WaitError::Poisoned(_))), "{outcome:?}");
            assert!(matches!(waiter.join().unwrap(), Err(WaitError::Poisoned(_))));
        },
        schedules(400),
    );
}
