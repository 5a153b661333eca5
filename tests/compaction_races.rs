//! Tests of compactions and views in a row, beside reader threads and a writer thread.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::generate::Dice;
use crate::common::{LONG, Scratch, StopOnDrop, apply_config, eventually, manage};
use sprag::error::{ApplyError, SubmitError};
use sprag::{Entry, PersistentStateMachine};

const KEYS: u64 = 48;
/// Number of keys whose every fourth version is a deletion.
const DELETED_KEYS: u64 = 8;

fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

/// A value with version and key, sometimes inline and sometimes not; the first bytes determine the
/// rest.
fn value(number: u64, version: u64) -> Vec<u8> {
    let mut value = version.to_le_bytes().to_vec();
    value.resize(16 + (version * 37 + number) as usize % 700, (version ^ number) as u8);
    value
}

/// The version in a value.
fn version(number: u64, bytes: &[u8]) -> u64 {
    let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == value(number, version), "bytes of key {number} that no command wrote");
    version
}

fn is_deletion(number: u64, version: u64) -> bool {
    number < DELETED_KEYS && version % 4 == 3
}

/// Overwrites and deletes flat out until it is told to stop. `index` is the last index before, and
/// then the last one written.
fn write(
    manager: &sprag::ApplyManager<PersistentStateMachine>,
    written: &[AtomicU64],
    stop: &AtomicBool,
    mut index: u64,
) -> u64 {
    let mut dice = Dice::new(index);
    while !stop.load(Ordering::Acquire) {
        let mut batch = Vec::new();
        for _ in 0..1 + dice.below(24) {
            let number = dice.below(KEYS);
            let version = written[number as usize].fetch_add(1, Ordering::Relaxed) + 1;
            batch.push((
                key(number),
                (!is_deletion(number, version)).then(|| value(number, version)),
            ));
        }
        let entries: Vec<Entry<'_>> = (index + 1..)
            .zip(&batch)
            .map(|(index, (key, value))| match value {
                Some(value) => Entry::put(index, 1, key, value),
                None => Entry::delete(index, 1, key),
            })
            .collect();
        // Some of the puts wait, so that one worker's engine applies them inline.
        let waits = dice.below(6) == 0;
        loop {
            let submitted = match waits {
                true => manager.apply_entries_sync(&entries, LONG, &mut Vec::new()),
                false => manager
                    .apply_entries(&entries)
                    .map(|_taken| ())
                    .map_err(|source| ApplyError::Submit { source, submitted_through: None }),
            };
            match submitted {
                Ok(()) => break,
                Err(ApplyError::Submit { source: SubmitError::Full { .. }, .. }) => {
                    thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
        index += batch.len() as u64;
    }
    index
}

/// Number of gets that every reader makes at least.
const GETS_MIN: u64 = 100;

/// Gets at random, and checks that no key goes back from its version in `seen`.
fn read(
    manager: &sprag::ApplyManager<PersistentStateMachine>,
    seed: u64,
    stop: &AtomicBool,
    mut seen: Vec<u64>,
) {
    let (mut dice, mut gets) = (Dice::new(seed), 0);
    let mut held = Vec::new();
    while gets < GETS_MIN || !stop.load(Ordering::Acquire) {
        let number = dice.below(KEYS);
        let before = seen[number as usize];
        match manager.machine().get(&key(number)).unwrap() {
            Some(value) => {
                let now = version(number, &value);
                assert!(now >= before, "key {number} went back from {before} to {now}");
                seen[number as usize] = now;
                // Keep some values until long after their segment is removed.
                if dice.below(64) == 0 && held.len() < 200 {
                    held.push((number, now, value));
                }
            }
            None => assert!(
                before == 0 || number < DELETED_KEYS,
                "key {number} is missing after version {before}"
            ),
        }
        gets += 1;
    }
    for (number, now, value) in held {
        assert_eq!(version(number, &value), now);
    }
}

/// Waits until `count` more entries are applied, or the writer has stopped.
fn wait_for_more(
    manager: &sprag::ApplyManager<PersistentStateMachine>,
    stop: &AtomicBool,
    entries: u64,
) {
    let until = manager.stats().applied.unwrap_or(0) + entries;
    let reached = || manager.stats().applied >= Some(until) || stop.load(Ordering::Acquire);
    assert!(eventually(LONG, reached), "no command is applied");
}

/// Takes views and compacts. Each view is of one index, so its versions go back for no key, and
/// compactions cut the log.
fn compact(manager: &sprag::ApplyManager<PersistentStateMachine>, stop: &AtomicBool, rounds: u64) {
    let mut seen = vec![0; KEYS as usize];
    let mut views = Vec::new();
    let mut segments = 0;
    for round in 0..rounds {
        // This is about half a segment.
        wait_for_more(manager, stop, 100);
        let view = manager.snapshots().view().unwrap();
        for number in 0..KEYS {
            if let Some(value) = view.get(&key(number)).unwrap() {
                let now = version(number, &value);
                assert!(now >= seen[number as usize]);
                seen[number as usize] = now;
            } else {
                assert!(seen[number as usize] == 0 || number < DELETED_KEYS);
            }
        }
        // Keep a few views over the next compactions.
        views.push((seen.clone(), view));
        if views.len() > 3 {
            let (versions, view) = views.remove(0);
            for (number, known) in (0..KEYS).zip(versions) {
                if let Some(value) = view.get(&key(number)).unwrap() {
                    assert_eq!(version(number, &value), known, "a view changed");
                }
            }
        }
        if round % 3 == 2 {
            manager.snapshots().write().unwrap();
        }
        segments += manager.snapshots().compact().unwrap().segments;
    }
    assert!(segments > 3, "{segments} segments were given up");
}

/// Proves ORD-8.
#[test]
fn no_read_sees_a_key_missing_or_going_back_while_the_log_is_compacted() {
    for workers in 1..=4 {
        let scratch = Scratch::new();
        let machine = PersistentStateMachine::open(scratch.config()).unwrap();
        let manager = manage(machine, apply_config(workers));
        let written: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            // A failing thread stops the others, so that its failure shows.
            let writer = scope.spawn(|| {
                let _stop = StopOnDrop(&stop);
                write(&manager, &written, &stop, 0)
            });
            let readers: Vec<_> = (1..=3)
                .map(|seed| {
                    let (manager, stop) = (&manager, &stop);
                    scope.spawn(move || {
                        let _stop = StopOnDrop(stop);
                        read(manager, seed, stop, vec![0; KEYS as usize])
                    })
                })
                .collect();
            {
                let _stop = StopOnDrop(&stop);
                compact(&manager, &stop, 25);
            }
            writer.join().unwrap();
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        manager.close(LONG).unwrap();
        check_all(&PersistentStateMachine::open(scratch.config()).unwrap(), &written);
    }
}

/// Checks that every key has the value that was written last.
fn check_all(machine: &PersistentStateMachine, written: &[AtomicU64]) {
    for (number, written) in (0..KEYS).zip(written) {
        let last = written.load(Ordering::Relaxed);
        let found = machine.get(&key(number)).unwrap();
        let known = (last > 0 && !is_deletion(number, last)).then_some(last);
        assert_eq!(found.map(|value| version(number, &value)), known, "key {number}");
    }
}

/// Proves ORD-8.
#[test]
fn no_read_sees_a_key_missing_or_going_back_while_the_store_fills() {
    let scratch = Scratch::new();
    let written: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let mut index = 0;
    for round in 0..24 {
        let workers = 1 + round % 4;
        // A chunk has a key or two.
        let config = scratch.config().snapshot_chunk_bytes(600);
        let machine = PersistentStateMachine::open(config).unwrap();
        if round % 3 == 0 {
            check_all(&machine, &written);
        }
        let manager = manage(machine, apply_config(workers));
        let known: Vec<u64> = written.iter().map(|last| last.load(Ordering::Relaxed)).collect();
        let (stop, first) = (AtomicBool::new(false), index);
        index = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let _stop = StopOnDrop(&stop);
                write(&manager, &written, &stop, first)
            });
            for seed in 1..=2 {
                let (manager, stop, known) = (&manager, &stop, known.clone());
                scope.spawn(move || {
                    let _stop = StopOnDrop(stop);
                    read(manager, seed, stop, known)
                });
            }
            {
                let _stop = StopOnDrop(&stop);
                wait_for_more(&manager, &stop, 400);
                manager.snapshots().compact().unwrap();
            }
            writer.join().unwrap()
        });
        manager.close(LONG).unwrap();
    }
    assert!(index > 4000);
}
