//! Tests of META and HARD of a running engine: their content after a crash at any moment, and the
//! report of damage in either.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use crate::common::files::{Files, disk_with, files_of, write_to};
use sprag::error::{Corrupt, LogError, OpenError};
use sprag::testing::{Fault, FaultError, Random, SimDisk, Stepped, repair_on_disk};
use sprag::{
    ApplyConfig, CommitMode, Entry, PersistentConfig, PersistentStateMachine, RepairOptions,
};

type Engine = Stepped<PersistentStateMachine>;

fn open(disk: &SimDisk, mode: CommitMode) -> Result<Engine, OpenError> {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).commit_mode(mode);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true)?, config)?;
    Stepped::new(machine, ApplyConfig::new())
}

fn put(engine: &Engine, index: u64) {
    let taken =
        engine.apply_entries(&[Entry::put(index, 1, &index.to_le_bytes(), b"value")]).unwrap();
    assert_eq!(taken.new, 1);
    engine.run_until_idle();
}

fn close(engine: Engine) {
    engine.into_manager().close(crate::common::LONG).unwrap();
}

fn vote(number: u8) -> Vec<u8> {
    // Use votes of one sector, and of several.
    vec![number; if number.is_multiple_of(2) { 10 } else { 1500 }]
}

/// Opens, votes as long as it works, and closes. Returns the numbers of votes acknowledged, and
/// begun.
fn vote_on(disk: &SimDisk, votes: u8) -> (u8, u8) {
    let Ok(engine) = open(disk, CommitMode::ByCommit) else { return (0, 0) };
    for number in 1..=votes {
        if engine.log().unwrap().save_hard_state(&vote(number)).is_err() {
            return (number - 1, number);
        }
    }
    drop(engine.into_manager().close(crate::common::LONG));
    (votes, votes)
}

fn hard_state(disk: &SimDisk, what: &str) -> Option<Vec<u8>> {
    let engine = open(disk, CommitMode::ByCommit).unwrap_or_else(|error| panic!("{what}: {error}"));
    engine.log().unwrap().hard_state().unwrap()
}

fn assert_voted(found: &Option<Vec<u8>>, acknowledged: u8, begun: u8, what: &str) {
    let may_be = (acknowledged..=begun).map(|number| (number > 0).then(|| vote(number)));
    assert!(may_be.into_iter().any(|vote| vote == *found), "{what}: {acknowledged} to {begun}");
}

/// Proves DUR-8.
#[test]
fn a_power_cut_at_each_write_of_three_votes_leaves_the_last_that_was_acknowledged() {
    let whole = SimDisk::new(1);
    assert_eq!(vote_on(&whole, 3), (3, 3));
    for n in 0..whole.operations() {
        let mut random = Random::new(n);
        let more: [u64; 8] = std::array::from_fn(|_| random.next_u64());
        for mask in [0, u64::MAX, 0x55, 0xaa].into_iter().chain(more) {
            let what = format!("cut before operation {n}, keeping {mask:#x}");
            let disk = SimDisk::new(1);
            disk.fail_at(n, Fault::PowerCut);
            let (acknowledged, begun) = vote_on(&disk, 3);
            disk.power_cut_keeping(mask);
            disk.reset_operations();
            // The next opening is cut too, and the earlier content is still there.
            disk.fail_at(random.next_u64() % 12, Fault::PowerCut);
            drop(open(&disk, CommitMode::ByCommit));
            if disk.is_power_off() {
                disk.power_cut_keeping(random.next_u64());
            }
            disk.reset_operations();
            let found = hard_state(&disk, &what);
            assert_voted(&found, acknowledged, begun, &what);
            // A value that was read once stays, because a reader may have acted on it.
            disk.power_cut_keeping(0);
            assert_eq!(hard_state(&disk, &what), found, "{what}");
            // A later vote counts.
            let engine = open(&disk, CommitMode::ByCommit).unwrap();
            engine.log().unwrap().save_hard_state(b"next").unwrap();
            disk.power_cut_keeping(0);
            drop(engine);
            assert_eq!(hard_state(&disk, &what).as_deref(), Some(&b"next"[..]), "{what}");
        }
    }
}

#[test]
fn a_failed_write_or_sync_of_a_vote_is_final_and_takes_back_none() {
    let whole = SimDisk::new(1);
    vote_on(&whole, 3);
    for n in 0..whole.operations() {
        for fault in [Fault::Error(FaultError::Eio), Fault::SyncErrorThenClean] {
            let what = format!("{fault:?} at operation {n}");
            let disk = SimDisk::new(1);
            let Ok(engine) = open(&disk, CommitMode::ByCommit) else { unreachable!() };
            let before = disk.operations();
            disk.fail_at(before + n, fault);
            let (mut acknowledged, mut begun) = (0, 0);
            for number in 1..=3 {
                begun = number;
                match engine.log().unwrap().save_hard_state(&vote(number)) {
                    Ok(()) => acknowledged = number,
                    Err(error) => {
                        assert!(matches!(error, LogError::Poisoned(_)), "{what}: {error}");
                        assert!(engine.log().unwrap().save_hard_state(b"more").is_err(), "{what}");
                        break;
                    }
                }
            }
            drop(engine);
            disk.crash_process();
            disk.reset_operations();
            let found = hard_state(&disk, &what);
            assert_voted(&found, acknowledged, begun, &what);
            disk.power_cut_keeping(0);
            assert_eq!(hard_state(&disk, &what), found, "{what}");
        }
    }
}

/// The reports of each way to look at a directory: reading, writing, `verify`. None of them changes
/// anything.
fn named(files: &Files, mode: CommitMode) -> [Option<Corrupt>; 3] {
    let disk = disk_with(files);
    let read = PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap());
    let read = match read {
        Ok(machine) => machine.recovery().unreadable.clone(),
        Err(OpenError::Corrupt(place)) => Some(place),
        Err(other) => panic!("{other}"),
    };
    let write = match open(&disk, mode) {
        Ok(_) => None,
        Err(OpenError::Corrupt(place)) => {
            assert_eq!(files_of(&disk), *files, "nothing was changed");
            Some(place)
        }
        Err(other) => panic!("{other}"),
    };
    let scratch = tempfile::tempdir().unwrap();
    let report = sprag::inspect::verify(write_to(scratch.path(), files)).unwrap();
    assert_eq!(report.is_clean(), report.findings.is_empty(), "{report:?}");
    [read, write, report.findings.first().map(|finding| finding.place.clone())]
}

fn voted(votes: u8) -> Files {
    let disk = SimDisk::new(1);
    assert_eq!(vote_on(&disk, votes).0, votes);
    files_of(&disk)
}

/// Proves DUR-8.
#[test]
fn a_hard_that_is_removed_zeroed_or_put_back_is_named_after_one_vote_two_and_three() {
    for votes in 1..=3 {
        let whole = voted(votes);
        assert_eq!(named(&whole, CommitMode::ByCommit), [None, None, None]);
        let mut damaged = Vec::new();
        let mut removed = whole.clone();
        removed.remove("HARD");
        damaged.push(removed);
        for slot in [0, 4096] {
            let mut zeroed = whole.clone();
            zeroed.get_mut("HARD").unwrap()[slot..slot + 4096].fill(0);
            damaged.push(zeroed);
        }
        for earlier in 1..votes {
            let mut older = whole.clone();
            older.insert("HARD".to_owned(), older_hard(votes, earlier));
            damaged.push(older);
        }
        for files in damaged {
            for place in named(&files, CommitMode::ByCommit) {
                assert_eq!(place.expect("it is named").file, "HARD", "{votes} votes");
            }
        }
    }
}

/// HARD as it was after some of the votes, of the same directory.
fn older_hard(votes: u8, earlier: u8) -> Vec<u8> {
    let disk = SimDisk::new(1);
    let engine = open(&disk, CommitMode::ByCommit).unwrap();
    let mut hard = Vec::new();
    for number in 1..=votes {
        engine.log().unwrap().save_hard_state(&vote(number)).unwrap();
        if number == earlier {
            hard = disk.read_file("HARD").unwrap();
        }
    }
    hard
}

#[test]
fn a_restored_or_new_directory_has_no_hard_and_misses_none() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, CommitMode::OnAppend).unwrap();
    put(&engine, 1);
    close(engine);
    let files = files_of(&disk);
    assert!(!files.contains_key("HARD"));
    assert_eq!(named(&files, CommitMode::OnAppend), [None, None, None]);
}

/// A closed directory with `entries` entries.
fn closed(entries: u64) -> Files {
    let disk = SimDisk::new(1);
    let engine = open(&disk, CommitMode::OnAppend).unwrap();
    (1..=entries).for_each(|index| put(&engine, index));
    close(engine);
    files_of(&disk)
}

const SEGMENT: &str = "0000000000000001.seg";

#[test]
fn a_zeroed_slot_of_meta_hides_no_lost_frame_after_one_put_and_three() {
    for entries in [1, 3] {
        let whole = closed(entries);
        let frames: Vec<usize> = (0..whole[SEGMENT].len())
            .step_by(64)
            .filter(|at| whole[SEGMENT][*at..*at + 4] == *b"SPRG")
            .collect();
        let last = *frames.last().unwrap();
        for slot in [0, 4096] {
            let mut files = whole.clone();
            files.get_mut("META").unwrap()[slot..slot + 512].fill(0);
            // The log alone is whole, and its end is what the other slot says. So the directory
            // opens, and the slot is reported.
            let disk = disk_with(&files);
            let engine = open(&disk, CommitMode::OnAppend).unwrap();
            let recovery = engine.machine().recovery();
            assert!(recovery.meta_slot_damaged);
            assert_eq!(recovery.last.unwrap().index, entries);
            drop(engine);
            let [.., verified] = named(&files, CommitMode::OnAppend);
            let verified = verified.expect("the slot is named");
            assert_eq!((&*verified.file, verified.offset), ("META", slot as u64));

            files.get_mut(SEGMENT).unwrap()[last..].fill(0);
            let [read, written, _] = named(&files, CommitMode::OnAppend);
            for place in [read, written] {
                let place = place.expect("the frame is named");
                assert_eq!((&*place.file, place.offset), (SEGMENT, last as u64));
            }
        }
    }
}

/// A directory that was killed after `openings` openings, with two entries from each.
fn killed(openings: u64) -> Files {
    let disk = SimDisk::new(1);
    for opening in 0..openings {
        let engine = open(&disk, CommitMode::OnAppend).unwrap();
        put(&engine, 2 * opening + 1);
        put(&engine, 2 * opening + 2);
        if opening + 1 < openings {
            close(engine);
        } else {
            disk.crash_process();
        }
    }
    files_of(&disk)
}

/// The offset of META's newest slot.
fn newest_slot(meta: &[u8]) -> usize {
    let sequence = |at: usize| u64::from_le_bytes(meta[at + 8..at + 16].try_into().unwrap());
    if sequence(0) > sequence(4096) { 0 } else { 4096 }
}

#[test]
fn a_lost_slot_of_meta_that_may_have_known_the_end_keeps_the_log_from_being_opened_to_write() {
    for openings in [1, 2, 3] {
        let whole = killed(openings);
        let newest = newest_slot(&whole["META"]);
        for slot in [0, 4096] {
            let mut files = whole.clone();
            files.get_mut("META").unwrap()[slot + 100] ^= 1;
            let disk = disk_with(&files);
            // The first two slots of a directory say the same. After a close the newest slot
            // belongs to the opening, of which the frames tell, and the one before it to the close.
            // A lost slot that is older may have been newer.
            let is_proved = slot == newest;
            if is_proved {
                let engine = open(&disk, CommitMode::OnAppend).unwrap();
                assert!(engine.machine().recovery().meta_slot_damaged);
                assert_eq!(engine.machine().recovery().last.unwrap().index, 2 * openings);
                continue;
            }
            let refused = open(&disk, CommitMode::OnAppend).unwrap_err();
            let OpenError::Corrupt(place) = refused else { panic!("{refused}") };
            assert_eq!((&*place.file, place.offset), ("META", slot as u64), "{openings}");
            assert_eq!(files_of(&disk), files, "nothing was changed");
            // Repair decides, and loses none of it.
            let repair = RepairOptions::new().write(true);
            let report = repair_on_disk(&disk, &SimDisk::new(0), repair).unwrap();
            assert!(report.repaired && report.log.is_none());
            let engine = open(&disk, CommitMode::OnAppend).unwrap();
            assert_eq!(engine.machine().recovery().last.unwrap().index, 2 * openings);
        }
    }
}

#[test]
fn a_compaction_records_how_far_hard_had_come() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, CommitMode::ByCommit).unwrap();
    for number in 1..=3 {
        let index = u64::from(number);
        let taken = engine
            .consensus()
            .unwrap()
            .append(&[Entry::put(index, 1, b"key", &[7; 8000])])
            .unwrap();
        assert_eq!(taken.new, 1);
        engine.consensus().unwrap().commit(index).unwrap();
        engine.run_until_idle();
        engine.log().unwrap().save_hard_state(&vote(number)).unwrap();
    }
    let hard = older_hard(3, 2);
    engine.snapshots().compact().unwrap();
    disk.crash_process();
    drop(engine);
    let mut files = files_of(&disk);
    assert_eq!(hard.len(), files["HARD"].len());
    files.insert("HARD".to_owned(), hard);
    for place in named(&files, CommitMode::ByCommit) {
        assert_eq!(place.expect("it is named").file, "HARD");
    }
}

#[test]
fn a_repair_of_meta_says_no_more_of_hard_than_is_durable() {
    // A vote needs its write and its sync, and the first one everything that makes HARD.
    for (votes, operations) in [(0, 12), (2, 2)] {
        for n in 0..operations {
            let what = format!("operation {n} after {votes} votes");
            let disk = SimDisk::new(1);
            close(open(&disk, CommitMode::ByCommit).unwrap());
            let engine = open(&disk, CommitMode::ByCommit).unwrap();
            (1..=votes)
                .for_each(|number| engine.log().unwrap().save_hard_state(&vote(number)).unwrap());
            disk.fail_at(disk.operations() + n, Fault::SyncErrorThenClean);
            let acknowledged =
                votes + u8::from(engine.log().unwrap().save_hard_state(&vote(votes + 1)).is_ok());
            drop(engine);
            disk.crash_process();
            disk.reset_operations();
            // The slot of META that does not count is damaged, and repaired.
            let other = 4096 - newest_slot(&files_of(&disk)["META"]) as u64;
            assert!(disk.corrupt("META", other + 100, 1));
            let repair = RepairOptions::new().write(true);
            let report = repair_on_disk(&disk, &SimDisk::new(0), repair).unwrap();
            assert!(report.repaired && report.hard.is_none(), "{what}");
            disk.power_cut_keeping(0);
            assert_voted(&hard_state(&disk, &what), acknowledged, votes + 1, &what);
        }
    }
}
