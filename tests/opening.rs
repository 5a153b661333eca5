//! Tests of instant opening from a snapshot: reads and writes go on while the store fills, and
//! nothing comes back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use crate::common::generate::Dice;
use crate::common::machines::{KeyValueReads, compare};
use crate::common::model::Model;
use crate::common::ops::{Cmd, Logged, Op, log_of, with_entries};
use crate::common::{LONG, Scratch, apply_config, copy_dir};
use sprag::error::{OpenError, ReadError, SnapshotError, SubmitError};
use sprag::testing::{Fault, FaultError, SimDisk, Stepped};
use sprag::{PersistentConfig, PersistentStateMachine};

const KEYS: u64 = 120;

fn key(at: u64) -> Vec<u8> {
    format!("key-{at:03}").into_bytes()
}

/// A log of all commands, over few keys.
fn log(seed: u64, first: u64, entries: u64) -> Vec<Logged> {
    let mut dice = Dice::new(seed);
    let mut command = |small: bool| {
        let (key, kind) = (key(dice.below(KEYS)), dice.below(10));
        let mut value =
            || vec![b'0' + dice.below(10) as u8; dice.below(if small { 3 } else { 200 }) as usize];
        match kind {
            0 | 1 => Cmd::Delete { key },
            2 | 3 => Cmd::increment(key, 5),
            4 => Cmd::CompareAndSet { key, expected: None, new: Some(value()) },
            5 => Cmd::CompareAndSet { key, expected: Some(value()), new: None },
            _ => Cmd::put(key, value()),
        }
    };
    let ops = (0..entries).map(|at| match at % 13 {
        12 => Op::Batch { commands: vec![command(true), command(true), command(true)], note: None },
        11 => Op::Membership(at.to_le_bytes().to_vec()),
        _ => Op::One(command(at % 2 == 0)),
    });
    log_of(first, 1, ops.collect::<Vec<_>>())
}

fn config(scratch: &Scratch) -> PersistentConfig {
    scratch.config().segment_bytes(16 << 10).snapshot_chunk_bytes(700).compaction(None)
}

fn engine(scratch: &Scratch, workers: usize) -> Stepped<PersistentStateMachine> {
    Stepped::new(PersistentStateMachine::open(config(scratch)).unwrap(), apply_config(workers))
        .unwrap()
}

fn submit(engine: &Stepped<PersistentStateMachine>, log: &[Logged]) {
    with_entries(log, |entries| match engine.apply_entries(entries) {
        Ok(_) => engine.run_until_idle(),
        Err(SubmitError::Full { .. }) => panic!("it was idle"),
        Err(error) => panic!("{error}"),
    });
}

/// A directory that opens from a snapshot alone, with `tail` more entries in the log.
fn compacted(log: &[Logged], tail: &[Logged]) -> Scratch {
    let scratch = Scratch::new();
    let engine = engine(&scratch, 2);
    log.chunks(40).for_each(|piece| submit(&engine, piece));
    let report = engine.snapshots().compact().unwrap();
    assert!(report.purged.is_some());
    tail.chunks(40).for_each(|piece| submit(&engine, piece));
    engine.into_manager().close(LONG).unwrap();
    scratch
}

fn reads_are_those_of(engine: &Stepped<PersistentStateMachine>, model: &Model) {
    for at in 0..KEYS + 3 {
        let key = key(at);
        let expected = model.state.get(&key);
        assert_eq!(
            engine.machine().get(&key).unwrap().as_deref(),
            expected.map(|value| &value[..]),
            "{at}"
        );
        assert_eq!(engine.machine().contains(&key).unwrap(), expected.is_some());
        let mut out = vec![1];
        assert_eq!(engine.machine().get_into(&key, &mut out).unwrap(), expected.is_some());
        assert_eq!(out, expected.cloned().unwrap_or_default());
    }
}

#[test]
fn everything_reads_and_applies_as_ever_at_any_moment_of_the_filling() {
    let (base, tail) = (log(1, 1, 1500), log(2, 1501, 60));
    let directory = compacted(&base, &tail);
    let mut opened = Model::after(&base);
    opened.apply_all(&tail);
    for seed in 1..13 {
        let scratch = Scratch::new();
        copy_dir(&directory.path(), &scratch.path());
        let engine = engine(&scratch, 1 + seed as usize % 3);
        assert!(engine.stats().machine.unfilled_chunks > 5);
        let mut model = opened.clone();
        let more = log(seed + 100, 1561, 150);
        let mut dice = Dice::new(seed);
        reads_are_those_of(&engine, &model);
        let mut rest = &more[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + dice.below(12) as usize));
            let expected = model.apply_all(now);
            let mut found = Vec::new();
            std::thread::scope(|scope| {
                // The synchronous call waits, and this thread takes the steps.
                let call = scope.spawn(|| {
                    with_entries(now, |entries| {
                        engine.apply_entries_sync(entries, LONG, &mut found)
                    })
                });
                while !call.is_finished() {
                    engine.run_until_idle();
                }
                call.join().unwrap().unwrap();
            });
            assert_eq!(found, expected, "seed {seed}");
            if dice.below(3) == 0 {
                engine.step_fill();
            }
            if dice.below(4) == 0 {
                reads_are_those_of(&engine, &model);
            }
            rest = later;
        }
        reads_are_those_of(&engine, &model);
        if seed % 2 == 0 {
            while engine.step_fill() {}
            assert_eq!(engine.stats().machine.unfilled_chunks, 0);
        }
        compare(engine.machine(), &model).unwrap();
        assert_eq!(engine.stats().machine.unfilled_chunks, 0, "counting fills");
        assert_eq!(engine.stats().machine.keys as usize, model.state.len(), "no tombstone is left");
        if seed % 5 == 0 {
            engine.snapshots().compact().unwrap();
        }
        compare(engine.machine(), &model).unwrap();
        engine.into_manager().close(LONG).unwrap();
        let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
        compare(&machine, &model).unwrap();
    }
}

#[test]
fn an_engine_with_threads_fills_by_itself() {
    let (base, tail) = (log(3, 1, 1500), log(4, 1501, 100));
    let scratch = compacted(&base, &tail);
    let manager = crate::common::manage(
        PersistentStateMachine::open(config(&scratch)).unwrap(),
        apply_config(2),
    );
    assert!(crate::common::eventually(LONG, || manager.stats().machine.unfilled_chunks == 0));
    let mut model = Model::after(&base);
    model.apply_all(&tail);
    compare(manager.machine(), &model).unwrap();
}

#[test]
fn a_view_of_an_engine_that_is_not_filled_has_everything() {
    let base = log(5, 1, 1000);
    let scratch = compacted(&base, &[]);
    let engine = engine(&scratch, 2);
    assert!(engine.stats().machine.unfilled_chunks > 0);
    let view = engine.snapshots().view().unwrap();
    let model = Model::after(&base);
    assert_eq!(view.len(), model.state.len());
    for entry in &view {
        let (key, value) = entry.unwrap();
        assert_eq!(model.state.get(&*key).unwrap()[..], value[..]);
    }
}

/// Proves DUR-19.
#[test]
fn a_damaged_chunk_is_found_at_its_first_use_and_read_from_by_nobody() {
    let base = log(6, 1, 1000);
    let scratch = compacted(&base, &[]);
    let name = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path());
    let path =
        name.into_iter().find(|path| path.extension().is_some_and(|end| end == "snap")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // This is in the first chunk, after the header.
    bytes[4096 + 100] ^= 2;
    std::fs::write(&path, bytes).unwrap();
    let engine = engine(&scratch, 1);
    let damaged = engine.machine().get(&key(0));
    let Err(ReadError::Snapshot(error)) = damaged else { panic!("{damaged:?}") };
    assert!(matches!(&*error, SnapshotError::Corrupt { .. }), "{error}");
    let last = Model::after(&base).state;
    let (last, value) = last.iter().next_back().unwrap();
    assert_eq!(engine.machine().get(last).unwrap().as_deref(), Some(&value[..]), "another chunk");
    let files = || crate::common::dir_bytes(&scratch.path()).into_iter().map(|(name, _)| name);
    let before: Vec<_> = files().collect();
    assert!(
        engine.snapshots().view().is_err()
            && engine.snapshots().write().is_err()
            && engine.snapshots().compact().is_err()
    );
    assert!(files().eq(before) && engine.poison().is_none(), "a snapshot of what is left");
    assert!(!engine.step_fill());
    assert!(engine.poison().unwrap().to_string().contains("corrupt"));
    assert!(engine.machine().count().is_err() && engine.machine().get(last).is_err());
    drop(engine);
    assert!(!matches!(
        PersistentStateMachine::open(config(&scratch)),
        Err(OpenError::Locked { .. })
    ));
}

#[test]
fn damage_to_the_index_of_the_only_snapshot_is_refused_by_its_name() {
    let scratch = compacted(&log(9, 1, 1000), &[]);
    let names = crate::common::dir_bytes(&scratch.path()).into_iter().map(|(name, _)| name);
    let name = names.into_iter().find(|name| name.ends_with(".snap")).unwrap();
    let path = scratch.path().join(&name);
    let good = std::fs::read(&path).unwrap();
    // Damage header, index, and footer.
    for at in [40, good.len() - 64 - 40, good.len() - 20] {
        let mut bytes = good.clone();
        bytes[at] ^= 2;
        std::fs::write(&path, bytes).unwrap();
        match crate::common::refused(config(&scratch)) {
            OpenError::Corrupt(place) => assert_eq!(place.file, name, "byte {at}"),
            error => panic!("byte {at}: {error}"),
        }
    }
    std::fs::write(&path, good).unwrap();
    engine(&scratch, 1);
}

/// The store fills from the same snapshot that keys are pointed to, so its pieces have two numbers
/// each.
#[test]
fn the_log_may_be_purged_while_the_store_fills_and_every_key_still_reads() {
    let (base, tail) = (log(7, 1, 1500), log(8, 1501, 60));
    let directory = compacted(&base, &tail);
    let mut model = Model::after(&base);
    model.apply_all(&tail);
    for steps_before in 0..20 {
        let scratch = Scratch::new();
        copy_dir(&directory.path(), &scratch.path());
        let engine = engine(&scratch, 1);
        std::thread::scope(|scope| {
            let filled = (0..steps_before).filter(|_| engine.step_fill()).count();
            assert_eq!(filled == 0, steps_before == 0);
            let filling =
                (steps_before % 2 == 0).then(|| scope.spawn(|| while engine.step_fill() {}));
            engine.log().unwrap().purge(1500).unwrap();
            filling.into_iter().for_each(|filling| filling.join().unwrap());
        });
        assert_eq!(engine.stats().machine.unfilled_chunks, 0, "what fills later has old numbers");
        reads_are_those_of(&engine, &model);
        engine.log().unwrap().purge(1500).unwrap();
        reads_are_those_of(&engine, &model);
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_for_a_moment_is_not_taken_for_a_damaged_one() {
    let disk = SimDisk::new(1);
    let open = || {
        let config = PersistentConfig::new("simulated").segment_bytes(16 << 10).compaction(None);
        PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config)
    };
    let engine = Stepped::new(open().unwrap(), apply_config(1)).unwrap();
    for first in [1, 101] {
        submit(&engine, &log(1, first, 100));
        engine.snapshots().write().unwrap();
    }
    drop(engine);
    let (mut refused, mut damaged) = (0, 0);
    // A full disk passes, like missing memory or descriptors. The other fault recurs at every read.
    for fault in [FaultError::Enospc, FaultError::Eio] {
        // Clear faults that did not strike, here and below.
        disk.reset_operations();
        drop(open().unwrap());
        for read in 0..disk.reads() {
            disk.reset_operations();
            disk.fail_read_at(read, Fault::Error(fault));
            match open() {
                Err(OpenError::Io { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok(machine) => {
                    assert_eq!(machine.recovery().last.unwrap().index, 200);
                    let named = &machine.recovery().damaged_snapshots;
                    assert!(named.is_empty() || fault == FaultError::Eio, "read {read}: {named:?}");
                    damaged += named.len();
                }
            }
        }
    }
    assert!(refused > 0 && damaged > 0, "{refused} {damaged}");
}
