//! Tests of resubmission: the same entry is known, another entry is a conflict, and a removed entry
//! cannot be compared.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::machines::{KeyValueReads, memory};
use crate::common::{
    LONG, Persistent, Scratch, StopOnDrop, apply_config, eventually, manage, open,
};
use sprag::error::{ApplyError, ProposeError, SubmitError};
use sprag::{
    ApplyManager, Command, Contiguity, Entry, LogId, MemoryConfig, MemoryStateMachine, Payload,
    Reply, RetryPolicy, Snapshot, Stage, StateMachine, Submitted,
};

fn counts(submitted: Submitted) -> (u64, u64, u64) {
    (submitted.new, submitted.known_same, submitted.unverifiable)
}

fn put(index: u64, value: &[u8]) -> Entry<'_> {
    Entry::put(index, 1, b"key", value)
}

fn is_conflict(error: &SubmitError, index: u64) -> bool {
    matches!(error, SubmitError::Conflict { index: at, known, got }
        if *at == index && known == got && got.index == index)
}

#[track_caller]
fn conflicts<T: std::fmt::Debug>(outcome: Result<T, SubmitError>, index: u64) {
    let error = outcome.unwrap_err();
    assert!(is_conflict(&error, index), "{error:?}");
    assert!(error.to_string().contains("another payload"), "{error}");
}

#[track_caller]
fn refuses<T: std::fmt::Debug>(outcome: Result<T, ApplyError>, index: u64) {
    match outcome.unwrap_err() {
        ApplyError::Submit { source, submitted_through: None } => {
            conflicts(Err::<(), _>(source), index)
        }
        error => panic!("{error:?}"),
    }
}

/// Checks that each call refuses `entries`, whose entry `index` differs.
fn every_way_refuses<M: StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[Entry<'_>],
    index: u64,
) {
    let before = manager.stats().submitted;
    conflicts(manager.apply_entries(entries), index);
    refuses(manager.apply_entries_sync(entries, LONG, &mut Vec::new()), index);
    refuses(manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()), index);
    refuses(manager.apply_with_retry(entries, RetryPolicy::new(), &mut Vec::new()), index);
    if let [entry] = entries {
        refuses(manager.apply(entry, LONG), index);
    }
    assert_eq!(manager.stats().submitted, before, "nothing of it was taken");
}

/// Payloads that differ as little as possible.
fn others() -> Vec<Payload<'static>> {
    let command = Payload::Command;
    vec![
        command(Command::Put { key: b"key", value: b"Value" }),
        command(Command::Put { key: b"kex", value: b"value" }),
        command(Command::Put { key: b"keyv", value: b"alue" }),
        command(Command::Put { key: b"key", value: b"" }),
        command(Command::Delete { key: b"key" }),
        command(Command::CompareAndSet { key: b"key", expected: None, new: Some(b"value") }),
        command(Command::Batch { commands: &[], note: None }),
        Payload::Noop,
        Payload::Membership(b"value"),
        Payload::Opaque(b"value"),
    ]
}

fn another_payload_is_refused<M: StateMachine + KeyValueReads>(manager: &ApplyManager<M>) {
    let taken = manager.apply_entries(&[put(1, b"value"), put(2, b"value")]).unwrap();
    assert_eq!(counts(taken), (2, 0, 0));
    // The entry is in progress, acknowledged, and followed by entries in the same frame and in
    // later ones.
    for round in 0..4 {
        for payload in others() {
            let other = Entry::new(LogId::new(2, 1), payload);
            every_way_refuses(manager, &[other], 2);
            every_way_refuses(manager, &[put(1, b"value"), other], 2);
            every_way_refuses(manager, &[put(1, b"value"), other, put(3, b"value")], 2);
        }
        let again = manager.apply_entries(&[put(1, b"value"), put(2, b"value")]).unwrap();
        assert_eq!(counts(again), (0, 2, 0), "round {round}");
        let replies = manager.apply(&put(2, b"value"), LONG).unwrap();
        assert!(round == 0 || replies == Reply::AlreadyApplied);
        manager.flush_pending(LONG).unwrap();
        if round == 2 {
            let more: Vec<_> = (3..=150).map(|index| put(index, b"more")).collect();
            assert_eq!(counts(manager.apply_entries(&more).unwrap()), (148, 0, 0));
        }
    }
    assert_eq!(manager.machine().value_of(b"key").unwrap().as_deref(), Some(&b"more"[..]));
}

/// Proves ORD-5.
#[test]
fn another_payload_under_a_known_log_id_is_a_conflict_on_every_way_in() {
    another_payload_is_refused(&manage(memory(), apply_config(2)));
    let scratch = Scratch::new();
    another_payload_is_refused(&scratch.open());
}

/// Proves ORD-5.
#[test]
fn what_is_submitted_again_is_compared_wherever_its_bytes_are() {
    let scratch = Scratch::new();
    let entries: u64 = 2000;
    let value = |index: u64| [u8::try_from(index % 251).unwrap(); 100];
    let check = |manager: &Persistent| {
        let again: Vec<_> = (1..=entries).map(|index| (index, value(index))).collect();
        let again: Vec<_> = again.iter().map(|(index, value)| put(*index, value)).collect();
        assert_eq!(counts(manager.apply_entries(&again).unwrap()), (0, entries, 0));
        for at in [0, 1, 127, 128, 700, 1998, 1999] {
            let mut other = again.clone();
            other[at] = put(at as u64 + 1, b"other");
            conflicts(manager.apply_entries(&other), at as u64 + 1);
            conflicts(manager.apply_entries(&other[at..=at]), at as u64 + 1);
        }
    };
    let manager = scratch.open();
    for index in 1..=entries {
        let taken = manager.apply_entries(&[put(index, &value(index))]);
        assert_eq!(counts(taken.unwrap()), (1, 0, 0));
    }
    // The entries are in open and closed frames of images; then in files.
    check(&manager);
    manager.flush_pending(LONG).unwrap();
    check(&manager);
    manager.close(LONG).unwrap();
    check(&scratch.open());
}

/// Proves ORD-5.
#[test]
fn what_only_a_snapshot_covers_is_not_compared_and_no_error() {
    let scratch = Scratch::new();
    let manager = open(scratch.config().segment_bytes(64 << 10));
    let value = [7; 1000];
    let entries: Vec<_> = (1..=400).map(|index| put(index, &value)).collect();
    let taken = manager.apply_batch(entries.iter().copied(), LONG, |_, _| ());
    assert_eq!(taken.unwrap(), 400);
    manager.snapshots().compact().unwrap();
    let purged = manager.log().unwrap().state().unwrap().purged.unwrap();
    assert!(purged > 100, "{purged}");
    let check = |manager: &Persistent| {
        let again = manager.apply_entries(&entries).unwrap();
        assert_eq!(counts(again), (0, 400 - purged, purged));
        let other = manager.apply_entries(&[put(1, b"other")]).unwrap();
        assert_eq!(counts(other), (0, 0, 1));
        if purged < 400 {
            conflicts(manager.apply_entries(&[put(400, b"other")]), 400);
        }
    };
    check(&manager);
    manager.close(LONG).unwrap();
    let manager = open(scratch.config());
    check(&manager);
    let taken = manager.apply_entries(&[put(400, &value), put(401, &value)]).unwrap();
    assert_eq!(taken.new, 1);
}

#[test]
fn a_machine_without_a_log_compares_with_what_its_frames_still_hold() {
    let manager = manage(memory(), apply_config(2));
    let value = [7; 4000];
    let last = 6000;
    for index in 1..=last {
        manager.apply(&put(index, &value), LONG).unwrap();
    }
    // 24 MB of entries passed through 16 MiB of frames.
    let first = manager.apply_entries(&[put(1, b"other")]).unwrap();
    assert_eq!(counts(first), (0, 0, 1));
    conflicts(manager.apply_entries(&[put(last, b"other")]), last);
    let all: Vec<_> = (1..=last).map(|index| put(index, &value)).collect();
    let (new, same, gone) = counts(manager.apply_entries(&all).unwrap());
    assert_eq!((new, same + gone), (0, last));
    assert!(same > 200 && gone > 1000, "{same} {gone}");

    // The entries that a machine begins with are in no log.
    let file = Scratch::new();
    manager.snapshots().write_to(&mut std::fs::File::create(file.path()).unwrap()).unwrap();
    let donor = Snapshot::open(file.path()).unwrap();
    let other = manage(MemoryStateMachine::new(MemoryConfig::new()).unwrap(), apply_config(1));
    other.snapshots().restore(&donor, LONG).unwrap();
    assert_eq!(counts(other.apply_entries(&[put(9, b"other")]).unwrap()), (0, 0, 1));
    assert_eq!(counts(other.apply_entries(&[put(last + 1, b"next")]).unwrap()), (1, 0, 0));
    conflicts(other.apply_entries(&[put(last + 1, b"other")]), last + 1);
}

#[test]
fn appended_entries_are_compared_also_after_others_took_their_place() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    let entry = |index, term, value: &'static [u8]| Entry::put(index, term, b"key", value);
    let appended = [entry(1, 1, b"a"), entry(2, 1, b"b"), entry(3, 1, b"c")];
    assert_eq!(counts(manager.consensus().unwrap().append(&appended).unwrap()), (3, 0, 0));
    assert_eq!(counts(manager.consensus().unwrap().append(&appended).unwrap()), (0, 3, 0));
    conflicts(manager.consensus().unwrap().append(&[entry(3, 1, b"x")]), 3);
    manager.consensus().unwrap().truncate_after(Some(1)).unwrap();
    // The same log ids may return with other payloads once the entries are removed.
    let taken = manager.consensus().unwrap().append(&[
        entry(1, 1, b"a"),
        entry(2, 1, b"x"),
        entry(3, 2, b"c"),
    ]);
    assert_eq!(counts(taken.unwrap()), (2, 1, 0));
    conflicts(manager.consensus().unwrap().append(&[entry(2, 1, b"b")]), 2);
    manager.log().unwrap().sync(LONG).unwrap();
    conflicts(manager.consensus().unwrap().append(&[entry(2, 1, b"b")]), 2);
    manager.consensus().unwrap().commit(3).unwrap();
    manager.wait_for_apply(3, LONG).unwrap();
    conflicts(manager.consensus().unwrap().append(&[entry(2, 1, b"b")]), 2);
    let again = [entry(1, 1, b"a"), entry(2, 1, b"x"), entry(3, 2, b"c"), entry(4, 2, b"d")];
    assert_eq!(counts(manager.consensus().unwrap().append(&again).unwrap()), (1, 3, 0));
    // Another log id is detected as before.
    match manager.consensus().unwrap().append(&[entry(3, 1, b"c")]).unwrap_err() {
        SubmitError::Conflict { index: 3, known, got } => {
            assert_eq!((known, got), (LogId::new(3, 2), LogId::new(3, 1)));
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn a_comparison_counts_only_if_nothing_was_truncated_meanwhile() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    let kept = 300_u64;
    let entries: Vec<_> = (1..=kept).map(|index| put(index, b"kept")).collect();
    let _ = manager.consensus().unwrap().append(&entries).unwrap();
    let done = AtomicBool::new(false);
    // This payload is in no other call.
    let unique = AtomicU64::new(0);
    let next = || unique.fetch_add(1, Ordering::SeqCst).to_le_bytes();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnDrop(&done);
            for _ in 0..500 {
                manager.consensus().unwrap().truncate_after(Some(kept)).unwrap();
                let value = next();
                match manager.consensus().unwrap().append(&[put(kept + 1, &value)]) {
                    Ok(taken) => assert_eq!(counts(taken), (1, 0, 0)),
                    Err(error) => assert!(is_conflict(&error, kept + 1), "{error:?}"),
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let value = next();
                let mut all = entries.clone();
                all.push(put(kept + 1, &value));
                match manager.consensus().unwrap().append(&all) {
                    Ok(taken) => assert_eq!(counts(taken), (1, kept, 0)),
                    Err(error) => assert!(is_conflict(&error, kept + 1), "{error:?}"),
                }
            }
        });
        while !done.load(Ordering::SeqCst) {
            assert_eq!(
                counts(manager.consensus().unwrap().append(&entries).unwrap()),
                (0, kept, 0)
            );
        }
    });
}

#[test]
fn a_compaction_meanwhile_is_no_damage_and_no_conflict() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let value = [7; 500];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnDrop(&done);
            for index in 1..=3000 {
                let entry = put(index, &value);
                assert!(manager.apply_batch([entry], LONG, |_, _| ()).is_ok());
                if index % 300 == 0 {
                    manager.snapshots().compact().unwrap();
                }
            }
        });
        while !done.load(Ordering::SeqCst) {
            let last = manager.stats().submitted.unwrap_or(0);
            let again: Vec<_> = (1..=last).map(|index| put(index, &value)).collect();
            let (new, same, gone) = counts(manager.apply_entries(&again).unwrap());
            assert_eq!((new, same + gone), (0, last));
        }
    });
    assert!(manager.log().unwrap().state().unwrap().purged.is_some());
}

#[test]
fn the_first_and_the_last_index_there_can_be_are_compared_and_proposed_after() {
    let manager = manage(memory(), apply_config(1));
    let zero = manager.apply_entries(&[put(0, b"zero"), put(1, b"one")]).unwrap();
    assert_eq!(counts(zero), (2, 0, 0));
    let again = manager.apply_entries(&[put(0, b"zero"), put(1, b"one")]).unwrap();
    assert_eq!(counts(again), (0, 2, 0));
    conflicts(manager.apply_entries(&[put(0, b"other")]), 0);
    assert_eq!(manager.next_index(), 2);

    let scratch = Scratch::new();
    let manager = open(scratch.by_commit().contiguity(Contiguity::Monotone));
    let last = u64::MAX - 1;
    assert_eq!(
        counts(manager.consensus().unwrap().append(&[put(7, b"a"), put(last, b"b")]).unwrap()),
        (2, 0, 0)
    );
    for _ in 0..2 {
        let again = manager.consensus().unwrap().append(&[put(7, b"a"), put(last, b"b")]).unwrap();
        assert_eq!(counts(again), (0, 2, 0));
        conflicts(manager.consensus().unwrap().append(&[put(last, b"other")]), last);
        manager.log().unwrap().sync(LONG).unwrap();
    }
    manager.consensus().unwrap().apply_committed(7..=7, LONG, &mut Vec::new()).unwrap();
    manager.consensus().unwrap().apply_only(&[put(last, b"b")], LONG, &mut Vec::new()).unwrap();
    let file = Scratch::new();
    manager.snapshots().write_to(&mut std::fs::File::create(file.path()).unwrap()).unwrap();
    let other = manage(memory(), apply_config(1));
    other.snapshots().restore(&Snapshot::open(file.path()).unwrap(), LONG).unwrap();
    other.wait_for_log_id(LogId::new(last, 1), Stage::Acknowledged, LONG).unwrap();
    assert_eq!(other.next_index(), u64::MAX);
    let refused = other.propose(Payload::Noop, LONG).unwrap_err();
    let exhausted = matches!(refused, ProposeError::Refused(SubmitError::IndexExhausted));
    assert!(exhausted, "{refused:?}");
}

#[test]
fn an_entry_that_does_not_read_back_is_damage_and_neither_the_same_nor_another() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let value = [7; 1000];
    let entries: Vec<_> = (1..=400).map(|index| put(index, &value)).collect();
    manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap();
    manager.flush_pending(LONG).unwrap();
    let mut segments: Vec<_> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    segments.sort();
    assert!(segments.len() > 3);
    let first = &segments[0];
    let flip = || {
        let file = std::fs::File::options().read(true).write(true).open(first).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 5000).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], 5000).unwrap();
    };
    flip();
    // A full segment is read from its file some time after it was filled.
    let mut outcome = manager.apply_entries(&entries);
    let damaged = || {
        outcome = manager.apply_entries(&entries);
        outcome.is_err()
    };
    assert!(eventually(LONG, damaged), "the first segment is in its file");
    match outcome.unwrap_err() {
        SubmitError::Corrupt(place) => {
            assert_eq!(place.file, first.file_name().unwrap().to_str().unwrap());
        }
        error => panic!("{error:?}"),
    }
    // Entries elsewhere are still compared.
    assert_eq!(counts(manager.apply_entries(&entries[399..]).unwrap()), (0, 1, 0));
    flip();
    assert_eq!(counts(manager.apply_entries(&entries).unwrap()), (0, 400, 0));
}
