//! Tests of views: the state at one exact index, taken while entries are applied.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::generate::{self, Dice};
use crate::common::machines::{KeyValueReads, memory};
use crate::common::model::Model;
use crate::common::ops::{Cmd, Logged, Op, log_of, log_of_many_leaders, with_entries};
use crate::common::{LONG, Scratch, StopOnDrop, apply_config, manage};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sprag::error::{ApplyError, ReadError, SubmitError, ViewError};
use sprag::testing::storage::MemoryStorage;
use sprag::{ApplyManager, Entry, PersistentStateMachine, StateMachine, StorageConfig, View};

/// The log of a seed.
fn log(seed: u8, entries: usize) -> Vec<Logged> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let op = generate::op();
    let ops = (0..entries).map(|_| op.new_tree(&mut runner).unwrap().current());
    log_of_many_leaders(1, ops.collect::<Vec<_>>())
}

/// The content of a view, as a model.
fn content(view: &View) -> Model {
    let state = view.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        assert_eq!(view.get(&key).unwrap().as_ref(), Some(&value));
        (key.to_vec(), value.to_vec())
    });
    let state: Vec<_> = state.collect();
    assert!(state.is_sorted_by(|(one, _), (other, _)| one < other), "rising keys");
    assert_eq!(state.len(), view.len());
    Model {
        state: state.into_iter().collect(),
        notes: view.notes().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        membership: view.membership().map(|(log_id, bytes)| (log_id, bytes.to_vec())),
    }
}

/// Submits `log` in pieces of random length while views are taken, and compares each with the
/// model.
fn views_are_exact<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged], seed: u64) -> usize {
    let done = AtomicBool::new(false);
    let views = thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnDrop(&done);
            let (mut dice, mut rest) = (Dice::new(seed), log);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + dice.below(60) as usize));
                with_entries(now, |entries| submit(manager, entries, dice.below(8) == 0));
                rest = later;
            }
        });
        let mut views = Vec::new();
        while !done.load(Ordering::Acquire) {
            views.push(manager.snapshots().view().unwrap());
        }
        views.push(manager.snapshots().view().unwrap());
        views
    });
    let (mut model, mut applied) = (Model::default(), 0);
    for view in &views {
        let end = view.log_id().map_or(0, |log_id| log_id.index as usize);
        assert!(end >= applied, "views do not go back");
        model.apply_all(&log[applied..end]);
        applied = end;
        assert_eq!(view.log_id(), end.checked_sub(1).map(|last| log[last].0));
        assert!(content(view) == model, "the view at {end} differs");
    }
    assert_eq!(applied, log.len(), "the last view is of all that was submitted");
    views.len()
}

fn submit<M: StateMachine>(manager: &ApplyManager<M>, entries: &[Entry<'_>], sync: bool) {
    loop {
        let submitted = match sync {
            true => manager.apply_entries_sync(entries, LONG, &mut Vec::new()),
            false => manager
                .apply_entries(entries)
                .map(|_taken| ())
                .map_err(|source| ApplyError::Submit { source, submitted_through: None }),
        };
        match submitted {
            Ok(()) => return,
            Err(ApplyError::Submit { source: SubmitError::Full { .. }, .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Proves ORD-9.
#[test]
fn a_view_under_full_load_is_the_state_at_exactly_its_index() {
    for workers in 1..=4 {
        let seed = u8::try_from(workers).unwrap();
        let log = log(seed, 6000);
        let manager = manage(memory(), apply_config(workers));
        views_are_exact(&manager, &log, 3 + u64::from(seed));
        manager.close(LONG).unwrap();

        let scratch = Scratch::new();
        let config = scratch.config().segment_bytes(1 << 20);
        let machine = PersistentStateMachine::open(config).unwrap();
        let manager = manage(machine, apply_config(workers));
        views_are_exact(&manager, &log, 9 + u64::from(seed));
        manager.close(LONG).unwrap();
    }
}

/// Proves ORD-9.
#[test]
fn a_view_does_not_change_while_it_is_held() {
    let manager = manage(memory(), apply_config(2));
    let put = |index: u64, value: &[u8]| {
        manager.apply(&Entry::put(index, 1, b"key", value), LONG).unwrap();
    };
    put(1, &[1; 300]);
    let first = manager.snapshots().view().unwrap();
    let held = first.get(b"key").unwrap().unwrap();
    put(2, &[2; 300]);
    let second = manager.snapshots().view().unwrap();
    put(3, &[3; 10]);
    assert_eq!(first.get(b"key").unwrap().unwrap(), &[1; 300]);
    assert_eq!(second.get(b"key").unwrap().unwrap(), &[2; 300]);
    assert_eq!(manager.machine().get(b"key").unwrap().unwrap(), &[3; 10]);
    drop((first, second));
    assert_eq!(held, &[1; 300]);
}

#[test]
fn a_view_of_an_empty_state_is_empty_and_of_no_index() {
    let manager = manage(memory(), apply_config(3));
    let view = manager.snapshots().view().unwrap();
    assert_eq!((view.log_id(), view.len(), view.is_empty()), (None, 0, true));
    assert!(view.iter().next().is_none() && view.get(b"k").unwrap().is_none());
    assert!(view.prefix(b"").next().is_none() && view.range::<&[u8]>(..).next().is_none());
}

#[test]
fn ranges_and_prefixes_of_a_view_are_those_of_a_sorted_map() {
    check_ranges(memory());
    check_ranges(
        PersistentStateMachine::with_storage(MemoryStorage::new(), StorageConfig::new()).unwrap(),
    );
}

fn check_ranges(machine: impl StateMachine) {
    let mut dice = Dice::new(7);
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for _ in 0..600 {
        // Use few different bytes, so that keys share beginnings.
        let bytes = (0..=dice.below(5)).map(|_| [0, 1, 0x7e, 0xfe, 0xff][dice.below(5) as usize]);
        keys.push(bytes.collect());
    }
    keys.push(vec![0xff; 64 << 10]);
    let puts = keys.iter().map(|key| Op::One(Cmd::put(key.clone(), key.clone())));
    let log = log_of(1, 1, puts.collect::<Vec<_>>());
    let manager = manage(machine, apply_config(2));
    with_entries(&log, |entries| submit(&manager, entries, true));
    let view = manager.snapshots().view().unwrap();
    let model: BTreeMap<Vec<u8>, Vec<u8>> = Model::after(&log).state;
    let key_of = |entry: Result<(Cow<'_, [u8]>, sprag::Value), ReadError>| {
        entry.map(|(key, _)| key.into_owned()).unwrap()
    };
    for at in 0..keys.len() {
        let (one, other) = (&keys[at], &keys[dice.below(keys.len() as u64) as usize]);
        let expected: Vec<_> = model.keys().filter(|key| key.starts_with(one)).cloned().collect();
        assert_eq!(view.prefix(one).map(key_of).collect::<Vec<_>>(), expected);
        let (low, high) = (one.min(other), one.max(other));
        let expected: Vec<_> =
            model.range(low.clone()..high.clone()).map(|(key, _)| key.clone()).collect();
        assert_eq!(view.range::<Vec<u8>>(low..high).map(key_of).collect::<Vec<_>>(), expected);
        let expected: Vec<_> =
            model.range(low.clone()..=high.clone()).rev().map(|(key, _)| key.clone()).collect();
        assert_eq!(
            view.range::<Vec<u8>>(low..=high).rev().map(key_of).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(view.range::<Vec<u8>>(high..low).count(), 0);
        assert_eq!(view.get(one).unwrap().as_deref(), Some(&one[..]));
    }
    assert_eq!(view.range::<&[u8]>(..).count(), model.len());
    assert_eq!(view.get(b"not there").unwrap(), None);
}

#[test]
fn only_the_built_in_machines_have_views() {
    let gate = crate::common::machines::Gate::shut();
    gate.open();
    let manager = manage(crate::common::machines::gated(memory(), &gate), apply_config(1));
    assert!(matches!(manager.snapshots().view(), Err(ViewError::Unsupported)));
    assert_eq!(manager.machine().count().unwrap(), 0);
}

#[test]
fn how_long_workers_stop_for_views_is_in_the_stats() {
    let scratch = Scratch::new();
    let manager = crate::common::open(scratch.config());
    let put = |index: u64| {
        let key = (index % 300).to_be_bytes();
        submit(&manager, &[Entry::put(index, 1, &key, &[1; 50])], false);
    };
    (1..=600).for_each(put);
    let copied = |manager: &ApplyManager<PersistentStateMachine>| {
        let stats = manager.stats().machine;
        assert!(stats.copy_p999_ns <= stats.longest_copy_ns, "{stats:?}");
        assert!(stats.copy_p999_cpu_ns <= stats.longest_copy_cpu_ns, "{stats:?}");
        stats.longest_copy_ns
    };
    assert_eq!(copied(&manager), 0, "without a view the workers do not stop");
    let mut next = 601;
    assert!(crate::common::eventually(LONG, || {
        // A worker reaches the token, and a shard that was not copied for it yet.
        thread::scope(|scope| {
            let view = scope.spawn(|| manager.snapshots().view().map(drop));
            (next..next + 300).for_each(put);
            view.join().unwrap().unwrap();
        });
        next += 300;
        copied(&manager) > 0
    }));
    assert!(manager.stats().machine.copy_p999_ns > 0);
}
