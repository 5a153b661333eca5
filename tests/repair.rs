//! Tests of repair: nothing is changed without the option, nothing before the damage is lost, and
//! nothing behind it comes back, whenever the process dies.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use crate::common::io;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use sprag::error::OpenError;
use sprag::testing::{Fault, FaultError, SimDisk, Stepped, repair_on_disk};
use sprag::{
    ApplyConfig, CommitMode, Entry, PersistentConfig, PersistentStateMachine, RepairOptions, repair,
};

const TIMEOUT: Duration = Duration::from_secs(20);
const ENTRIES: u64 = 40;
const KEPT: u64 = 17;

type Files = BTreeMap<String, Vec<u8>>;

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(16 << 10).batch_size(1).expected_keys(64)
}

/// A value of about a kilobyte, so that the log takes some segments.
fn entry_value(index: u64) -> Vec<u8> {
    vec![index as u8; 1000]
}

fn engine(disk: &SimDisk) -> Stepped<PersistentStateMachine> {
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config());
    Stepped::new(machine.unwrap(), ApplyConfig::new()).unwrap()
}

fn apply(engine: &Stepped<PersistentStateMachine>, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let key = format!("key {index}");
        let _ = engine
            .apply_entries(&[Entry::put(index, 1, key.as_bytes(), &entry_value(index))])
            .unwrap();
        engine.run_until_idle();
    }
}

fn files(disk: &SimDisk) -> Files {
    let names = disk.file_names().into_iter();
    names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// Segment and offset of the frame of an index; each frame has one entry.
fn place(files: &Files, index: u64) -> (String, u64) {
    let mut found = 0;
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".seg")) {
        for at in (0..bytes.len()).step_by(64).filter(|at| bytes[*at..].starts_with(b"SPRG")) {
            found += 1;
            if found == index {
                return (name.clone(), at as u64);
            }
        }
    }
    panic!("no frame {index}");
}

/// A log of several segments, closed or killed, whose frame after [`KEPT`] has a flipped bit at
/// `byte`.
fn damaged(closed: bool, byte: u64) -> SimDisk {
    let disk = SimDisk::new(3);
    let engine = engine(&disk);
    apply(&engine, 1..=ENTRIES);
    if closed {
        engine.into_manager().close(TIMEOUT).unwrap();
    }
    disk.crash_process();
    let (file, offset) = place(&files(&disk), KEPT + 1);
    assert!(disk.corrupt(&file, offset + byte, 1));
    disk
}

fn open(disk: &SimDisk) -> Result<PersistentStateMachine, OpenError> {
    PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config())
}

/// Checks that the directory opens with exactly what is before the damage, and continues.
fn assert_repaired(disk: &SimDisk, what: &str) {
    let machine = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(machine.recovery().applied, Some(KEPT), "{what}");
    for index in 1..=ENTRIES {
        let found = machine.get(format!("key {index}").as_bytes()).unwrap();
        let expected = (index <= KEPT).then(|| entry_value(index));
        assert_eq!(found.as_deref(), expected.as_deref(), "{what}: {index}");
    }
    drop(machine);
    // The same entries go to the same places: cut frames must not continue the chain behind them.
    for index in KEPT + 1..=KEPT + 4 {
        let engine = engine(disk);
        apply(&engine, index..=index);
        disk.power_cut_keeping(0);
        drop(engine);
        let machine = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(machine.recovery().applied, Some(index), "{what}");
        assert_eq!(machine.recovery().cut, None, "{what}");
    }
}

const WRITE: fn() -> RepairOptions = || RepairOptions::new().write(true);

/// Proves DUR-34.
#[test]
fn without_being_told_to_write_nothing_is_changed_and_everything_that_would_be_lost_is_named() {
    for closed in [true, false] {
        let disk = damaged(closed, 130);
        let before = files(&disk);
        let (file, offset) = place(&before, KEPT + 1);
        disk.reset_operations();
        let backup = SimDisk::new(0);
        let report = repair_on_disk(&disk, &backup, RepairOptions::new()).unwrap();
        let lost = report.log.as_ref().unwrap();
        assert_eq!((&lost.damage.file, lost.damage.offset), (&file, offset));
        assert_eq!(lost.damage.index, Some(KEPT + 1));
        assert_eq!((lost.frames, lost.entries), (ENTRIES - KEPT, ENTRIES - KEPT));
        assert_eq!(lost.indexes, Some((KEPT + 1, ENTRIES)));
        let later = before.keys().filter(|name| name.ends_with(".seg") && **name > file);
        assert_eq!(lost.segments, later.cloned().collect::<Vec<_>>());
        assert!(lost.segments.len() > 1 && lost.bytes > 1000 * (ENTRIES - KEPT));
        assert!(!report.repaired && report.backup.is_none());
        assert_eq!(report.last.unwrap().index, KEPT);
        assert_eq!((files(&disk), disk.operations()), (before, 0));
        assert!(backup.file_names().is_empty());
    }
}

/// Proves DUR-34.
#[test]
fn a_repaired_directory_has_all_before_the_damage_and_a_backup_has_all_that_was_changed() {
    for (closed, byte) in [(true, 130), (false, 130), (true, 5), (false, 70)] {
        let disk = damaged(closed, byte);
        let before = files(&disk);
        let backup = SimDisk::new(0);
        let report = repair_on_disk(&disk, &backup, WRITE()).unwrap();
        assert!(report.repaired);
        backup.power_cut_keeping(0);
        let kept = files(&backup);
        assert_eq!(kept.keys().collect::<Vec<_>>(), {
            let mut names: Vec<_> = report.backed_up.iter().collect();
            names.sort();
            names
        });
        for (name, bytes) in &before {
            let changed = disk.read_file(name).as_ref() != Some(bytes);
            assert_eq!(kept.get(name), changed.then_some(bytes), "{name}");
        }
        disk.power_cut_keeping(0);
        assert_repaired(&disk, &format!("closed {closed}, byte {byte}"));
        let again = repair_on_disk(&disk, &SimDisk::new(0), WRITE()).unwrap();
        assert!(!again.is_damaged() && !again.repaired);
    }
}

#[test]
fn a_backup_for_which_there_is_no_room_leaves_nothing_that_passes_for_one() {
    let (disk, backup) = (damaged(false, 130), SimDisk::new(0));
    repair_on_disk(&disk, &backup, WRITE()).unwrap();
    for at in 0..backup.operations() {
        let (disk, backup) = (damaged(false, 130), SimDisk::new(0));
        let before = files(&disk);
        backup.fail_at(at, Fault::Error(FaultError::Enospc));
        let refused = repair_on_disk(&disk, &backup, WRITE());
        assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
        assert!(backup.file_names().is_empty(), "operation {at}: {:?}", backup.file_names());
        assert!(files(&disk) == before, "operation {at}");
        repair_on_disk(&disk, &backup, WRITE()).unwrap();
    }
}

/// Proves DUR-34.
#[test]
fn a_crash_at_any_operation_leaves_a_directory_to_repair_again_or_a_repaired_one() {
    let backup = SimDisk::new(0);
    let whole = damaged(false, 130);
    whole.reset_operations();
    repair_on_disk(&whole, &backup, WRITE()).unwrap();
    let (operations, copies) = (whole.operations(), backup.operations());
    assert!(operations > 6 && copies > 6, "{operations} and {copies} operations");
    for (at, on_backup) in
        (0..operations).map(|at| (at, false)).chain((0..copies).map(|at| (at, true)))
    {
        for keep in [0, u64::MAX, 0xAAAA_AAAA_AAAA_AAAA, 0x5555_5555_5555_5555] {
            let what = format!("operation {at}, on the backup {on_backup}, keeping {keep:x}");
            let disk = damaged(false, 130);
            disk.reset_operations();
            let before = files(&disk);
            let backup = SimDisk::new(0);
            let struck = if on_backup { &backup } else { &disk };
            struck.fail_at(at, Fault::PowerCut);
            repair_on_disk(&disk, &backup, WRITE()).unwrap_err();
            disk.power_cut_keeping(keep);
            backup.power_cut_keeping(0);
            let (now, kept) = (files(&disk), files(&backup));
            for (name, bytes) in &before {
                // META may have been stored with the same content; every changed file has a copy.
                if now.get(name) != Some(bytes) {
                    assert_eq!(kept.get(name), Some(bytes), "{what}: {name}");
                }
            }
            match open(&disk) {
                Ok(machine) => drop(machine),
                Err(OpenError::Corrupt(_)) => {
                    let report = repair_on_disk(&disk, &SimDisk::new(0), WRITE()).unwrap();
                    assert!(report.repaired, "{what}");
                }
                Err(other) => panic!("{what}: {other}"),
            }
            assert_repaired(&disk, &what);
        }
    }
}

/// Proves DUR-34.
#[test]
fn what_was_cut_does_not_come_back_when_a_slot_of_meta_is_lost_later() {
    let disk = damaged(true, 130);
    repair_on_disk(&disk, &SimDisk::new(0), WRITE()).unwrap();
    for slot in [0, 4096] {
        assert!(disk.corrupt("META", slot + 70, 1));
        let report = repair_on_disk(&disk, &SimDisk::new(0), RepairOptions::new()).unwrap();
        assert_eq!((report.meta_slot, report.log), (Some(slot), None));
        assert!(disk.corrupt("META", slot + 70, 1));
    }
    assert!(disk.corrupt("META", 70, 1));
    let report = repair_on_disk(&disk, &SimDisk::new(0), WRITE()).unwrap();
    assert!(report.repaired && report.log.is_none());
    assert_eq!(report.backed_up, ["META"]);
    assert!(!repair_on_disk(&disk, &SimDisk::new(0), WRITE()).unwrap().is_damaged());
    assert_repaired(&disk, "after the slot");
}

/// Makes a consensus engine's directory with two saved votes, and flips the bytes.
fn voted(path: &Path, damaged_bytes: &[usize]) {
    let config = io::config(path).commit_mode(CommitMode::ByCommit);
    let machine = PersistentStateMachine::open(config).unwrap();
    let manager = io::manage(machine, ApplyConfig::new());
    let _ = manager.consensus().unwrap().append(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    manager.log().unwrap().save_hard_state(b"first").unwrap();
    manager.log().unwrap().save_hard_state(b"second").unwrap();
    manager.close(TIMEOUT).unwrap();
    let mut hard = fs::read(path.join("HARD")).unwrap();
    damaged_bytes.iter().for_each(|at| hard[*at] ^= 1);
    fs::write(path.join("HARD"), hard).unwrap();
}

#[test]
fn a_vote_is_forgotten_only_on_a_word_of_its_own() {
    // The first store is in both slots; the second one overwrites the slot at 4096.
    let (first, second) = (Some(&b"first"[..]), Some(&b"second"[..]));
    for (damaged_bytes, left) in [(&[4166][..], first), (&[70], second), (&[70, 4166], None)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        voted(&path, damaged_bytes);
        let before = fs::read(path.join("HARD")).unwrap();
        let refused = repair(&path, WRITE()).unwrap_err();
        assert!(matches!(&refused, OpenError::Corrupt(place) if place.file == "HARD"));
        assert_eq!(fs::read(path.join("HARD")).unwrap(), before);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no backup");

        let report = repair(&path, WRITE().forget_hard_state(true)).unwrap();
        assert!(report.repaired && report.log.is_none());
        let backup = report.backup.unwrap();
        assert_eq!(fs::read(backup.join("HARD")).unwrap(), before);
        let config = io::config(&path).commit_mode(CommitMode::ByCommit);
        let machine = PersistentStateMachine::open(config).unwrap();
        let manager = io::manage(machine, ApplyConfig::new());
        assert_eq!(manager.log().unwrap().hard_state().unwrap().as_deref(), left);
        assert_eq!(manager.log().unwrap().state().unwrap().last.unwrap().index, 1);
    }
}

#[test]
fn a_backup_is_a_new_directory_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    voted(&path, &[70]);
    let taken = directory.path().join("data-backup-1");
    fs::write(&taken, "foreign").unwrap();
    let report = repair(&path, WRITE().forget_hard_state(true)).unwrap();
    let backup = report.backup.unwrap();
    assert_eq!(backup, fs::canonicalize(directory.path()).unwrap().join("data-backup-2"));
    assert_eq!(fs::read(taken).unwrap(), b"foreign");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&backup), 0o700);
    for file in fs::read_dir(&backup).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn a_backup_that_would_lie_in_another_data_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    voted(&path, &[70]);
    let before = fs::read(path.join("HARD")).unwrap();
    // The directory around it became a data directory later.
    fs::write(directory.path().join("META"), b"SPRM").unwrap();
    let error = repair(&path, WRITE().forget_hard_state(true)).unwrap_err();
    assert!(matches!(error, OpenError::InsideDataDirectory { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    assert_eq!(fs::read(path.join("HARD")).unwrap(), before);
}

#[test]
fn a_directory_that_is_whole_empty_or_in_use_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    assert!(matches!(repair(&path, WRITE()), Err(OpenError::Missing { .. })));
    fs::create_dir(&path).unwrap();
    assert!(!repair(&path, WRITE()).unwrap().is_damaged());
    let machine = PersistentStateMachine::open(io::config(&path)).unwrap();
    assert!(matches!(repair(&path, WRITE()), Err(OpenError::Locked { .. })));
    assert!(matches!(repair(&path, RepairOptions::new()), Err(OpenError::Locked { .. })));
    drop(machine);
    assert!(!repair(&path, WRITE()).unwrap().repaired);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no backup");
}
