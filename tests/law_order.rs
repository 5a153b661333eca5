//! Tests of law 1: state and replies are those of applying the log one entry at a time, in index
//! order, on one thread. Workers, batch sizes, calls, the hash seed, and restarts do not matter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::common::generate;
use crate::common::machines::{KeyValueReads, compare, memory};
use crate::common::model::Model;
use crate::common::ops::{Logged, Op, log_of_many_leaders, with_entries};
use crate::common::{LONG, Scratch, apply_config, manage};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sprag::error::{ApplyError, SubmitError};
use sprag::testing::SimDisk;
use sprag::{
    ApplyConfig, ApplyManager, Durability, Entry, MemoryConfig, MemoryStateMachine,
    PersistentConfig, PersistentStateMachine, Reply, StateMachine,
};

/// A way to submit entries.
#[derive(Clone, Copy, Debug)]
enum Call {
    One,
    Async,
    Sync,
    Batch,
    /// Asynchronously, and then the same entries synchronously.
    Twice,
}

#[derive(Clone, Debug)]
struct Scenario {
    ops: Vec<Op>,
    /// Index of the first entry, 0 or 1.
    first: u64,
    calls: Vec<(Call, usize)>,
    workers: usize,
    batch_size: usize,
    frame_entries: usize,
    pipeline_depth: usize,
    inline_apply: bool,
    hash_seed: u64,
    /// Calls after which the machine is opened anew, and whether it was closed or dropped.
    restarts: Vec<(usize, bool)>,
}

/// Scenarios whose logs have a number of entries out of `entries`.
fn scenario(entries: std::ops::Range<usize>) -> impl Strategy<Value = Scenario> {
    let call = prop::sample::select(vec![
        Call::One,
        Call::Async,
        Call::Async,
        Call::Sync,
        Call::Batch,
        Call::Twice,
    ]);
    let log = (vec(generate::op(), entries), 0..2_u64, vec((call, 1..40_usize), 1..12));
    let engine = (
        1..5_usize,
        prop::sample::select(vec![1, 2, 7, 128]),
        prop::sample::select(vec![1, 3, 128]),
        prop::sample::select(vec![2, 5, 64, 4096]),
        any::<bool>(),
        any::<u64>(),
    );
    (log, engine, vec((0..12_usize, any::<bool>()), 0..3)).prop_map(|(log, engine, restarts)| {
        let (ops, first, calls) = log;
        let (workers, batch_size, frame_entries, pipeline_depth, inline_apply, hash_seed) = engine;
        Scenario {
            ops,
            first,
            calls,
            workers,
            batch_size,
            frame_entries,
            pipeline_depth,
            inline_apply,
            hash_seed,
            restarts,
        }
    })
}

impl Scenario {
    fn log(&self) -> Vec<Logged> {
        log_of_many_leaders(self.first, self.ops.iter().cloned())
    }

    fn apply_config(&self) -> ApplyConfig {
        apply_config(self.workers)
            .batch_size(self.batch_size)
            .pipeline_depth(self.pipeline_depth)
            .inline_apply(self.inline_apply)
    }

    fn persistent(&self, scratch: &Scratch) -> PersistentConfig {
        scratch
            .config()
            .segment_bytes(1 << 20)
            .batch_size(self.frame_entries)
            .hash_seed(self.hash_seed)
    }

    /// The log, cut into the parts of each call; the calls repeat until nothing is left.
    fn parts<'l>(&self, log: &'l [Logged]) -> Vec<(Call, &'l [Logged])> {
        let mut parts = Vec::new();
        let mut rest = log;
        for (call, size) in self.calls.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let size = match call {
                Call::One => 1,
                Call::Batch => *size,
                Call::Async | Call::Sync | Call::Twice => (*size).min(self.pipeline_depth),
            };
            let (part, after) = rest.split_at(size.min(rest.len()));
            parts.push((*call, part));
            rest = after;
        }
        parts
    }
}

/// Number of times that one submission may be refused as full, with a flush after each.
const FULL_MAX: usize = 2000;

/// Submits all of `entries`: again after a flush while the pipeline is full, and in halves if they
/// never fit at once. Any other refusal fails the test, and so does a full pipeline with nothing
/// pending.
fn submit<M: StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[Entry<'_>],
    submission: &mut impl FnMut(&[Entry<'_>]) -> Result<(), SubmitError>,
) {
    for _ in 0..FULL_MAX {
        match submission(entries) {
            Ok(()) => return,
            Err(SubmitError::Full { .. }) => manager.flush_pending(LONG).unwrap(),
            Err(SubmitError::TooLarge { .. }) if entries.len() > 1 => {
                let (head, tail) = entries.split_at(entries.len() / 2);
                submit(manager, head, submission);
                return submit(manager, tail, submission);
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("full, however often it is flushed");
}

fn submit_async<M: StateMachine>(manager: &ApplyManager<M>, entries: &[Entry<'_>]) {
    submit(manager, entries, &mut |part| manager.apply_entries(part).map(|_taken| ()));
}

fn submit_sync<M: StateMachine>(manager: &ApplyManager<M>, entries: &[Entry<'_>]) -> Vec<Reply> {
    let mut all = Vec::new();
    let mut replies = vec![Reply::Custom(7)];
    submit(manager, entries, &mut |part| {
        match manager.apply_entries_sync(part, LONG, &mut replies) {
            Ok(()) => all.extend_from_slice(&replies),
            Err(ApplyError::Submit { source, .. }) => return Err(source),
            Err(error) => panic!("{error}"),
        }
        Ok(())
    });
    all
}

/// Submits one part and returns the existing replies.
fn perform<M: StateMachine>(
    manager: &ApplyManager<M>,
    call: Call,
    entries: &[Entry<'_>],
) -> Vec<Option<Reply>> {
    match call {
        Call::One => entries
            .iter()
            .map(|entry| match manager.apply(entry, LONG) {
                Ok(reply) => Some(reply),
                Err(ApplyError::Submit { source: SubmitError::Full { .. }, .. }) => {
                    Some(submit_sync(manager, &[*entry]).remove(0))
                }
                Err(error) => panic!("{error}"),
            })
            .collect(),
        Call::Async => {
            submit_async(manager, entries);
            vec![None; entries.len()]
        }
        Call::Sync => submit_sync(manager, entries).into_iter().map(Some).collect(),
        Call::Batch => {
            let mut replies = Vec::new();
            let mut next = entries[0].log_id.index;
            let count = manager.apply_batch(entries.iter().copied(), LONG, |index, reply| {
                assert_eq!(index, next, "the sink sees every index, in order");
                next += 1;
                replies.push(Some(reply));
            });
            assert_eq!(count.unwrap(), entries.len() as u64);
            replies
        }
        Call::Twice => {
            submit_async(manager, entries);
            // An entry applied in between reports that; a pending one has its one reply.
            let replies = submit_sync(manager, entries).into_iter();
            replies
                .map(|reply| Some(reply).filter(|reply| *reply != Reply::AlreadyApplied))
                .collect()
        }
    }
}

/// Compares the replies of one part with the oracle's: `None` where the engine returned none.
fn check_replies(first: u64, got: &[Option<Reply>], expected: &[Reply]) -> Result<(), String> {
    if got.len() != expected.len() {
        return Err(format!("{} replies for {} entries", got.len(), expected.len()));
    }
    for ((index, got), expected) in (first..).zip(got).zip(expected) {
        if got.as_ref().is_some_and(|got| got != expected) {
            return Err(format!("index {index}: replied {got:?}, must be {expected:?}"));
        }
    }
    Ok(())
}

/// Runs the scenario's log through one engine after another, and compares each reply with
/// `oracle`'s log. Returns the bytes of the
/// last state's snapshot.
fn run<M: StateMachine + KeyValueReads>(
    scenario: &Scenario,
    oracle: &[Logged],
    mut open: impl FnMut() -> M,
    restarts: bool,
) -> Result<Vec<u8>, String> {
    let log = scenario.log();
    let mut model = Model::default();
    let mut engine = manage(open(), scenario.apply_config());
    let mut done = 0;
    for (number, (call, part)) in scenario.parts(&log).into_iter().enumerate() {
        let first = part[0].0.index;
        let replies = with_entries(part, |entries| perform(&engine, call, entries));
        let expected = model.apply_all(&oracle[done..done + part.len()]);
        check_replies(first, &replies, &expected)?;
        done += part.len();
        let restart = scenario.restarts.iter().find(|(after, _)| *after == number);
        if let Some((_, close)) = restart.filter(|_| restarts) {
            if *close {
                engine.close(LONG).unwrap()
            } else {
                drop(engine)
            }
            engine = manage(open(), scenario.apply_config());
            check_end(&engine, part)?;
            compare(engine.machine(), &model)?;
        }
    }
    engine.flush_pending(LONG).unwrap();
    check_end(&engine, &log)?;
    compare(engine.machine(), &model)?;
    let mut state = Vec::new();
    engine.snapshots().write_to(&mut state).unwrap();
    let reader = engine.reader();
    engine.close(LONG).unwrap();
    compare(&*reader, &model)?;
    Ok(state)
}

fn check_end<M: StateMachine>(engine: &ApplyManager<M>, log: &[Logged]) -> Result<(), String> {
    let last = log.last().map(|(log_id, _)| log_id.index);
    let stats = engine.stats();
    if (stats.applied, stats.acknowledged, stats.submitted) != (last, last, last) {
        return Err(format!("the watermarks do not end at {last:?}: {stats:?}"));
    }
    Ok(())
}

fn run_memory(scenario: &Scenario, oracle: &[Logged]) -> Result<Vec<u8>, String> {
    let config =
        || MemoryConfig::new().hash_seed(scenario.hash_seed).batch_size(scenario.frame_entries);
    run(scenario, oracle, || MemoryStateMachine::new(config()).unwrap(), false)
}

fn run_persistent(scenario: &Scenario, oracle: &[Logged]) -> Result<(), String> {
    let scratch = Scratch::new();
    let open = || PersistentStateMachine::open(scenario.persistent(&scratch)).unwrap();
    run(scenario, oracle, open, true)?;
    // A later read-only opening shows the same.
    let reader = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    compare(&reader, &Model::after(oracle))
}

/// Runs the scenario over a simulated disk, whose syncs cost nothing. The promise here is the
/// order, not what a power cut leaves.
fn run_simulated(scenario: &Scenario, oracle: &[Logged]) -> Result<Vec<u8>, String> {
    let disk = SimDisk::new(scenario.hash_seed);
    let config = || {
        PersistentConfig::new("simulated")
            .segment_bytes(256 << 10)
            .expected_keys(16)
            .batch_size(scenario.frame_entries)
            .hash_seed(scenario.hash_seed)
            .durability(Durability::Os)
    };
    let open = || {
        let disk = disk.open(true).unwrap();
        PersistentStateMachine::open_on_disk(disk, config()).unwrap()
    };
    run(scenario, oracle, open, true)
}

#[test]
fn a_thousand_random_logs_end_on_our_own_log_as_in_memory_and_as_the_serial_oracle_does() {
    let scenarios = scenario(1..24);
    let mut runner = TestRunner::deterministic();
    for number in 0..1000 {
        let scenario = scenarios.new_tree(&mut runner).unwrap().current();
        let log = scenario.log();
        let (ours, in_memory) = (run_simulated(&scenario, &log), run_memory(&scenario, &log));
        assert!(ours.is_ok(), "log {number}: {ours:?}\n{scenario:?}");
        assert!(ours == in_memory, "log {number}: the states differ\n{scenario:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// Proves ORD-1.
    #[test]
    fn the_memory_machine_replies_and_ends_as_the_serial_oracle_does(scenario in scenario(1..160)) {
        let log = scenario.log();
        prop_assert_eq!(run_memory(&scenario, &log).map(drop), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// Proves ORD-1.
    #[test]
    fn the_persistent_machine_does_so_too_with_restarts_in_between(scenario in scenario(1..160)) {
        let log = scenario.log();
        prop_assert_eq!(run_persistent(&scenario, &log), Ok(()));
    }
}

/// A scenario without special options.
fn plain(ops: Vec<Op>) -> Scenario {
    Scenario {
        ops,
        first: 1,
        calls: vec![(Call::Sync, 64)],
        workers: 2,
        batch_size: 2,
        frame_entries: 3,
        pipeline_depth: 64,
        inline_apply: false,
        hash_seed: 3,
        restarts: vec![],
    }
}

/// The canary: an oracle with two entries in the other order must differ, in the state or in the
/// replies.
#[test]
fn an_oracle_with_two_entries_swapped_is_told_apart() {
    let swaps: Vec<(&str, Vec<Op>)> = vec![
        ("puts", vec![Op::put("a", "1"), Op::put("a", "2")]),
        (
            "increments, of which only the replies tell",
            vec![Op::increment("a", 1), Op::increment("a", 2)],
        ),
        ("a put and a delete", vec![Op::put("a", "1"), Op::delete("a")]),
        (
            "a batch and a put",
            vec![
                Op::Batch { commands: vec![crate::common::ops::Cmd::put("a", "1")], note: None },
                Op::put("a", "2"),
            ],
        ),
        ("memberships", vec![Op::Membership(vec![1]), Op::Membership(vec![2])]),
        (
            "notes",
            vec![
                Op::Batch { commands: vec![], note: Some((b"n".to_vec(), vec![1])) },
                Op::Batch { commands: vec![], note: Some((b"n".to_vec(), vec![2])) },
            ],
        ),
    ];
    for (what, pair) in swaps {
        let mut ops: Vec<Op> = (0..20_u8).map(|at| Op::put([at], [at])).collect();
        ops.splice(11..11, pair);
        let scenario = plain(ops);
        let log = scenario.log();
        assert_eq!(run_memory(&scenario, &log).map(drop), Ok(()), "{what}");
        let mut swapped = log.clone();
        let (left, right) = swapped.split_at_mut(12);
        std::mem::swap(&mut left[11].1, &mut right[0].1);
        assert_ne!(run_memory(&scenario, &swapped).map(drop), Ok(()), "{what}, in memory");
        assert_ne!(run_persistent(&scenario, &swapped), Ok(()), "{what}, persistent");
        assert_ne!(run_simulated(&scenario, &swapped).map(drop), Ok(()), "{what}, simulated");
    }
}

/// Proves ORD-11.
#[test]
fn barriers_among_many_partitions_keep_their_place_in_the_order() {
    // Each barrier reads what every partition wrote before it: one entry late or early, and it is
    // rejected.
    let keys: Vec<Vec<u8>> = (0..32_u8).map(|key| vec![key; 3]).collect();
    let mut ops = Vec::new();
    for round in 0..40_i64 {
        ops.extend(keys.iter().map(|key| Op::increment(key.clone(), 1)));
        let expect = |key: &Vec<u8>| crate::common::ops::Cmd::CompareAndSet {
            key: key.clone(),
            expected: Some((round + 1).to_string().into_bytes()),
            new: Some((round + 1).to_string().into_bytes()),
        };
        ops.push(Op::Batch { commands: keys.iter().map(expect).collect(), note: None });
    }
    let log = log_of_many_leaders(1, ops);
    let expected = Model::default().apply_all(&log);
    assert!(expected.iter().all(|reply| !matches!(reply, Reply::Rejected(_))));
    for workers in 1..=4 {
        let engine = manage(memory(), apply_config(workers).batch_size(5).inline_apply(false));
        let mut replies = Vec::new();
        with_entries(&log, |entries| {
            let sink = |_, reply| replies.push(reply);
            engine.apply_batch(entries.iter().copied(), LONG, sink).unwrap();
        });
        assert_eq!(replies, expected, "{workers} workers");
        compare(engine.machine(), &Model::after(&log)).unwrap();
    }
}
