//! Tests of proposals: the engine numbers, waits for room, and returns the reply, also through
//! futures that are not polled.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::machines::{Gate, Hooked, KeyValueReads, gated, meets, memory};
use crate::common::{LONG, SHORT, Scratch, apply_config, block_on, manage, open};
use sprag::error::{Poison, ProposeError, SubmitError, WaitError};
use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, EntryRange, Fatal, Footprint, Journaled, LogId,
    Partition, Payload, PayloadRef, PersistentStateMachine, Replies, Reply, StateMachine,
};

fn small(workers: usize, depth: usize) -> ApplyConfig {
    apply_config(workers).pipeline_depth(depth)
}

fn visit() -> Command<'static> {
    Command::increment(b"visits", 1)
}

fn number(reply: &Reply) -> i64 {
    let Reply::Counter(number) = reply else { panic!("{reply:?}") };
    *number
}

/// Proves ORD-6.
#[test]
fn a_new_log_begins_at_index_1_and_term_1_and_goes_on_after_opening_again() {
    let scratch = Scratch::new();
    for life in 0..3 {
        let manager = scratch.open();
        assert_eq!(manager.next_index(), 1 + 10 * life);
        for at in 1..=5 {
            let reply = manager.propose(visit(), LONG).unwrap();
            assert_eq!(number(&reply), i64::try_from(10 * life + at).unwrap());
        }
        for at in 6..=10 {
            let proposal = manager.propose_async(visit(), Duration::ZERO);
            assert_eq!(proposal.log_id(), Some(LogId::new(10 * life + at, 1)));
            assert_eq!(
                number(&block_on(proposal).unwrap()),
                i64::try_from(10 * life + at).unwrap()
            );
        }
        let state = manager.log().unwrap().state().unwrap();
        assert_eq!(state.last, Some(LogId::new(10 * life + 10, 1)));
        manager.close(LONG).unwrap();
    }
}

#[test]
fn proposals_take_the_term_of_the_logs_last_entry_and_every_payload() {
    let check = |manager: &dyn Fn(Payload<'static>) -> Reply| {
        assert_eq!(manager(Payload::Noop), Reply::Applied);
        assert_eq!(manager(Command::put(b"k", b"v").into()), Reply::Put { replaced: false });
        assert_eq!(manager(Command::delete(b"k").into()), Reply::Deleted { existed: true });
        let swap = Command::compare_and_set(b"k", None, Some(b"w"));
        assert_eq!(manager(swap.into()), Reply::Swapped);
    };
    let scratch = Scratch::new();
    let manager = scratch.open();
    manager.apply(&Entry::noop(1, 7), LONG).unwrap();
    check(&|payload| manager.propose(payload, LONG).unwrap());
    assert_eq!(manager.log().unwrap().state().unwrap().last, Some(LogId::new(5, 7)));

    // The log id of an installed snapshot counts too.
    let file = Scratch::new();
    manager.snapshots().write_to(&mut std::fs::File::create(file.path()).unwrap()).unwrap();
    let snapshot = sprag::Snapshot::open(file.path()).unwrap();
    let (restored, path) = (Scratch::new(), file.path());
    let (mode, order) = (sprag::CommitMode::OnAppend, sprag::Contiguity::Strict);
    sprag::restore(&path, restored.path(), mode, order).unwrap();
    let other = restored.open();
    let proposal = other.propose_async(Payload::Noop, LONG);
    assert_eq!(proposal.log_id(), Some(LogId::new(6, 7)));
    assert_eq!(block_on(proposal).unwrap(), Reply::Applied);

    let other = manage(memory(), apply_config(2));
    assert_eq!(other.next_index(), 1);
    other.snapshots().restore(&snapshot, LONG).unwrap();
    assert_eq!(other.next_index(), 6);
    let proposal = other.propose_async(Payload::Noop, LONG);
    assert_eq!(proposal.log_id(), Some(LogId::new(6, 7)));
    assert_eq!(block_on(proposal).unwrap(), Reply::Applied);
}

/// Proves ORD-6.
#[test]
fn a_log_that_commits_by_commit_refuses_proposals_and_what_is_no_entry_is_named() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    let refused = |outcome: Result<Reply, ProposeError>| match outcome.unwrap_err() {
        ProposeError::Refused(SubmitError::CommitMode { call: "propose", .. }) => {}
        error => panic!("{error:?}"),
    };
    refused(manager.propose(visit(), LONG));
    let proposal = manager.propose_async(visit(), LONG);
    assert_eq!(proposal.log_id(), None);
    refused(block_on(proposal));

    let manager = manage(memory(), small(1, 4));
    let empty = manager.propose(Command::put(b"", b""), LONG).unwrap_err();
    assert!(matches!(empty, ProposeError::Refused(SubmitError::Entry { index: 1, .. })), "{empty}");
    assert_eq!((empty.log_id(), manager.next_index()), (None, 1));
}

/// Proves ORD-6.
#[test]
fn a_full_pipeline_is_waited_for_until_the_timeout_and_is_never_full() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), small(1, 4)));
    let _opener = gate.opener();
    let kept: Vec<_> = (0..4).map(|_| manager.propose_async(visit(), Duration::ZERO)).collect();
    for proposal in [
        manager.propose(visit(), SHORT),
        block_on(manager.propose_async(visit(), SHORT)),
        block_on(manager.propose_async(visit(), Duration::ZERO)),
    ] {
        let error = proposal.unwrap_err();
        assert!(matches!(error, ProposeError::NoRoom { pending: 4, .. }), "{error:?}");
        assert_eq!(error.log_id(), None);
    }
    assert_eq!(manager.next_index(), 5, "nothing was taken");
    let waiting = thread::spawn({
        let manager = Arc::clone(&manager);
        move || manager.propose(visit(), LONG)
    });
    thread::sleep(SHORT);
    gate.open();
    assert_eq!(number(&waiting.join().unwrap().unwrap()), 5);
    let replies: Vec<_> = kept.into_iter().map(|kept| number(&block_on(kept).unwrap())).collect();
    assert_eq!(replies, [1, 2, 3, 4]);
}

/// Proves ORD-6.
#[test]
fn an_error_after_the_entry_was_taken_carries_its_log_id() {
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), small(1, 4).inline_apply(false));
    let opener = gate.opener();
    let late = manager.propose(visit(), SHORT).unwrap_err();
    let timed_out =
        matches!(late, ProposeError::Taken { source: WaitError::Timeout { index: 1, .. }, .. });
    assert!(timed_out, "{late:?}");
    assert_eq!(late.log_id(), Some(LogId::new(1, 1)));
    gate.open();
    manager.wait_for_apply(1, LONG).unwrap();
    assert_eq!(manager.machine().get(b"visits").unwrap().as_deref(), Some(&b"1"[..]));
    drop(opener);

    // The machine fails in an entry applied by the caller, and by a worker.
    for inline in [true, false] {
        let fails = |range: &EntryRange<'_>, partition| match meets(range, partition, 2) {
            true => Err(Fatal::new("two")),
            false => Ok(()),
        };
        let manager = manage(Hooked::new(memory(), fails), small(1, 4).inline_apply(inline));
        let before = manager.propose_async(visit(), LONG);
        manager.wait_for_apply(1, LONG).unwrap();
        let error = manager.propose(visit(), LONG).unwrap_err();
        let failed = matches!(
            &error,
            ProposeError::Taken { source: WaitError::Poisoned(Poison::Fatal { index: 2, .. }), .. }
        );
        assert!(failed, "{error:?}");
        assert_eq!(error.log_id(), Some(LogId::new(2, 1)));
        let after = manager.propose(visit(), LONG).unwrap_err();
        let refused = matches!(after, ProposeError::Refused(SubmitError::Poisoned(_)));
        assert!(refused, "{after:?}");
        // An entry acknowledged before has its reply.
        assert_eq!(number(&block_on(before).unwrap()), 1);
    }

    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), small(1, 4));
    let opener = gate.opener();
    let pending = manager.propose_async(visit(), LONG);
    assert!(manager.close(SHORT).is_err());
    let error = block_on(pending).unwrap_err();
    let closed =
        matches!(error, ProposeError::Taken { source: WaitError::Closed { index: 1 }, .. });
    assert!(closed, "{error:?}");
    assert_eq!(error.log_id(), Some(LogId::new(1, 1)));
    drop(opener);
}

/// Proves ORD-6.
#[test]
fn futures_that_are_leaked_dropped_or_never_polled_hold_no_slot_and_cancel_nothing() {
    let check = |manager: &dyn Fn() -> sprag::Proposal, now: &dyn Fn() -> Reply| {
        // The future is polled at the end, after its slot was reused many times.
        let first = manager();
        for round in 0..100 {
            std::mem::forget(manager());
            drop(manager());
            let unpolled = manager();
            assert_eq!(number(&now()), 1 + 4 * (round + 1));
            drop(unpolled);
        }
        assert_eq!(number(&block_on(first).unwrap()), 1);
    };
    let manager = manage(memory(), small(2, 8));
    check(&|| manager.propose_async(visit(), LONG), &|| manager.propose(visit(), LONG).unwrap());
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let manager = manage(machine, small(1, 8));
    check(&|| manager.propose_async(visit(), LONG), &|| manager.propose(visit(), LONG).unwrap());
}

/// Threads propose increments by both calls in turn. Every number comes once, and each thread sees
/// rising numbers.
fn many_threads<M: StateMachine + KeyValueReads>(manager: &ApplyManager<M>, each: i64) {
    const THREADS: i64 = 8;
    let mut all: Vec<i64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let (mut numbers, mut futures) = (Vec::new(), Vec::new());
                    for at in 0..each {
                        if (at + thread) % 3 == 0 {
                            numbers.push(number(&manager.propose(visit(), LONG).unwrap()));
                            continue;
                        }
                        let future = manager.propose_async(visit(), LONG);
                        futures.push((future.log_id().unwrap(), future));
                    }
                    let rises = |numbers: &[i64]| numbers.is_sorted_by(|one, next| one < next);
                    assert!(rises(&numbers));
                    let indexes: Vec<_> = futures.iter().map(|(log_id, _)| log_id.index).collect();
                    let late: Vec<_> = futures
                        .into_iter()
                        .map(|(_, future)| number(&block_on(future).unwrap()))
                        .collect();
                    // Index and number are the same, because no other entry is in the log.
                    let same = |(index, number): (&u64, &i64)| i64::try_from(*index) == Ok(*number);
                    assert!(indexes.iter().zip(&late).all(same) && rises(&late));
                    numbers.extend(late);
                    numbers
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (1..=THREADS * each).collect::<Vec<_>>());
    let visits = manager.machine().value_of(b"visits").unwrap().unwrap();
    assert_eq!(&*visits, (THREADS * each).to_string().as_bytes());
    assert_eq!(i64::try_from(manager.next_index()).unwrap(), THREADS * each + 1);
}

/// Proves ORD-6.
#[test]
fn many_threads_propose_at_once_and_every_reply_is_of_its_own_entry() {
    for (workers, depth) in [(1, 4), (2, 16), (3, 1024)] {
        many_threads(&manage(memory(), small(workers, depth)), 300);
    }
    for (workers, depth) in [(1, 8), (2, 1024)] {
        let scratch = Scratch::new();
        let machine = PersistentStateMachine::open(scratch.config()).unwrap();
        many_threads(&manage(machine, small(workers, depth)), 60);
    }
}

/// A machine that replies with the earlier bytes under the same first byte.
#[derive(Default)]
struct Echo(Mutex<BTreeMap<u8, Vec<u8>>>);

impl StateMachine for Echo {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Opaque([first, ..]) => Footprint::key(&[*first]),
            _ => Footprint::All,
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let PayloadRef::Opaque(bytes) = entry.payload else { continue };
            let [first, ..] = bytes else { continue };
            let before = self.0.lock().unwrap().insert(*first, bytes.to_vec());
            replies.set_bytes(&entry, &before.unwrap_or_default());
        }
        Ok(())
    }

    fn reply_bytes_max(&self) -> usize {
        16
    }
}

fn bytes_come_back<M: StateMachine>(manager: &ApplyManager<M>) {
    let first = manager.propose_async(Payload::Opaque(b"a first"), LONG);
    for at in 0..40_u8 {
        let before = manager.propose(Payload::Opaque(&[b'a', at]), LONG).unwrap();
        let expected = match at {
            0 => b"a first".to_vec(),
            _ => vec![b'a', at - 1],
        };
        assert_eq!(before.as_bytes(), Some(&expected[..]));
        let future = manager.propose_async(Payload::Opaque(&[b'b', at]), LONG);
        let expected = if at == 0 { Vec::new() } else { vec![b'b', at - 1] };
        assert_eq!(block_on(future).unwrap().as_bytes(), Some(&expected[..]));
    }
    assert_eq!(block_on(first).unwrap().as_bytes(), Some(&b""[..]));
}

#[test]
fn a_machine_of_ones_own_gets_proposals_and_its_bytes_come_through_the_future() {
    bytes_come_back(&manage(Echo::default(), small(2, 4)));
    let scratch = Scratch::new();
    let machine = Journaled::open(scratch.config(), Echo::default()).unwrap();
    bytes_come_back(&manage(machine, small(2, 4)));
}

/// Proves ORD-3, ORD-6.
#[test]
fn a_reply_is_given_only_when_the_entry_is_acknowledged() {
    use sprag::testing::{SimDisk, Stepped};
    use std::task::{Context, Waker};

    let sim = SimDisk::new(1);
    let config = sprag::PersistentConfig::new("simulated");
    let machine = PersistentStateMachine::open_on_disk(sim.open(true).unwrap(), config).unwrap();
    let engine = Stepped::new(machine, apply_config(1)).unwrap();
    let mut proposal = std::pin::pin!(engine.propose_async(visit(), Duration::ZERO));
    let mut context = Context::from_waker(Waker::noop());
    while engine.step_worker(0) {}
    assert_eq!(engine.stats().applied, Some(1), "the state has it");
    assert!(std::future::Future::poll(proposal.as_mut(), &mut context).is_pending());
    engine.run_until_idle();
    let reply = std::future::Future::poll(proposal.as_mut(), &mut context);
    assert!(matches!(reply, std::task::Poll::Ready(Ok(Reply::Counter(1)))), "{reply:?}");
}
