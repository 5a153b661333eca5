//! Tests of opening with the storage at every position relative to the log.

use sprag::error::OpenError;
use sprag::testing::storage::MemoryStorage;
use sprag::{CommitMode, LogId, PersistentStateMachine};

use super::{TIMEOUT, World, append, assert_state, has_snapshots, submit};

#[test]
fn what_the_storage_has_is_not_replayed_and_the_rest_is() {
    let mut world = World::new(1, CommitMode::OnAppend);
    let engine = world.open();
    submit(&engine, 1, 9);
    engine.run_until_idle();
    let behind = world.storage.after_power_cut(usize::MAX);
    submit(&engine, 10, 31);
    engine.run_until_idle();
    world.kill(engine);
    assert_state(&world.open(), 31);
    world.storage = behind;
    let batches = world.storage.batches();
    let engine = world.open();
    assert_state(&engine, 31);
    assert_eq!(world.storage.batches() - batches, 22_u64.div_ceil(4), "in batches of 4");
    engine.into_manager().close(TIMEOUT).unwrap();
    world.storage = MemoryStorage::new();
    assert_state(&world.open(), 31);
}

#[test]
fn a_storage_ahead_of_the_commit_mark_says_what_is_committed() {
    let mut world = World::new(2, CommitMode::ByCommit);
    let engine = world.open();
    append(&engine, 1, 10, 1);
    engine.run_until_idle();
    engine.consensus().unwrap().commit(8).unwrap();
    engine.run_until_idle();
    // No frame after the commit records it.
    world.kill(engine);
    let engine = world.open();
    assert_state(&engine, 8);
    let state = engine.log().unwrap().state().unwrap();
    assert_eq!((state.committed, state.last), (Some(8), Some(LogId::new(10, 1))));
    assert!(engine.consensus().unwrap().truncate_after(Some(7)).is_err(), "it is committed");
    engine.consensus().unwrap().commit(10).unwrap();
    engine.run_until_idle();
    assert_state(&engine, 10);
    world.kill(engine);
    assert_state(&world.open(), 10);
}

#[test]
fn where_the_storage_is_ahead_of_the_logs_end_the_log_starts_over_after_it() {
    for mode in [CommitMode::OnAppend, CommitMode::ByCommit] {
        let mut world = World::new(3, mode);
        let engine = world.open();
        let by_commit = mode == CommitMode::ByCommit;
        let go_on = |engine: &super::Engine, from, to| {
            if by_commit {
                append(engine, from, to, 1);
                engine.consensus().unwrap().commit(to).unwrap();
            } else {
                submit(engine, from, to);
            }
        };
        go_on(&engine, 1, 4);
        engine.run_until_idle();
        go_on(&engine, 5, 7);
        // The log writer does not reach it.
        while engine.step_worker(0) {}
        assert_eq!(engine.stats().applied, Some(7));
        world.kill(engine);
        let engine = world.open();
        assert_state(&engine, 7);
        assert_eq!(engine.log().unwrap().state().unwrap().purged, Some(7));
        go_on(&engine, 8, 12);
        engine.run_until_idle();
        assert_state(&engine, 12);
        world.kill(engine);
        let engine = world.open();
        assert_state(&engine, 12);
        engine.into_manager().close(TIMEOUT).unwrap();
        assert_state(&world.open(), 12);
        assert!(!has_snapshots(&world));
    }
}

#[test]
fn a_storage_that_went_on_without_a_log_goes_on_with_a_new_one() {
    let mut world = World::new(4, CommitMode::OnAppend);
    let engine = world.open();
    submit(&engine, 1, 5);
    engine.into_manager().close(TIMEOUT).unwrap();
    world.disk = sprag::testing::SimDisk::new(5);
    let engine = world.open();
    assert_state(&engine, 5);
    submit(&engine, 6, 8);
    engine.run_until_idle();
    world.kill(engine);
    assert_state(&world.open(), 8);
}

#[test]
fn compaction_gives_the_log_up_to_what_the_storage_has_durably_and_writes_no_snapshot() {
    let mut world = World::new(6, CommitMode::OnAppend);
    let engine = world.open();
    submit(&engine, 1, 100);
    engine.run_until_idle();
    assert!(world.storage.unsynced() > 0, "under a log it is not synced");
    let report = engine.snapshots().compact().unwrap();
    assert_eq!(world.storage.unsynced(), 0);
    assert!(report.segments > 0 && !has_snapshots(&world));
    let purged = report.purged.unwrap();
    assert_eq!(engine.log().unwrap().state().unwrap().purged, Some(purged));
    assert!(purged <= 100);
    submit(&engine, 101, 150);
    engine.run_until_idle();
    // Everything that the storage did not sync is gone, and the log has it.
    world.cut_power_after_log_sync(engine);
    let engine = world.open();
    assert_state(&engine, 150);
    engine.snapshots().compact().unwrap();
    engine.into_manager().close(TIMEOUT).unwrap();
    let verified = sprag::testing::verify_on_disk(&world.disk).unwrap();
    assert!(verified.findings.is_empty(), "{verified:?}");
    assert_state(&world.open(), 150);
}

#[test]
fn a_purge_goes_as_far_as_the_storage_has_applied_and_no_further() {
    let world = World::new(7, CommitMode::ByCommit);
    let engine = world.open();
    for first in (1..200).step_by(10) {
        append(&engine, first, first + 9, 1);
        engine.run_until_idle();
    }
    engine.consensus().unwrap().commit(120).unwrap();
    engine.run_until_idle();
    let refused = engine.log().unwrap().purge(121);
    assert!(matches!(refused, Err(sprag::error::LogError::NotCovered { index: 121 })));
    engine.log().unwrap().purge(110).unwrap();
    let purged = engine.log().unwrap().state().unwrap().purged.unwrap();
    assert!((1..=110).contains(&purged), "{purged}");
}

#[test]
fn a_storage_behind_the_logs_beginning_is_refused_with_what_is_missing() {
    let mut world = World::new(8, CommitMode::OnAppend);
    let engine = world.open();
    submit(&engine, 1, 10);
    engine.run_until_idle();
    let backup = world.storage.after_power_cut(usize::MAX);
    submit(&engine, 11, 100);
    engine.run_until_idle();
    let gone = engine.snapshots().compact().unwrap().purged.unwrap();
    engine.into_manager().close(TIMEOUT).unwrap();
    let right = std::mem::replace(&mut world.storage, backup);
    for has in [Some(10), None] {
        let error = world.machine().unwrap_err();
        let OpenError::StorageBehind { applied, purged } = error else { panic!("{error}") };
        assert_eq!((applied, purged), (has, gone));
        let missing = format!("entries {} to {gone} are in neither", has.unwrap_or(0) + 1);
        let message = OpenError::StorageBehind { applied, purged }.to_string();
        assert!(has.is_none() || message.contains(&missing), "{message}");
        world.storage = MemoryStorage::new();
    }
    world.storage = right;
    assert_state(&world.open(), 100);
}

#[test]
fn a_storage_of_another_log_is_refused() {
    let other = World::new(9, CommitMode::ByCommit);
    let engine = other.open();
    append(&engine, 1, 5, 2);
    engine.consensus().unwrap().commit(5).unwrap();
    engine.run_until_idle();
    drop(engine);
    let mut world = World::new(10, CommitMode::ByCommit);
    let engine = world.open();
    append(&engine, 1, 9, 1);
    engine.consensus().unwrap().commit(9).unwrap();
    engine.run_until_idle();
    engine.into_manager().close(TIMEOUT).unwrap();
    let right = std::mem::replace(&mut world.storage, other.storage);
    let error = world.machine().unwrap_err();
    let OpenError::OtherLog { applied, found } = error else { panic!("{error}") };
    assert_eq!((applied, found), (LogId::new(5, 2), Some(LogId::new(5, 1))));
    world.storage = right;
    assert_state(&world.open(), 9);
}

#[test]
fn a_directory_whose_state_is_in_a_storage_does_not_open_without_one() {
    let world = World::new(11, CommitMode::OnAppend);
    world.open().into_manager().close(TIMEOUT).unwrap();
    let disk = world.disk.open(true).unwrap();
    let error = PersistentStateMachine::open_on_disk(disk, world.config.clone()).unwrap_err();
    assert!(matches!(error, OpenError::OtherState { .. }), "{error}");
    world.open();
}
