//! Tests of restoring a directory from a snapshot, and of inspecting directories with snapshots.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::machines::compare;
use crate::common::model::Model;
use crate::common::ops::{Cmd, Logged, Op, log_of, with_entries};
use crate::common::{LONG, Scratch, StopOnDrop};
use sprag::error::{OpenError, ViewError};
use sprag::inspect::{inspect, verify};
use sprag::testing::{Fault, SimDisk, Stepped, restore_on_disk};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Contiguity, PersistentConfig, PersistentStateMachine,
    Snapshot, StateMachine, restore,
};

const MODES: [CommitMode; 2] = [CommitMode::OnAppend, CommitMode::ByCommit];

/// A log of puts over 50 keys, a membership and a note.
fn log(entries: u64) -> Vec<Logged> {
    let put = |at: u64| Cmd::put(format!("key-{}", at % 50).into_bytes(), vec![at as u8; 300]);
    let ops = (0..entries).map(|at| match at {
        3 => Op::Membership(b"members".to_vec()),
        5 => {
            Op::Batch { commands: vec![put(at)], note: Some((b"note".to_vec(), b"of it".to_vec())) }
        }
        _ => Op::One(put(at)),
    });
    log_of(1, 1, ops.collect::<Vec<_>>())
}

fn apply<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged]) {
    apply_by(manager, log, 50);
}

fn apply_by<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged], entries: usize) {
    for piece in log.chunks(entries) {
        with_entries(piece, |entries| manager.apply_entries_sync(entries, LONG, &mut Vec::new()))
            .unwrap();
    }
}

/// The bytes of a snapshot of `log`.
fn snapshot_of(log: &[Logged]) -> Vec<u8> {
    let manager =
        crate::common::manage(crate::common::machines::memory(), crate::common::apply_config(1));
    apply(&manager, log);
    let mut out = Vec::new();
    manager.snapshots().write_to(&mut out).unwrap();
    out
}

fn sim_config(mode: CommitMode) -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(16 << 10).expected_keys(64).commit_mode(mode)
}

/// Opens the directory, compares it with `log`, and applies three more entries.
fn assert_restored(disk: &SimDisk, log: &[Logged], mode: CommitMode, what: &str) {
    let open = || PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), sim_config(mode));
    let machine = open().unwrap_or_else(|error| panic!("{what}: {error}"));
    compare(&machine, &Model::after(log)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(machine.recovery().snapshot, log.last().map(|(log_id, _)| *log_id), "{what}");
    let engine = Stepped::new(machine, ApplyConfig::new()).unwrap();
    let mut longer = log.to_vec();
    let last = log.last().unwrap().0.index;
    longer.extend(log_of(last + 1, 2, (0..3).map(|n| Op::One(Cmd::increment(vec![n], 1)))));
    with_entries(&longer[log.len()..], |entries| match mode {
        CommitMode::ByCommit => {
            let _ = engine.consensus().unwrap().append(entries).unwrap();
            engine.consensus().unwrap().commit(last + 3).unwrap();
        }
        _ => engine.apply_entries(entries).map(|_| ()).unwrap(),
    });
    engine.run_until_idle();
    assert_eq!(engine.log().unwrap().state().unwrap().purged, Some(last), "{what}");
    disk.power_cut_keeping(0);
    drop(engine);
    let machine = open().unwrap_or_else(|error| panic!("{what}: {error}"));
    if mode == CommitMode::OnAppend {
        compare(&machine, &Model::after(&longer)).unwrap();
    }
    assert_eq!(machine.recovery().last.map(|last| last.index), Some(last + 3), "{what}");
}

#[test]
fn a_restored_directory_has_the_state_of_the_snapshot_and_goes_on_after_it() {
    let log = log(200);
    for mode in MODES {
        let disk = SimDisk::new(1);
        let report = restore_on_disk(&disk, &snapshot_of(&log), mode).unwrap();
        assert_eq!((report.log_id, report.keys), (log[199].0, 50));
        disk.power_cut_keeping(0);
        assert_restored(&disk, &log, mode, "restored");
        assert!(matches!(
            restore_on_disk(&disk, &snapshot_of(&log), mode),
            Err(OpenError::NotEmpty { .. })
        ));
    }
}

/// Proves DUR-27.
#[test]
fn a_power_cut_at_any_operation_leaves_an_empty_directory_or_a_restored_one() {
    let log = log(100);
    let bytes = snapshot_of(&log);
    let mode = CommitMode::OnAppend;
    let whole = SimDisk::new(2);
    restore_on_disk(&whole, &bytes, mode).unwrap();
    let operations = whole.operations();
    assert!(operations > 10, "{operations}");
    let (mut empty, mut restored) = (0, 0);
    for at in 0..operations {
        for keep in 0..16_u64 {
            let what = format!("cut before operation {at}, keeping {keep:#x}");
            let disk = SimDisk::new(2);
            disk.fail_at(at, Fault::PowerCut);
            restore_on_disk(&disk, &bytes, mode).unwrap_err();
            // Include rarer subsets: all of a longer tail or nothing of it.
            disk.power_cut_keeping(if keep & 8 == 0 { keep } else { keep | !15 });
            let machine = PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap())
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let applied = machine.applied();
            drop(machine);
            if applied.is_some() {
                restored += 1;
                assert_restored(&disk, &log, mode, &what);
                continue;
            }
            empty += 1;
            if keep % 2 == 0 {
                // Another restore completes it.
                restore_on_disk(&disk, &bytes, mode)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_restored(&disk, &log, mode, &what);
            } else {
                // Opened for writing instead, nothing of it is left.
                let disk_open = disk.open(true).unwrap();
                let machine = PersistentStateMachine::open_on_disk(disk_open, sim_config(mode));
                assert!(machine.unwrap().is_empty().unwrap(), "{what}");
                assert!(disk.file_names().iter().all(|name| !name.contains("snap")), "{what}");
            }
        }
    }
    assert!(empty > 60 && restored > 10, "{empty} empty, {restored} restored");
}

#[test]
fn a_restored_directory_with_a_damaged_slot_of_meta_is_no_empty_one() {
    let log = log(60);
    let disk = SimDisk::new(3);
    restore_on_disk(&disk, &snapshot_of(&log), CommitMode::OnAppend).unwrap();
    for slot in [0, 4096] {
        assert!(disk.corrupt("META", slot + 70, 1));
        assert_restored_reads(&disk, &log);
        assert!(disk.corrupt("META", slot + 70, 1));
    }
    assert!(disk.corrupt("META", 70, 1) && disk.corrupt("META", 4096 + 70, 1));
    let opened = PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap());
    assert!(matches!(opened, Err(OpenError::Corrupt(place)) if place.file == "META"));
}

fn assert_restored_reads(disk: &SimDisk, log: &[Logged]) {
    let machine = PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap());
    compare(&machine.unwrap(), &Model::after(log)).unwrap();
}

/// Proves DUR-27.
#[test]
fn a_damaged_file_makes_no_directory_and_a_full_disk_no_half_of_one() {
    let scratch = Scratch::new();
    let bytes = snapshot_of(&log(60));
    let file = scratch.path().with_file_name("file.snap");
    for at in [9, 4096 + 100, bytes.len() / 2, bytes.len() - 10] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&file, damaged).unwrap();
        restore(&file, scratch.path(), CommitMode::OnAppend, Contiguity::Strict).unwrap_err();
        assert!(!scratch.path().exists(), "byte {at}");
    }
    let disk = SimDisk::new(4);
    disk.set_capacity(Some(12 << 10));
    let refused = restore_on_disk(&disk, &bytes, CommitMode::OnAppend).unwrap_err();
    assert!(refused.to_string().contains("disk is full"), "{refused}");
    disk.set_capacity(None);
    restore_on_disk(&disk, &bytes, CommitMode::OnAppend).unwrap();
    assert_restored(&disk, &log(60), CommitMode::OnAppend, "after a full disk");
}

#[test]
fn a_machine_opened_to_be_read_gives_a_view_whose_snapshot_is_the_managers() {
    let (scratch, log) = (Scratch::new(), log(700));
    let manager = scratch.open();
    apply(&manager, &log[..500]);
    manager.snapshots().compact().unwrap();
    apply(&manager, &log[500..]);
    assert!(matches!(manager.machine().view_read_only(), Err(ViewError::Unsupported)));
    let (mut by_manager, mut read_only) = (Vec::new(), Vec::new());
    manager.snapshots().write_to(&mut by_manager).unwrap();
    // Read beside the writer, from a copy of snapshot and log.
    let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    assert!(machine.recovery().beside_a_writer);
    compare(&machine, &Model::after(&log)).unwrap();
    machine.view_read_only().unwrap().snapshot_to(&mut read_only).unwrap();
    assert!(read_only == by_manager);
    assert!(verify(scratch.path()).unwrap().is_clean());
    manager.close(LONG).unwrap();
    let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    let mut read_only = Vec::new();
    let report = machine.view_read_only().unwrap().snapshot_to(&mut read_only).unwrap();
    assert_eq!((report.keys, report.bytes), (50, by_manager.len() as u64));
    assert!(read_only == by_manager);
}

/// Proves DUR-32.
#[test]
fn a_directory_is_read_beside_a_writer_that_compacts_all_the_time() {
    let (scratch, log) = (Scratch::new(), log(3000));
    let manager = scratch.open();
    apply(&manager, &log[..100]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnDrop(&done);
            for piece in log[100..].chunks(60) {
                apply(&manager, piece);
                manager.snapshots().compact().unwrap();
            }
        });
        let (mut looks, mut last) = (0, 0);
        while !done.load(Ordering::Acquire) || looks == 0 {
            let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
            let recovery = machine.recovery();
            assert_eq!((&recovery.unreadable, &recovery.cut), (&None, &None));
            let index = recovery.applied.unwrap();
            assert!(index >= last, "{index} is before {last}");
            compare(&machine, &Model::after(&log[..index as usize])).unwrap();
            let report = verify(scratch.path()).unwrap();
            assert!(report.is_clean(), "{report:?}");
            assert_eq!(inspect(scratch.path()).unwrap().damage, None);
            (looks, last) = (looks + 1, index);
        }
        println!("{looks} looks");
    });
}

#[test]
fn damage_of_every_chunk_is_named_and_a_snapshot_under_another_name_too() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let wide = |at: u64| Cmd::put(format!("key-{at}").into_bytes(), vec![at as u8; 16 << 10]);
    let log = log_of(1, 1, (0..700).map(|at| Op::One(wide(at))).collect::<Vec<_>>());
    apply_by(&manager, &log, 2);
    manager.snapshots().compact().unwrap();
    manager.close(LONG).unwrap();
    let found = inspect(scratch.path()).unwrap();
    let [snapshot] = &found.snapshots[..] else { panic!("{found:?}") };
    assert_eq!((snapshot.keys, snapshot.log_id), (700, Some(log[699].0)));
    assert!(snapshot.chunks >= 3, "{snapshot:?}");
    let report = verify(scratch.path()).unwrap();
    assert_eq!((report.is_clean(), report.snapshots), (true, 1));

    let path = scratch.path().join(&snapshot.file);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    for at in [5000, whole.len() / 2, whole.len() - 200_000] {
        bytes[at] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let report = verify(scratch.path()).unwrap();
    let places: Vec<_> = report.findings.iter().map(|finding| &finding.place).collect();
    // The log is now too short, which is also reported.
    assert_eq!(places.len(), 4, "{places:?}");
    assert!(places.iter().all(|place| place.file.ends_with(".snap")));
    assert!(places[..3].is_sorted_by_key(|place| place.offset) && places[0].offset == 4096);

    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(inspect(scratch.path()).unwrap().damage.is_some());
    assert!(!verify(scratch.path()).unwrap().is_clean());
    fs::remove_file(&path).unwrap();
    fs::write(scratch.path().join("00000000000002bd.snap"), &whole).unwrap();
    let report = verify(scratch.path()).unwrap();
    assert!(report.findings[0].place.what.contains("another entry"), "{report:?}");
    assert!(Snapshot::open(scratch.path().join("00000000000002bd.snap")).is_ok());
}
