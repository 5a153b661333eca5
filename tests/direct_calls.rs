//! Tests of synchronous calls that find the engine idle, and apply their entries directly.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use crate::common::generate::op;
use crate::common::machines::{Hooked, KeyValueReads, compare, meets, memory};
use crate::common::model::Model;
use crate::common::ops::{Logged, log_of, with_entries};
use crate::common::{LONG, Scratch, apply_config, manage};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use sprag::error::{ApplyError, Poison, SubmitError};
use sprag::testing::Stepped;
use sprag::{
    ApplyManager, Command, Entry, EntryRange, Fatal, MemoryConfig, MemoryStateMachine,
    PersistentStateMachine, Reply, StateMachine,
};

/// The ranges that a machine was given: first and last index, and the thread.
type Seen = Arc<Mutex<Vec<(u64, u64, ThreadId)>>>;

fn watched<M: StateMachine>(machine: M) -> (Hooked<M>, Seen) {
    let seen = Seen::default();
    let to = Arc::clone(&seen);
    let machine = Hooked::new(machine, move |range, partition| {
        let here = thread::current().id();
        if partition.id() == 0 {
            to.lock().unwrap().push((range.first().index, range.last().index, here));
        }
        Ok(())
    });
    (machine, seen)
}

/// Entries of every kind, with values of all lengths.
fn log(count: usize) -> Vec<Logged> {
    let mut runner = TestRunner::deterministic();
    let ops = (0..count).map(|_| op().new_tree(&mut runner).unwrap().current());
    log_of(1, 1, ops)
}

/// Applies `log` in calls of 1, 2, 3 and so on entries, and compares each reply with the oracle's.
fn apply_all<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged], model: &mut Model) {
    let (mut rest, mut size) = (log, 0);
    let mut replies = vec![Reply::Custom(7)];
    while !rest.is_empty() {
        size += 1;
        let (part, after) = rest.split_at(size.min(rest.len()));
        with_entries(part, |entries| match entries {
            [entry] => replies = vec![manager.apply(entry, LONG).unwrap()],
            _ => manager.apply_entries_sync(entries, LONG, &mut replies).unwrap(),
        });
        assert_eq!(replies, model.apply_all(part), "a call of {size}");
        rest = after;
    }
}

#[test]
fn a_direct_call_replies_and_ends_as_one_entry_after_the_other_does() {
    let log = log(600);
    for workers in [1, 3] {
        // Calls take several frames, and more than a direct call has.
        let config = MemoryConfig::new().batch_size(3);
        let manager = manage(MemoryStateMachine::new(config).unwrap(), apply_config(workers));
        let mut model = Model::default();
        apply_all(&manager, &log, &mut model);
        compare(manager.machine(), &model).unwrap();
        let scratch = Scratch::new();
        let config = || scratch.config().segment_bytes(4 << 20).batch_size(3);
        let open = || PersistentStateMachine::open(config()).unwrap();
        let mut model = Model::default();
        for part in log.chunks(300) {
            let manager = manage(open(), apply_config(workers));
            compare(manager.machine(), &model).unwrap();
            apply_all(&manager, part, &mut model);
            compare(manager.machine(), &model).unwrap();
            manager.snapshots().compact().unwrap();
            compare(manager.machine(), &model).unwrap();
            manager.close(LONG).unwrap();
        }
        compare(&open(), &model).unwrap();
    }
}

#[test]
fn the_caller_applies_all_entries_of_a_direct_call_and_what_came_before_is_compared_with() {
    let (machine, seen) = watched(memory());
    // Without threads, so no worker is in its post for a moment.
    let manager = Stepped::applying_inline(machine, apply_config(1)).unwrap();
    let put = |index, value| Entry::put(index, 1, b"key", value);
    manager.apply(&put(1, b"a"), LONG).unwrap();
    let entries: Vec<_> = (2..=129).map(|index| put(index, b"b")).collect();
    let mut replies = Vec::new();
    manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap();
    assert_eq!(replies, vec![Reply::Put { replaced: true }; 128]);
    let here = thread::current().id();
    let ranges = seen.lock().unwrap().clone();
    assert!(ranges.iter().all(|(.., thread)| *thread == here), "{ranges:?}");
    // The second call ended the first frame, of 128 entries.
    assert_eq!(ranges.last().map(|(_, last, _)| *last), Some(129), "{ranges:?}");
    // The entries are in the journal: another payload is no known entry.
    manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap();
    assert_eq!(replies, vec![Reply::AlreadyApplied; 128]);
    let error = manager.apply(&put(100, b"c"), LONG).unwrap_err();
    let conflict = matches!(
        error,
        ApplyError::Submit { source: SubmitError::Conflict { index: 100, .. }, .. }
    );
    assert!(conflict, "{error:?}");
    let stats = manager.stats();
    assert_eq!((stats.latency.count, stats.latency.unmeasured), (129, 0));
    assert_eq!((stats.acknowledged, stats.machine.applied_count), (Some(129), 129));
}

#[test]
fn a_direct_call_fits_whatever_frames_and_segments_end_within_it() {
    let config = MemoryConfig::new().batch_size(64);
    let manager = manage(MemoryStateMachine::new(config).unwrap(), apply_config(1));
    let value = [b'v'; 100];
    let put = |index| Entry::put(index, 1, b"key", &value);
    // The open frame has room for one entry before each call.
    for index in 1..=63 {
        manager.apply(&put(index), LONG).unwrap();
    }
    let mut replies = Vec::new();
    // The images have 1 MiB, and end some twenty times.
    for call in 0..900 {
        let first = 64 + call * 192;
        let entries: Vec<_> = (first..first + 192).map(put).collect();
        manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap();
        assert_eq!(replies, vec![Reply::Put { replaced: true }; 192], "call {call}");
    }
}

#[test]
fn a_failure_within_a_direct_call_names_its_entry_and_nothing_of_the_call_is_acknowledged() {
    for panics in [true, false] {
        let fails = move |range: &EntryRange<'_>, partition| match meets(range, partition, 5) {
            true if panics => panic!("five"),
            true => Err(Fatal::new("five")),
            false => Ok(()),
        };
        let manager = manage(Hooked::new(memory(), fails), apply_config(1));
        manager.apply(&Entry::increment(1, 1, b"visits", 1), LONG).unwrap();
        let entries: Vec<_> =
            (2..=9).map(|index| Entry::increment(index, 1, b"visits", 1)).collect();
        let mut replies = vec![Reply::Custom(7)];
        let error = manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap_err();
        let poison = match error {
            ApplyError::Submit { source: SubmitError::Poisoned(poison), .. } => poison,
            error => panic!("{error:?}"),
        };
        let named = match poison {
            Poison::Panic { index } => panics && index == 5,
            Poison::Fatal { index, .. } => !panics && index == 5,
            _ => false,
        };
        assert!(named && replies.is_empty(), "{poison:?}, {replies:?}");
        let stats = manager.stats();
        assert_eq!(
            (stats.applied, stats.acknowledged, stats.submitted),
            (Some(1), Some(1), Some(9))
        );
        assert!(manager.propose(Command::increment(b"visits", 1), LONG).is_err());
        assert!(manager.machine().value_of(b"visits").is_err());
    }
}
