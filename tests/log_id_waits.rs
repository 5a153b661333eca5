//! Tests of waiting for a log id: one entry satisfies the wait, and a forgotten entry is reported
//! as unknown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::thread;
use std::time::Duration;

use crate::common::machines::memory;
use crate::common::{
    LONG, Persistent, SHORT, Scratch, Watch, apply_config, block_on, manage, open,
};
use sprag::error::WaitError;
use sprag::{ApplyManager, Contiguity, Entry, LogId, Snapshot, Stage, StateMachine};

fn put(index: u64, term: u64) -> Entry<'static> {
    Entry::put(index, term, b"key", b"value")
}

fn append(manager: &Persistent, entries: &[Entry<'_>]) {
    assert_eq!(manager.consensus().unwrap().append(entries).unwrap().new, entries.len() as u64);
}

/// Waits by the call, for every stage, and by the future.
fn outcomes<M: StateMachine>(
    manager: &ApplyManager<M>,
    log_id: LogId,
) -> Vec<Result<(), WaitError>> {
    let wait = |stage| manager.wait_for_log_id(log_id, stage, LONG);
    let future = block_on(manager.acknowledged_log_id(log_id));
    vec![wait(Stage::Applied), wait(Stage::Acknowledged), future]
}

#[track_caller]
fn is_done<M: StateMachine>(manager: &ApplyManager<M>, index: u64, term: u64) {
    for outcome in outcomes(manager, LogId::new(index, term)) {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

#[track_caller]
fn is_replaced<M: StateMachine>(
    manager: &ApplyManager<M>,
    index: u64,
    term: u64,
    by: Option<LogId>,
) {
    for outcome in outcomes(manager, LogId::new(index, term)) {
        match outcome.unwrap_err() {
            WaitError::Replaced { index: at, found } => assert_eq!((at, found), (index, by)),
            error => panic!("{error:?}"),
        }
    }
}

#[track_caller]
fn is_forgotten<M: StateMachine>(manager: &ApplyManager<M>, index: u64, term: u64) {
    for outcome in outcomes(manager, LogId::new(index, term)) {
        let error = outcome.unwrap_err();
        let forgotten = matches!(error, WaitError::NoLongerKnown { index: at } if at == index);
        assert!(forgotten, "{error:?}");
    }
}

/// Proves ORD-16.
#[test]
fn the_entry_that_replaced_another_satisfies_no_wait_for_that() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &[put(1, 1), put(2, 1), put(3, 1)]);
    let early = manager.acknowledged_log_id(LogId::new(2, 1));
    manager.consensus().unwrap().truncate_after(Some(1)).unwrap();
    append(&manager, &[put(2, 2), put(3, 2)]);
    manager.consensus().unwrap().commit(3).unwrap();
    manager.wait_for_apply(3, LONG).unwrap();
    let by = |index| Some(LogId::new(index, 2));
    is_done(&manager, 1, 1);
    is_replaced(&manager, 1, 2, Some(LogId::new(1, 1)));
    for index in [2, 3] {
        is_replaced(&manager, index, 1, by(index));
        is_replaced(&manager, index, 3, by(index));
        is_done(&manager, index, 2);
    }
    // The future was made before the truncation, and is first polled after it.
    let late = block_on(early).unwrap_err();
    assert!(matches!(late, WaitError::Replaced { found: Some(found), .. } if found.term == 2));
    // A wait for the index alone does not notice this.
    block_on(manager.acknowledged(2)).unwrap();
    manager.close(LONG).unwrap();
    let manager = open(scratch.by_commit());
    is_replaced(&manager, 2, 1, by(2));
    is_done(&manager, 2, 2);
}

/// Proves ORD-16.
#[test]
fn a_wait_under_way_is_told_of_a_truncation_and_waits_on_for_what_has_not_come() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &[put(1, 1), put(2, 1)]);
    thread::scope(|scope| {
        let wait = |log_id, watch: &Watch| {
            let (watch, manager) = (watch.clone(), &manager);
            scope.spawn(move || {
                watch.here();
                manager.wait_for_log_id(log_id, Stage::Acknowledged, LONG)
            })
        };
        let watches = [(); 4].map(|()| Watch::default());
        let here = wait(LogId::new(2, 1), &watches[0]);
        let other = wait(LogId::new(3, 3), &watches[1]);
        let comes = wait(LogId::new(3, 4), &watches[2]);
        let far = wait(LogId::new(4, 4), &watches[3]);
        watches.iter().for_each(Watch::until_asleep);
        append(&manager, &[put(3, 2)]);
        manager.consensus().unwrap().truncate_after(Some(1)).unwrap();
        let truncated = here.join().unwrap();
        assert!(matches!(truncated, Err(WaitError::Truncated { index: 2 })), "{truncated:?}");
        append(&manager, &[put(2, 4), put(3, 4)]);
        manager.consensus().unwrap().commit(3).unwrap();
        comes.join().unwrap().unwrap();
        let replaced = other.join().unwrap();
        let by = matches!(replaced, Err(WaitError::Replaced { found: Some(found), .. }) if found == LogId::new(3, 4));
        assert!(by, "{replaced:?}");
        append(&manager, &[put(4, 4)]);
        manager.consensus().unwrap().commit(4).unwrap();
        far.join().unwrap().unwrap();
    });
    let ahead = manager.wait_for_log_id(LogId::new(9, 1), Stage::Durable, SHORT);
    assert!(matches!(ahead, Err(WaitError::Timeout { index: 9, .. })), "{ahead:?}");
    let never = manager.wait_for_log_id(LogId::new(u64::MAX, 1), Stage::Applied, SHORT);
    assert!(matches!(never, Err(WaitError::Timeout { .. })), "{never:?}");
}

/// Proves ORD-16.
#[test]
fn what_is_below_the_logs_memory_is_no_longer_known_and_never_ok() {
    let scratch = Scratch::new();
    let manager = open(scratch.config());
    let value = [7; 2000];
    for index in 1..=200 {
        manager.apply(&Entry::put(index, 1 + index / 50, b"key", &value), LONG).unwrap();
    }
    is_done(&manager, 1, 1);
    manager.snapshots().compact().unwrap();
    let check = |manager: &Persistent| {
        let purged = manager.log().unwrap().state().unwrap().purged.unwrap();
        assert!(purged > 50, "{purged}");
        for index in [0, 1, 49, purged - 1] {
            is_forgotten(manager, index, 1 + index / 50);
            // Another term at that index is no longer distinguished.
            is_forgotten(manager, index, 99);
        }
        // The entry before the log's beginning is known, and so are the entries in it.
        for index in [purged, purged + 1, 200].into_iter().filter(|index| *index <= 200) {
            let term = 1 + index / 50;
            is_done(manager, index, term);
            is_replaced(manager, index, 99, Some(LogId::new(index, term)));
        }
    };
    check(&manager);
    manager.close(LONG).unwrap();
    check(&open(scratch.config()));
}

/// Proves ORD-16.
#[test]
fn of_an_installed_snapshot_only_the_last_entry_is_known() {
    let donor = manage(memory(), apply_config(2));
    for index in 1..=30 {
        donor.apply(&put(index, 3), LONG).unwrap();
    }
    // A machine without a log remembers all log ids since it was made.
    is_done(&donor, 1, 3);
    is_replaced(&donor, 1, 2, Some(LogId::new(1, 3)));
    let file = Scratch::new();
    donor.snapshots().write_to(&mut std::fs::File::create(file.path()).unwrap()).unwrap();
    let snapshot = Snapshot::open(file.path()).unwrap();

    let other = manage(memory(), apply_config(2));
    other.apply(&put(1, 1), LONG).unwrap();
    other.snapshots().restore(&snapshot, LONG).unwrap();
    is_forgotten(&other, 1, 1);
    is_forgotten(&other, 29, 3);
    is_done(&other, 30, 3);
    is_replaced(&other, 30, 2, Some(LogId::new(30, 3)));

    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &[put(1, 1), put(2, 1)]);
    let truncated = manager.acknowledged_log_id(LogId::new(2, 1));
    manager.snapshots().restore(&snapshot, LONG).unwrap();
    let unknown = block_on(truncated).unwrap_err();
    assert!(matches!(unknown, WaitError::NoLongerKnown { .. }), "{unknown:?}");
    is_forgotten(&manager, 2, 1);
    is_done(&manager, 30, 3);
    manager.close(LONG).unwrap();
    let manager = open(scratch.by_commit());
    is_forgotten(&manager, 29, 3);
    is_done(&manager, 30, 3);
}

/// Proves ORD-16.
#[test]
fn a_gap_has_no_entry_and_what_records_passed_over_is_not_known() {
    let scratch = Scratch::new();
    let config = || scratch.by_commit().contiguity(Contiguity::Monotone);
    let manager = open(config());
    append(&manager, &[put(1, 1), put(5, 1), put(6, 1), put(7, 1)]);
    is_replaced(&manager, 3, 1, None);
    let mut replies = Vec::new();
    manager.consensus().unwrap().apply_committed(1..=1, LONG, &mut replies).unwrap();
    is_done(&manager, 1, 1);
    // The state jumps over 5 and 6, which the log has under other log ids.
    manager.consensus().unwrap().apply_only(&[put(5, 2), put(6, 2)], LONG, &mut replies).unwrap();
    let check = |manager: &Persistent| {
        is_done(manager, 1, 1);
        for term in [1, 2] {
            is_forgotten(manager, 5, term);
            is_forgotten(manager, 6, term);
        }
        is_done(manager, 7, 1);
    };
    manager.consensus().unwrap().apply_committed(7..=7, LONG, &mut replies).unwrap();
    check(&manager);
    manager.close(LONG).unwrap();
    check(&open(config()));
}

#[test]
fn a_future_of_a_log_id_keeps_no_directory_and_knows_what_was_committed() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &[put(1, 1), put(2, 1)]);
    manager.consensus().unwrap().commit(1).unwrap();
    manager.wait_for_apply(1, LONG).unwrap();
    let committed = manager.acknowledged_log_id(LogId::new(1, 1));
    let pending = manager.acknowledged_log_id(LogId::new(2, 1));
    manager.close(LONG).unwrap();
    let again = open(scratch.by_commit());
    block_on(committed).unwrap();
    let closed = block_on(pending).unwrap_err();
    assert!(matches!(closed, WaitError::Closed { index: 2 }), "{closed:?}");
    drop(again);
}

/// Proves ORD-16.
#[test]
fn a_wait_for_a_log_id_is_told_of_every_replacement_in_a_race() {
    let scratch = Scratch::new();
    let manager = &open(scratch.by_commit());
    append(manager, &[put(1, 1)]);
    thread::scope(|scope| {
        for round in 0..60_u64 {
            let (index, term) = (2 + round, 2 + 2 * round);
            append(manager, &[put(index, term)]);
            let wait = LogId::new(index, term);
            let waiting =
                scope.spawn(move || manager.wait_for_log_id(wait, Stage::Acknowledged, LONG));
            let future = manager.acknowledged_log_id(wait);
            if round % 3 > 0 {
                thread::sleep(Duration::from_micros(30 * (round % 5)));
            }
            manager.consensus().unwrap().truncate_after(Some(index - 1)).unwrap();
            append(manager, &[put(index, term + 1)]);
            manager.consensus().unwrap().commit(index).unwrap();
            for outcome in [waiting.join().unwrap(), block_on(future)] {
                let told = matches!(
                    outcome,
                    Err(WaitError::Truncated { .. } | WaitError::Replaced { .. })
                );
                assert!(told, "{outcome:?}");
            }
        }
    });
}
