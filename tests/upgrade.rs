//! Tests of directories whose META and HARD have version 1: they are read as they are, and the
//! first open for writing raises them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::Path;

use crate::common::files::{Files, disk_with, files_of, write_to};
use sprag::error::OpenError;
use sprag::testing::{Fault, FaultError, Random, SimDisk, Stepped, repair_on_disk};
use sprag::{ApplyConfig, CommitMode, PersistentConfig, PersistentStateMachine, RepairOptions};

/// A directory of `tests/version_1`: its name, its number of entries, and its last vote.
struct Kept {
    name: &'static str,
    entries: u64,
    vote: Option<Vec<u8>>,
}

fn kept() -> Vec<Kept> {
    let of = |name, entries, vote| Kept { name, entries, vote };
    vec![
        of("clean", 6, None),
        of("crashed", 3, None),
        of("hard_10", 6, Some(b"vote 00003".to_vec())),
        of("hard_10_crashed", 3, Some(b"vote 00001".to_vec())),
        of("hard_3000", 6, Some(vec![3; 3000])),
        of("hard_3000_crashed", 3, Some(vec![2; 3000])),
    ]
}

fn length(name: &str) -> usize {
    if name.ends_with(".seg") { 64 << 10 } else { 8192 }
}

impl Kept {
    fn files(&self) -> Files {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/version_1").join(self.name);
        let files = fs::read_dir(folder).unwrap().map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let mut bytes = fs::read(file.path()).unwrap();
            bytes.resize(length(&name), 0);
            (name, bytes)
        });
        files.collect()
    }

    /// A simulated disk with its files, all durable.
    fn disk(&self) -> SimDisk {
        disk_with(&self.files())
    }

    fn config(&self) -> PersistentConfig {
        let mode = if self.vote.is_some() { CommitMode::ByCommit } else { CommitMode::OnAppend };
        PersistentConfig::new("simulated").segment_bytes(64 << 10).commit_mode(mode)
    }

    fn open(&self, disk: &SimDisk) -> Result<PersistentStateMachine, OpenError> {
        PersistentStateMachine::open_on_disk(disk.open(true)?, self.config())
    }

    /// Opens it for writing, and compares its whole known content.
    fn assert_holds(&self, disk: &SimDisk, what: &str) {
        let machine = self.open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let recovery = machine.recovery();
        assert_eq!(recovery.last.unwrap().index, self.entries, "{what}");
        assert!(!recovery.meta_slot_damaged && recovery.cut.is_none(), "{what}: {recovery:?}");
        self.assert_values(&machine, what);
        let engine = Stepped::new(machine, ApplyConfig::new()).unwrap();
        assert_eq!(engine.log().unwrap().hard_state().unwrap(), self.vote, "{what}");
    }

    fn assert_values(&self, machine: &PersistentStateMachine, what: &str) {
        let applied = machine.recovery().applied.unwrap_or_default();
        assert!(self.vote.is_some() || applied == self.entries, "{what}: {applied}");
        for index in 1..=applied {
            let value = machine.get(format!("key {index}").as_bytes()).unwrap().unwrap();
            assert_eq!(*value, *format!("value {index}").as_bytes(), "{what}");
        }
    }
}

/// The version in each slot.
fn versions(bytes: &[u8]) -> [u8; 2] {
    [bytes[4], bytes[4096 + 4]]
}

/// Proves DUR-17.
#[test]
fn a_directory_of_version_1_is_read_and_not_changed() {
    for kept in kept() {
        let disk = kept.disk();
        let before = files_of(&disk);
        let machine =
            PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap()).unwrap();
        let recovery = machine.recovery();
        assert_eq!(recovery.last.unwrap().index, kept.entries, "{}", kept.name);
        assert_eq!((&recovery.unreadable, recovery.meta_slot_damaged), (&None, false));
        kept.assert_values(&machine, kept.name);
        drop(machine);
        assert_eq!(files_of(&disk), before, "{}", kept.name);

        let scratch = tempfile::tempdir().unwrap();
        let path = write_to(scratch.path(), &before);
        let report = sprag::inspect::verify(&path).unwrap();
        assert!(report.findings.is_empty(), "{}: {report:?}", kept.name);
        let hard_bytes = sprag::inspect::inspect(&path).unwrap().hard_state_bytes;
        assert_eq!(hard_bytes, kept.vote.as_ref().map(Vec::len), "{}", kept.name);
    }
}

/// Proves DUR-17.
#[test]
fn the_first_open_for_writing_raises_both_slots_of_both_files() {
    for kept in kept() {
        let disk = kept.disk();
        drop(kept.open(&disk).unwrap());
        let files = files_of(&disk);
        assert_eq!(versions(&files["META"]), [2, 2], "{}", kept.name);
        // An earlier release checks this first: it refuses an unknown version if the checksum of
        // the slot fits.
        for slot in [0, 4096] {
            let slot = &files["META"][slot..slot + 512];
            let crc = crc32c::crc32c_append(crc32c::crc32c(&slot[..60]), &slot[64..]);
            assert_eq!(slot[60..64], crc.to_le_bytes(), "{}", kept.name);
        }
        assert_eq!(files.contains_key("HARD"), kept.vote.is_some());
        if let Some(hard) = files.get("HARD") {
            assert_eq!(versions(hard), [2, 2], "{}", kept.name);
        }
        kept.assert_holds(&disk, kept.name);
    }
}

/// Proves DUR-17.
#[test]
fn a_power_cut_at_each_write_of_the_upgrade_leaves_everything() {
    for kept in kept() {
        let disk = kept.disk();
        drop(kept.open(&disk).unwrap());
        let operations = disk.operations();
        assert!(operations > 8, "{operations}");
        for n in 0..operations {
            for mask in masks(&kept, n) {
                let what = format!("{}, cut before operation {n}, keeping {mask:#x}", kept.name);
                let disk = cut_at(&kept, n, mask);
                assert_reads(&kept, &disk, &what);
                // The recovery is cut too, at a place that differs from case to case.
                let again = mask.wrapping_mul(7).wrapping_add(n) % operations;
                disk.reset_operations();
                disk.fail_at(again, Fault::PowerCut);
                drop(kept.open(&disk));
                if disk.is_power_off() {
                    disk.power_cut_keeping(!mask);
                }
                disk.reset_operations();
                assert_reads(&kept, &disk, &what);
                kept.assert_holds(&disk, &what);
                disk.power_cut_keeping(0);
                kept.assert_holds(&disk, &what);
                assert_eq!(versions(&files_of(&disk)["META"]), [2, 2], "{what}");
            }
        }
    }
}

/// Subsets of the unsynced sectors that are kept: every one, or a sample of many.
fn masks(kept: &Kept, n: u64) -> Vec<u64> {
    let disk = kept.disk();
    disk.fail_at(n, Fault::PowerCut);
    drop(kept.open(&disk));
    match disk.unsynced() {
        items @ 0..=3 => (0..1 << items).collect(),
        _ => {
            let mut random = Random::new(n);
            [0, u64::MAX, 1, !1].into_iter().chain((0..12).map(|_| random.next_u64())).collect()
        }
    }
}

fn cut_at(kept: &Kept, n: u64, mask: u64) -> SimDisk {
    let disk = kept.disk();
    disk.fail_at(n, Fault::PowerCut);
    drop(kept.open(&disk));
    if disk.is_power_off() {
        disk.power_cut_keeping(mask);
    }
    disk.reset_operations();
    disk
}

fn assert_reads(kept: &Kept, disk: &SimDisk, what: &str) {
    let machine = PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap());
    let machine = machine.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(machine.recovery().unreadable, None, "{what}");
    assert!(!machine.recovery().meta_slot_damaged, "{what}");
    kept.assert_values(&machine, what);
}

#[test]
fn a_failed_write_or_sync_of_the_upgrade_leaves_everything() {
    for kept in kept() {
        let disk = kept.disk();
        drop(kept.open(&disk).unwrap());
        for n in 0..disk.operations() {
            for fault in [Fault::Error(FaultError::Eio), Fault::SyncErrorThenClean] {
                let disk = kept.disk();
                disk.fail_at(n, fault);
                drop(kept.open(&disk));
                let what = format!("{}, {fault:?} at operation {n}", kept.name);
                disk.crash_process();
                kept.assert_holds(&disk, &what);
                disk.power_cut_keeping(0);
                kept.assert_holds(&disk, &what);
            }
        }
    }
}

#[test]
fn a_vote_that_is_lost_while_it_is_upgraded_is_named() {
    for kept in kept().into_iter().filter(|kept| kept.vote.is_some()) {
        let disk = kept.disk();
        drop(kept.open(&disk).unwrap());
        let trace = disk.trace();
        let first = trace.iter().position(|line| line.starts_with("write META")).unwrap();
        for n in first as u64 + 2..disk.operations() {
            let disk = cut_at(&kept, n, 0);
            let mut files = files_of(&disk);
            files.remove("HARD");
            assert_names_hard(&kept, &files);
            let mut files = files_of(&disk);
            files.get_mut("HARD").unwrap().fill(0);
            assert_names_hard(&kept, &files);
        }
    }
}

fn assert_names_hard(kept: &Kept, files: &Files) {
    let disk = disk_with(files);
    let refused = kept.open(&disk).expect_err(kept.name);
    assert!(matches!(&refused, OpenError::Corrupt(place) if place.file == "HARD"), "{refused}");
    assert_eq!(files_of(&disk), *files, "nothing was changed");
    let machine =
        PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap()).unwrap();
    assert_eq!(machine.recovery().unreadable.as_ref().unwrap().file, "HARD");
    drop(machine);
    // Repair forgets it only with its own option.
    let repair = RepairOptions::new().write(true);
    let refused = repair_on_disk(&disk, &SimDisk::new(0), repair).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt(place) if place.file == "HARD"));
    let report = repair_on_disk(&disk, &SimDisk::new(0), repair.forget_hard_state(true)).unwrap();
    assert!(report.repaired);
    let engine = Stepped::new(kept.open(&disk).unwrap(), ApplyConfig::new()).unwrap();
    assert_eq!(engine.log().unwrap().hard_state().unwrap(), None);
}

#[test]
fn a_damaged_vote_of_version_1_is_named_and_repair_goes_back_to_the_one_before() {
    for kept in kept().into_iter().filter(|kept| kept.name.starts_with("hard")) {
        let mut files = kept.files();
        let hard = files.get_mut("HARD").unwrap();
        // The newest slot has the higher sequence.
        let newest = if hard[8] > hard[4096 + 8] { 0 } else { 4096 };
        hard[newest + 70] ^= 1;
        let disk = disk_with(&files);
        let refused = kept.open(&disk).expect_err(kept.name);
        let OpenError::Corrupt(place) = refused else { panic!("{refused}") };
        assert_eq!((&*place.file, place.offset), ("HARD", newest as u64), "{}", kept.name);
        let is_long = kept.vote.as_ref().unwrap().len() > 448;
        assert_eq!(place.what.contains("torn by a crash"), is_long, "{}", place.what);
        let repair = RepairOptions::new().write(true).forget_hard_state(true);
        assert!(repair_on_disk(&disk, &SimDisk::new(0), repair).unwrap().repaired);
        let engine = Stepped::new(kept.open(&disk).unwrap(), ApplyConfig::new()).unwrap();
        let left = engine.log().unwrap().hard_state().unwrap();
        let before = match kept.name {
            "hard_10" => Some(b"vote 00002".to_vec()),
            "hard_3000" => Some(vec![2; 3000]),
            "hard_3000_crashed" => Some(vec![1; 3000]),
            _ => None,
        };
        assert_eq!(left, before, "{}", kept.name);
        engine.log().unwrap().save_hard_state(b"a new vote").unwrap();
        drop(engine);
        let engine = Stepped::new(kept.open(&disk).unwrap(), ApplyConfig::new()).unwrap();
        assert_eq!(
            engine.log().unwrap().hard_state().unwrap().as_deref(),
            Some(&b"a new vote"[..])
        );
    }
}
