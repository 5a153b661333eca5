//! Tests of installing another node's snapshot: the state jumps, the log starts over, and a crash
//! leaves one or the other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use crate::common::machines::{compare, memory};
use crate::common::model::Model;
use crate::common::ops::{Cmd, Logged, Op, log_of, with_entries};
use crate::common::{LONG, Scratch, Watch, apply_config, manage};
use sprag::error::{SnapshotError, SubmitError, WaitError};
use sprag::testing::{Fault, FaultError, SimDisk, Stepped};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Entry, EntryRange, Fatal, Journaled, Partition,
    PersistentConfig, PersistentStateMachine, Replies, Snapshot, SnapshotSink, Stage, StateMachine,
};

fn log(first: u64, term: u64, entries: u64) -> Vec<Logged> {
    let ops = (0..entries).map(|at| match at % 9 {
        8 => Op::Membership(vec![term as u8; 9]),
        7 => Op::Batch {
            commands: vec![Cmd::increment("n", 3)],
            note: Some((b"n".to_vec(), at.to_le_bytes().to_vec())),
        },
        _ => Op::One(Cmd::put(format!("k{}", at % 50), vec![(at ^ term) as u8; 300])),
    });
    log_of(first, term, ops.collect::<Vec<_>>())
}

fn apply<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged]) {
    for piece in log.chunks(50) {
        with_entries(piece, |entries| manager.apply_entries_sync(entries, LONG, &mut Vec::new()))
            .unwrap();
    }
}

/// A snapshot of the state after `log`, in a separate directory.
fn snapshot_of(log: &[Logged]) -> (tempfile::TempDir, Snapshot) {
    let manager = manage(memory(), apply_config(1));
    apply(&manager, log);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut file = std::fs::File::create(&path).unwrap();
    manager.snapshots().write_to(&mut file).unwrap();
    let snapshot = Snapshot::open(&path).unwrap();
    (directory, snapshot)
}

/// Proves ORD-7.
#[test]
fn an_installed_snapshot_is_the_state_and_the_log_goes_on_after_it() {
    let log = log(1, 1, 900);
    let (_kept, snapshot) = snapshot_of(&log[..600]);
    for before in [0, 1, 250] {
        let scratch = Scratch::new();
        let manager = scratch.open();
        apply(&manager, &log[..before]);
        let report = manager.snapshots().restore(&snapshot, LONG).unwrap();
        assert_eq!(report.log_id, Some(log[599].0));
        compare(manager.machine(), &Model::after(&log[..600])).unwrap();
        let state = manager.log().unwrap().state().unwrap();
        assert_eq!((state.first, state.last, state.purged), (None, Some(log[599].0), Some(600)));
        manager.wait_for_apply(600, LONG).unwrap();
        manager.wait_until(600, Stage::Durable, LONG).unwrap();
        let stats = manager.stats();
        assert_eq!((stats.applied, stats.durable, stats.pending_count), (Some(600), Some(600), 0));
        let gap = manager.apply_entries(&[Entry::put(602, 1, b"k", b"v")]);
        assert!(matches!(gap, Err(SubmitError::Gap { expected: 601, got: 602 })));
        apply(&manager, &log[600..]);
        compare(manager.machine(), &Model::after(&log)).unwrap();
        if before == 1 {
            manager.snapshots().compact().unwrap();
        }
        manager.close(LONG).unwrap();
        for _ in 0..2 {
            let manager = scratch.open();
            compare(manager.machine(), &Model::after(&log)).unwrap();
            manager.close(LONG).unwrap();
        }
    }
}

#[test]
fn a_memory_machine_is_restored_too_and_goes_on() {
    let log = log(1, 1, 300);
    let (_kept, snapshot) = snapshot_of(&log[..200]);
    let manager = manage(memory(), apply_config(3));
    apply(&manager, &log[..100]);
    manager.snapshots().restore(&snapshot, LONG).unwrap();
    apply(&manager, &log[200..]);
    compare(manager.machine(), &Model::after(&log)).unwrap();
}

#[test]
fn a_snapshot_that_goes_no_further_than_what_is_committed_is_refused_and_changes_nothing() {
    let log = log(1, 1, 300);
    let (_kept, snapshot) = snapshot_of(&log[..200]);
    let scratch = Scratch::new();
    let manager = scratch.open();
    apply(&manager, &log[..200]);
    let stale = manager.snapshots().restore(&snapshot, LONG);
    assert!(
        matches!(stale, Err(SnapshotError::Stale { snapshot: 200, committed: Some(200) })),
        "{stale:?}"
    );
    apply(&manager, &log[200..]);
    compare(manager.machine(), &Model::after(&log)).unwrap();
}

#[test]
fn an_uncommitted_tail_goes_and_those_who_wait_for_it_are_told() {
    let scratch = Scratch::new();
    let (mine, theirs) = (log(1, 1, 100), log(1, 2, 150));
    let (_kept, snapshot) = snapshot_of(&theirs);
    let machine = PersistentStateMachine::open(scratch.by_commit()).unwrap();
    let manager = manage(machine, apply_config(2));
    let _ =
        with_entries(&mine[..40], |entries| manager.consensus().unwrap().append(entries)).unwrap();
    let watch = Watch::default();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            watch.here();
            manager.wait_until(30, Stage::Applied, LONG)
        });
        let later = scope.spawn(|| manager.wait_until(120, Stage::Applied, LONG));
        while manager.stats().durable != Some(40) {
            manager.flush_pending(LONG).unwrap();
        }
        // An unregistered waiter cannot be woken; a late one finds the new log.
        watch.until_asleep();
        manager.snapshots().restore(&snapshot, LONG).unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(WaitError::Truncated { index: 30 })));
        later.join().unwrap().unwrap();
    });
    compare(manager.machine(), &Model::after(&theirs)).unwrap();
    let next = log_of(151, 3, [Op::Noop]);
    let _ = with_entries(&next, |entries| manager.consensus().unwrap().append(entries)).unwrap();
    manager.consensus().unwrap().commit(151).unwrap();
    manager.wait_for_apply(151, LONG).unwrap();
    manager.close(LONG).unwrap();
    let machine = PersistentStateMachine::open(scratch.by_commit()).unwrap();
    compare(&machine, &Model::after(&theirs)).unwrap();
    assert_eq!(machine.applied(), Some(next[0].0));
}

/// Proves ORD-7.
#[test]
fn a_snapshot_takes_the_watermarks_of_a_longer_uncommitted_tail_back_to_its_entry() {
    let scratch = Scratch::new();
    let (mine, theirs) = (log(1, 1, 200), log(1, 2, 150));
    let (_kept, snapshot) = snapshot_of(&theirs);
    let machine = PersistentStateMachine::open(scratch.by_commit()).unwrap();
    let manager = manage(machine, apply_config(2));
    for piece in mine.chunks(40) {
        let _ =
            with_entries(piece, |entries| manager.consensus().unwrap().append(entries)).unwrap();
    }
    manager.wait_until(200, Stage::Durable, LONG).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.submitted, stats.written, stats.durable), (Some(200), Some(200), Some(200)));
    assert_eq!((stats.committed, stats.applied, stats.acknowledged), (None, None, None));
    manager.snapshots().restore(&snapshot, LONG).unwrap();
    let (stats, at) = (manager.stats(), Some(150));
    assert_eq!((stats.submitted, stats.written, stats.durable), (at, at, at));
    assert_eq!((stats.committed, stats.applied, stats.acknowledged), (at, at, at));
    compare(manager.machine(), &Model::after(&theirs)).unwrap();
}

#[test]
fn a_snapshot_whose_last_entry_the_log_has_commits_it_and_nothing_is_lost() {
    let (scratch, log) = (Scratch::new(), log(1, 1, 120));
    let (_kept, snapshot) = snapshot_of(&log[..80]);
    let machine = PersistentStateMachine::open(scratch.by_commit()).unwrap();
    let manager = manage(machine, apply_config(2));
    for piece in log.chunks(40) {
        let _ =
            with_entries(piece, |entries| manager.consensus().unwrap().append(entries)).unwrap();
    }
    manager.snapshots().restore(&snapshot, LONG).unwrap();
    let state = manager.log().unwrap().state().unwrap();
    assert_eq!((state.committed, state.last), (Some(80), Some(log[119].0)));
    compare(manager.machine(), &Model::after(&log[..80])).unwrap();
    manager.consensus().unwrap().commit(120).unwrap();
    manager.wait_for_apply(120, LONG).unwrap();
    compare(manager.machine(), &Model::after(&log)).unwrap();
}

/// An engine on a simulated disk installs a snapshot, and the power fails at the given operation.
///
/// Proves DUR-26.
#[test]
fn a_power_cut_at_any_operation_of_an_installation_leaves_the_old_state_or_the_new() {
    let (mine, theirs) = (log(1, 1, 60), log(1, 2, 90));
    let (_kept, snapshot) = snapshot_of(&theirs);
    let (mut old, mut new, mut seed) = (0, 0, 0);
    for mode in [CommitMode::OnAppend, CommitMode::ByCommit] {
        let mut operation = 0;
        loop {
            seed += 1;
            let disk = SimDisk::new(seed);
            let config = PersistentConfig::new("simulated")
                .segment_bytes(64 << 10)
                .expected_keys(64)
                .commit_mode(mode);
            let open = || {
                let machine =
                    PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config.clone());
                machine.unwrap()
            };
            let manager = ApplyManager::new(open(), ApplyConfig::new().pin_workers(false)).unwrap();
            let committed = if mode == CommitMode::OnAppend {
                apply(&manager, &mine[..30]);
                30
            } else {
                let _ = with_entries(&mine, |entries| manager.consensus().unwrap().append(entries))
                    .unwrap();
                manager.flush_pending(LONG).unwrap();
                0
            };
            disk.reset_operations();
            disk.fail_at(operation, Fault::PowerCut);
            let installed = manager.snapshots().restore(&snapshot, LONG);
            let struck = disk.is_power_off();
            drop(manager);
            disk.power_cut_random();
            for round in 0..2 {
                let machine = open();
                match machine.applied().map(|last| last.index) {
                    Some(90) => {
                        compare(&machine, &Model::after(&theirs)).unwrap();
                        new += 1;
                    }
                    applied => {
                        assert!(installed.is_err(), "installed, and gone");
                        assert_eq!(applied.unwrap_or(0), committed);
                        compare(&machine, &Model::after(&mine[..committed as usize])).unwrap();
                        old += 1;
                    }
                }
                assert!(disk.file_names().iter().all(|name| !name.ends_with(".tmp")), "{round}");
            }
            if !struck {
                installed.unwrap();
                break;
            }
            operation += 1;
        }
        assert!(operation > 8, "{operation}");
    }
    assert!(old > 0 && new > 0);
}

#[test]
fn one_snapshot_is_received_at_a_time() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let first = manager.snapshots().receive().unwrap();
    assert!(matches!(manager.snapshots().receive(), Err(SnapshotError::Busy)));
    drop(first);
    manager.snapshots().receive().unwrap();
}

/// A machine that an embedder wrote.
struct Own;

impl StateMachine for Own {
    fn apply(&self, _: &EntryRange<'_>, _: Partition, _: &mut Replies<'_>) -> Result<(), Fatal> {
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        out.write(b"whatever it likes").unwrap();
        Ok(())
    }
}

/// Proves DUR-26.
#[test]
fn a_snapshot_of_another_sort_of_machine_is_refused_and_changes_nothing() {
    let log = log(1, 1, 300);
    let (directory, key_value) = snapshot_of(&log[..200]);
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let own = manage(Journaled::open(theirs.config(), Own).unwrap(), apply_config(1));
    apply(&own, &log[..150]);
    let path = directory.path().join("blob");
    own.snapshots().write_to(&mut std::fs::File::create(&path).unwrap()).unwrap();
    let blob = Snapshot::open(&path).unwrap();
    let refused = own.snapshots().restore(&key_value, LONG);
    assert!(matches!(refused, Err(SnapshotError::OtherKind { .. })), "{refused:?}");
    apply(&own, &log[150..]);
    assert!(own.poison().is_none());

    let manager = ours.open();
    apply(&manager, &log[..100]);
    let files = || crate::common::dir_bytes(&ours.path()).into_iter().map(|(name, _)| name);
    let refused = manager.snapshots().restore(&blob, LONG);
    assert!(matches!(refused, Err(SnapshotError::OtherKind { .. })), "{refused:?}");
    assert!(manager.poison().is_none());
    assert!(files().all(|name| !name.contains("snap")), "{:?}", files().collect::<Vec<_>>());
    apply(&manager, &log[100..]);
    compare(manager.machine(), &Model::after(&log)).unwrap();
}

#[test]
fn a_snapshot_that_another_manager_received_is_refused_and_both_go_on() {
    let log = log(1, 1, 300);
    let (_kept, snapshot) = snapshot_of(&log[..200]);
    let scratches = [Scratch::new(), Scratch::new()];
    let managers = scratches.each_ref().map(Scratch::open);
    managers.iter().for_each(|manager| apply(manager, &log[..100]));
    let mut receiver = managers[0].snapshots().receive().unwrap();
    for piece in snapshot.pieces(0, 1 << 20) {
        receiver.receive(&piece).unwrap();
    }
    let refused = managers[1].snapshots().install(receiver, LONG);
    assert!(matches!(refused, Err(SnapshotError::OtherDirectory)), "{refused:?}");
    for (manager, scratch) in managers.into_iter().zip(&scratches) {
        compare(manager.machine(), &Model::after(&log[..100])).unwrap();
        manager.snapshots().restore(&snapshot, LONG).unwrap();
        apply(&manager, &log[200..]);
        manager.close(LONG).unwrap();
        compare(scratch.open().machine(), &Model::after(&log)).unwrap();
    }
}

/// Proves DUR-26.
#[test]
fn a_disk_without_room_for_the_log_to_go_on_fails_the_call_and_no_more() {
    let log = log(1, 1, 120);
    let (_kept, snapshot) = snapshot_of(&log[..90]);
    let mut refused = 0;
    for operation in 0.. {
        let disk = SimDisk::new(operation + 1);
        let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(64);
        let machine =
            PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
        let engine = Stepped::new(machine, apply_config(1)).unwrap();
        let _ = with_entries(&log[..30], |entries| engine.apply_entries(entries)).unwrap();
        engine.run_until_idle();
        disk.reset_operations();
        disk.fail_at(operation, Fault::Error(FaultError::Enospc));
        match engine.snapshots().restore(&snapshot, LONG) {
            Ok(_) => break,
            Err(error) if engine.poison().is_none() => {
                assert!(error.is_disk_full(), "{error}");
                let creating = matches!(&error,
                    SnapshotError::Io { action: "creating", file, .. } if file.ends_with(".seg"));
                refused += u64::from(creating);
                compare(engine.machine(), &Model::after(&log[..30])).unwrap();
                engine.snapshots().restore(&snapshot, LONG).unwrap();
                compare(engine.machine(), &Model::after(&log[..90])).unwrap();
            }
            Err(error) => assert!(!error.to_string().contains("creating"), "{error}"),
        }
    }
    assert!(refused > 0);
}
