//! Tests of repair where a snapshot has what the log lost: the log begins anew behind it, and
//! nothing up to it is lost.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::fs;

use crate::common::{LONG, Persistent, Scratch, apply_config, manage, refused};
use sprag::disk::Access;
use sprag::error::OpenError;
use sprag::testing::{Fault, SimDisk, repair_on_disk};
use sprag::{
    Entry, PersistentConfig, PersistentStateMachine, RepairOptions, StateMachine as _, repair,
};

const SNAPSHOT: u64 = 200;
const ENTRIES: u64 = 300;

fn key(index: u64) -> Vec<u8> {
    format!("key {}", index % 90).into_bytes()
}

fn value(index: u64) -> Vec<u8> {
    index.to_le_bytes().repeat(60)
}

fn put(manager: &Persistent, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        manager.apply(&Entry::put(index, 1, &key(index), &value(index)), LONG).unwrap();
    }
}

/// Makes a snapshot in the middle of a log of several segments, and damages the body of a frame.
fn damaged(index: u64) -> Scratch {
    let scratch = Scratch::new();
    let manager = scratch.open();
    put(&manager, 1..=SNAPSHOT);
    assert_eq!(manager.snapshots().write().unwrap().log_id.map(|last| last.index), Some(SNAPSHOT));
    put(&manager, SNAPSHOT + 1..=ENTRIES);
    manager.close(LONG).unwrap();
    let mut place = None;
    sprag::inspect::frames(scratch.path(), &mut |frame| {
        if frame.first.index == index {
            place = Some((frame.file.clone(), frame.offset as usize));
        }
        Ok(())
    })
    .unwrap();
    let (file, offset) = place.unwrap();
    let path = scratch.path().join(file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset + 140] ^= 1;
    fs::write(path, bytes).unwrap();
    assert!(matches!(refused(scratch.config()), OpenError::Corrupt(_)));
    scratch
}

/// Checks that the state is that of the first `last` entries.
fn check_state(machine: &PersistentStateMachine, last: u64, what: &str) {
    assert_eq!(machine.applied().map(|last| last.index), Some(last), "{what}");
    for index in last - 89..=last {
        let found = machine.get(&key(index)).unwrap();
        assert!(found.unwrap() == value(index)[..], "{what}: {index}");
    }
}

/// Checks that the directory opens with exactly that state, and continues over segments and
/// snapshots.
fn assert_goes_on(scratch: &Scratch, last: u64) {
    let manager = scratch.open();
    check_state(manager.machine(), last, "opened");
    put(&manager, last + 1..=last + 250);
    let again = scratch.crash_image().open();
    check_state(again.machine(), last + 250, "after a crash");
    manager.snapshots().compact().unwrap();
    manager.close(LONG).unwrap();
    check_state(scratch.open().machine(), last + 250, "again");
    assert!(sprag::inspect::verify(scratch.path()).unwrap().is_clean());
}

/// Proves DUR-34.
#[test]
fn what_a_snapshot_has_is_not_lost_with_the_log_below_it() {
    for index in [1, 100, SNAPSHOT] {
        let scratch = damaged(index);
        let before = crate::common::dir_bytes(&scratch.path());
        let look = repair(scratch.path(), RepairOptions::new()).unwrap();
        assert_eq!(look.snapshot.map(|last| last.index), Some(SNAPSHOT));
        assert_eq!(look.last, look.snapshot);
        let lost = look.log.unwrap();
        assert_eq!(lost.indexes, Some((SNAPSHOT + 1, ENTRIES)));
        assert_eq!(lost.entries, ENTRIES - SNAPSHOT);
        assert!(crate::common::dir_bytes(&scratch.path()) == before);

        let report = repair(scratch.path(), RepairOptions::new().write(true)).unwrap();
        assert!(report.repaired);
        let kept = crate::common::dir_bytes(&report.backup.unwrap());
        let gone = before.iter().filter(|(name, _)| name.ends_with(".seg") || name == "META");
        for file in gone {
            assert!(kept.contains(file), "{} is kept", file.0);
        }
        assert_goes_on(&scratch, SNAPSHOT);
    }
}

#[test]
fn behind_the_snapshot_the_log_is_cut_as_ever() {
    let scratch = damaged(250);
    let report = repair(scratch.path(), RepairOptions::new().write(true)).unwrap();
    assert_eq!((report.repaired, report.snapshot), (true, None));
    assert_goes_on(&scratch, 249);
}

#[test]
fn a_snapshot_that_is_damaged_too_saves_nothing() {
    let scratch = damaged(100);
    let name = fs::read_dir(scratch.path()).unwrap().map(|file| file.unwrap().path());
    let snapshot = name.into_iter().find(|path| path.extension().is_some_and(|e| e == "snap"));
    let snapshot = snapshot.unwrap();
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(snapshot, bytes).unwrap();
    let report = repair(scratch.path(), RepairOptions::new().write(true)).unwrap();
    assert_eq!((report.repaired, report.snapshot), (true, None));
    assert_goes_on(&scratch, 99);
}

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(256)
}

/// The directory's files, durable on a simulated disk.
fn on_a_simulated_disk(files: &[(String, Vec<u8>)]) -> SimDisk {
    let simulated = SimDisk::new(5);
    let disk = simulated.open(true).unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| name != "LOCK") {
        let file = disk.open(name, Access::Create).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    simulated.reset_operations();
    drop(disk);
    simulated
}

#[test]
fn a_power_cut_at_any_operation_leaves_one_to_repair_again_or_a_repaired_one() {
    let scratch = damaged(100);
    let files = crate::common::dir_bytes(&scratch.path());
    let write = RepairOptions::new().write(true);
    let whole = on_a_simulated_disk(&files);
    repair_on_disk(&whole, &SimDisk::new(0), write).unwrap();
    let operations = whole.operations();
    assert!(operations > 5, "{operations}");
    for at in 0..operations {
        for keep in [0, u64::MAX, 0xAAAA_AAAA_AAAA_AAAA, 0x5555_5555_5555_5555] {
            let what = format!("operation {at}, keeping {keep:x}");
            let disk = on_a_simulated_disk(&files);
            disk.fail_at(at, Fault::PowerCut);
            repair_on_disk(&disk, &SimDisk::new(0), write).unwrap_err();
            disk.power_cut_keeping(keep);
            let open = || PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config());
            let machine = match open() {
                Err(OpenError::Corrupt(_)) => {
                    assert!(repair_on_disk(&disk, &SimDisk::new(0), write).unwrap().repaired);
                    open()
                }
                opened => opened,
            };
            let machine = machine.unwrap_or_else(|error| panic!("{what}: {error}"));
            check_state(&machine, SNAPSHOT, &what);
        }
    }
    // The engine continues from there.
    let disk = whole.open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config()).unwrap();
    put(&manage(machine, apply_config(1)), SNAPSHOT + 1..=SNAPSHOT + 100);
}

#[test]
fn a_damaged_snapshot_is_removed_if_the_log_has_what_it_had_and_never_else() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    put(&manager, 1..=SNAPSHOT);
    manager.snapshots().write().unwrap();
    put(&manager, SNAPSHOT + 1..=ENTRIES);
    manager.close(LONG).unwrap();
    let flip = |name: &str| {
        let path = scratch.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let name = format!("{SNAPSHOT:016x}.snap");
    flip(&name);
    let look = repair(scratch.path(), RepairOptions::new()).unwrap();
    assert!(look.is_damaged() && !look.repaired && look.log.is_none());
    assert_eq!(look.damaged_snapshots[0].file, name);
    let report = repair(scratch.path(), RepairOptions::new().write(true)).unwrap();
    assert!(report.repaired && !scratch.path().join(&name).exists());
    assert!(report.backup.unwrap().join(&name).exists());
    let manager = scratch.open();
    check_state(manager.machine(), ENTRIES, "without the snapshot");
    assert_eq!(manager.stats().recovery.unwrap().snapshot, None);

    manager.snapshots().compact().unwrap();
    manager.close(LONG).unwrap();
    let name = format!("{ENTRIES:016x}.snap");
    flip(&name);
    let refused = repair(scratch.path(), RepairOptions::new().write(true)).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt(place) if place.file == name));
    flip(&name);
    check_state(scratch.open().machine(), ENTRIES, "nothing was changed");
}
