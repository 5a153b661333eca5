//! Tests of snapshots and compaction of a running engine, and of opening from them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::generate::Dice;
use crate::common::machines::{compare, memory};
use crate::common::model::Model;
use crate::common::ops::{Cmd, Logged, Op, log_of, with_entries};
use crate::common::{LONG, Persistent, Scratch, apply_config, eventually, manage, refused};
use sprag::error::{LogError, OpenError, SnapshotError};
use sprag::testing::Stepped;
use sprag::{
    ApplyManager, CompactionPolicy, Entry, PersistentStateMachine, Snapshot, StateMachine,
};

/// A log of puts, deletes, counters and batches over few keys, with values of some hundred bytes,
/// so that it soon has several segments.
fn log(seed: u64, first: u64, entries: usize) -> Vec<Logged> {
    let mut dice = Dice::new(seed);
    let mut command = || {
        let key = format!("key-{}", dice.below(40)).into_bytes();
        match dice.below(8) {
            0 => Cmd::Delete { key },
            1 => Cmd::increment(format!("n{}", dice.below(5)), 7),
            _ => Cmd::put(key, vec![dice.below(256) as u8; dice.below(900) as usize]),
        }
    };
    let ops = (0..entries).map(|at| match at % 31 {
        30 => Op::Membership(at.to_le_bytes().to_vec()),
        29 => Op::Batch {
            commands: vec![command(), command()],
            note: Some((b"n".to_vec(), vec![at as u8])),
        },
        _ => Op::One(command()),
    });
    log_of(first, 1, ops.collect::<Vec<_>>())
}

fn apply<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged]) {
    for piece in log.chunks(100) {
        with_entries(piece, |entries| manager.apply_entries_sync(entries, LONG, &mut Vec::new()))
            .unwrap();
    }
}

fn files(directory: &Path, suffix: &str) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

fn check(manager: &Persistent, log: &[Logged]) {
    compare(manager.machine(), &Model::after(log)).unwrap();
}

#[test]
fn a_directory_opens_from_its_snapshot_and_the_log_after_it() {
    let (scratch, log) = (Scratch::new(), log(1, 1, 900));
    let manager = scratch.open();
    apply(&manager, &log[..500]);
    let report = manager.snapshots().write().unwrap();
    assert_eq!(report.log_id, Some(log[499].0));
    assert_eq!(report.keys as usize, Model::after(&log[..500]).state.len());
    assert_eq!(files(&scratch.path(), ".snap"), ["00000000000001f4.snap"]);
    apply(&manager, &log[500..]);
    check(&manager, &log);
    manager.close(LONG).unwrap();

    let manager = scratch.open();
    assert_eq!(manager.stats().recovery.unwrap().snapshot, Some(log[499].0));
    check(&manager, &log);
    let snapshot = manager.snapshots().newest().unwrap().unwrap();
    assert_eq!(snapshot.bytes(), report.bytes);
    assert_eq!(snapshot.log_id(), report.log_id);
}

#[test]
fn a_compaction_removes_the_segments_that_the_snapshot_covers_and_nothing_else() {
    let (scratch, log) = (Scratch::new(), log(2, 1, 3000));
    let manager = crate::common::open(scratch.config().spare_segments(0));
    apply(&manager, &log[..2000]);
    let before = files(&scratch.path(), ".seg");
    assert!(before.len() > 5, "{before:?}");
    let report = manager.snapshots().compact().unwrap();
    let after = files(&scratch.path(), ".seg");
    assert!(report.segments >= before.len() as u64 - 2, "{report:?}");
    assert!(after.len() <= 3 && after.iter().all(|name| !before[..3].contains(name)), "{after:?}");
    check(&manager, &log[..2000]);

    let purged = report.purged.unwrap();
    assert_eq!(purged, 2000, "the log begins right behind the snapshot");
    let state = manager.log().unwrap().state().unwrap();
    assert_eq!((state.purged, state.first), (Some(purged), None));
    apply(&manager, &log[2000..2500]);
    let state = manager.log().unwrap().state().unwrap();
    assert_eq!((state.purged, state.first), (Some(purged), Some(purged + 1)));
    let stats = manager.stats();
    assert_eq!((stats.purged, stats.snapshot), (Some(purged), Some(2000)));
    assert_eq!(stats.machine.last_snapshot, Some(2000));
    let gone = manager.log().unwrap().entries(purged..=purged, 1 << 20);
    assert!(matches!(gone, Err(LogError::NotInLog { index, .. }) if index == purged));
    assert_eq!(manager.log().unwrap().log_id(purged).unwrap(), Some(log[purged as usize - 1].0));
    assert!(!manager.log().unwrap().entries(purged + 1..=2500, 1 << 20).unwrap().is_empty());

    apply(&manager, &log[2500..]);
    check(&manager, &log);
    manager.close(LONG).unwrap();
    for _ in 0..2 {
        let manager = scratch.open();
        check(&manager, &log);
        assert_eq!(manager.log().unwrap().state().unwrap().purged, Some(purged));
        manager.close(LONG).unwrap();
    }
    let image = Scratch::new();
    crate::common::copy_dir(&scratch.path(), &image.path());
    let looking = PersistentStateMachine::open_read_only(image.path()).unwrap();
    compare(&looking, &Model::after(&log)).unwrap();
}

#[test]
fn compactions_follow_each_other_and_leave_one_snapshot() {
    let (scratch, log) = (Scratch::new(), log(3, 1, 4000));
    let manager = scratch.open();
    for (round, piece) in log.chunks(500).enumerate() {
        apply(&manager, piece);
        let report = manager.snapshots().compact().unwrap();
        assert_eq!(report.snapshot.log_id, Some(piece[499].0));
        assert_eq!(files(&scratch.path(), ".snap").len(), 1);
        let (of_the_log, spares) = (3, 4);
        assert!(files(&scratch.path(), ".seg").len() <= of_the_log + spares);
        check(&manager, &log[..(round + 1) * 500]);
    }
    manager.close(LONG).unwrap();
    check(&scratch.open(), &log);
}

#[test]
fn the_entries_to_retain_stay_in_the_log() {
    let (scratch, log) = (Scratch::new(), log(4, 1, 2000));
    let machine = PersistentStateMachine::open(scratch.config().retain_entries(700)).unwrap();
    let manager = manage(machine, apply_config(2));
    apply(&manager, &log);
    let report = manager.snapshots().compact().unwrap();
    let purged = report.purged.unwrap();
    assert!((1..=1300).contains(&purged), "{purged}");
    let entries = manager.log().unwrap().entries(1301..=2000, usize::MAX).unwrap();
    assert_eq!(entries.len(), 700);
}

#[test]
fn a_value_reads_the_same_after_its_segment_was_compacted_away_and_after_close() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let put = |index, key: &[u8], byte| {
        let value = [byte; 3000];
        manager.apply(&Entry::put(index, 1, key, &value), LONG).unwrap();
    };
    put(1, b"old", 1);
    put(2, b"kept", 2);
    for index in 3..60 {
        put(index, b"other", 3);
    }
    let [old, kept] =
        [b"old".as_slice(), b"kept"].map(|key| manager.machine().get(key).unwrap().unwrap());
    let view = manager.snapshots().view().unwrap();
    put(60, b"old", 4);
    manager.snapshots().compact().unwrap();
    manager.snapshots().compact().unwrap();
    assert!(!files(&scratch.path(), ".seg").contains(&"0000000000000001.seg".to_owned()));
    assert_eq!(view.get(b"old").unwrap().unwrap(), &[1; 3000]);
    assert_eq!(view.get(b"kept").unwrap().unwrap(), &[2; 3000]);
    drop(view);
    let from_snapshot = manager.machine().get(b"kept").unwrap().unwrap();
    manager.snapshots().compact().unwrap();
    manager.close(LONG).unwrap();
    assert_eq!((&old[..], &kept[..]), (&[1; 3000][..], &[2; 3000][..]));
    assert_eq!(from_snapshot, &[2; 3000]);
}

#[test]
fn two_snapshots_are_kept_without_a_compaction_and_one_with() {
    let (scratch, log) = (Scratch::new(), log(10, 1, 500));
    let manager = scratch.open();
    for piece in log.chunks(100) {
        apply(&manager, piece);
        manager.snapshots().write().unwrap();
        manager.snapshots().write().unwrap();
    }
    assert_eq!(files(&scratch.path(), ".snap").len(), 2);
    manager.snapshots().compact().unwrap();
    assert_eq!(files(&scratch.path(), ".snap").len(), 1);
    manager.close(LONG).unwrap();
    check(&scratch.open(), &log);
}

/// Proves DUR-20.
#[test]
fn two_engines_fed_the_same_log_write_the_same_snapshot_bytes() {
    let log = log(5, 1, 1500);
    let mut bytes = Vec::new();
    for workers in 1..=4 {
        let scratch = Scratch::new();
        let manager =
            manage(PersistentStateMachine::open(scratch.config()).unwrap(), apply_config(workers));
        apply(&manager, &log[..700]);
        if workers % 2 == 0 {
            manager.snapshots().compact().unwrap();
        }
        apply(&manager, &log[700..]);
        let mut out = Vec::new();
        manager.snapshots().write_to(&mut out).unwrap();
        bytes.push(out);
        let manager = manage(memory(), apply_config(workers));
        apply(&manager, &log);
        let mut out = Vec::new();
        manager.snapshots().write_to(&mut out).unwrap();
        bytes.push(out);
    }
    assert!(bytes.iter().all(|other| *other == bytes[0]));
}

#[test]
fn the_engine_compacts_by_itself_as_its_policy_says_and_the_disk_stays_small() {
    let (scratch, log) = (Scratch::new(), log(8, 1, 20_000));
    let policy = CompactionPolicy::new().garbage_ratio(1.0).log_bytes(128 << 10);
    let machine = PersistentStateMachine::open(scratch.config().compaction(policy)).unwrap();
    let manager = manage(machine, apply_config(2));
    let mut most_segments = 0;
    for piece in log.chunks(500) {
        apply(&manager, piece);
        let segments = || files(&scratch.path(), ".seg").len();
        most_segments = most_segments.max(segments());
        // Only this wait limits the submitter until the engine has compacted.
        assert!(eventually(LONG, || segments() <= 40), "{} segments", segments());
    }
    assert!(eventually(LONG, || manager.stats().compaction.done > 0));
    assert_eq!(manager.stats().compaction.failed, 0);
    assert!(most_segments < 60, "{most_segments} of {}", manager.stats().log_writer.bytes >> 16);
    check(&manager, &log);
    manager.close(LONG).unwrap();
    check(&scratch.open(), &log);
}

#[test]
fn nothing_is_compacted_without_a_policy_nor_by_default_under_consensus() {
    for config in [Scratch::new().config().compaction(None), Scratch::new().by_commit()] {
        let machine = PersistentStateMachine::open(config).unwrap();
        let engine = Stepped::new(machine, apply_config(1)).unwrap();
        assert!(!engine.step_compaction());
    }
    let (scratch, log) = (Scratch::new(), log(9, 1, 600));
    let policy = CompactionPolicy::new().entries(500);
    let machine = PersistentStateMachine::open(scratch.config().compaction(policy)).unwrap();
    let engine = Stepped::new(machine, apply_config(2)).unwrap();
    let submit = |log: &[Logged]| {
        for piece in log.chunks(40) {
            let _ = with_entries(piece, |entries| engine.apply_entries(entries)).unwrap();
            engine.run_until_idle();
        }
    };
    submit(&log[..490]);
    assert!(!engine.step_compaction(), "not so many entries yet");
    submit(&log[490..]);
    assert!(engine.step_compaction() && !engine.step_compaction());
    assert_eq!(engine.stats().compaction.done, 1);
}

#[test]
fn the_engine_does_not_compact_for_segments_that_it_has_to_keep() {
    let log = log(9, 1, 900);
    let policy = CompactionPolicy::new().garbage_ratio(0.0).log_bytes(1);
    for (retain_entries, compacts) in [(1 << 20, false), (500, true)] {
        let scratch = Scratch::new();
        let config = scratch.config().compaction(policy).retain_entries(retain_entries);
        let machine = PersistentStateMachine::open(config).unwrap();
        let engine = Stepped::new(machine, apply_config(1)).unwrap();
        for piece in log[..899].chunks(40) {
            let _ = with_entries(piece, |entries| engine.apply_entries(entries)).unwrap();
            engine.run_until_idle();
        }
        assert!(files(&scratch.path(), ".seg").len() > 2);
        assert_eq!(engine.step_compaction(), compacts, "retaining {retain_entries}");
        let _ = with_entries(&log[899..], |entries| engine.apply_entries(entries)).unwrap();
        engine.run_until_idle();
        assert!(!engine.step_compaction(), "once more, retaining {retain_entries}");
    }
}

#[test]
fn a_damaged_newest_snapshot_falls_back_to_the_log_if_that_still_reaches() {
    let (scratch, log) = (Scratch::new(), log(6, 1, 800));
    let manager = scratch.open();
    apply(&manager, &log[..400]);
    manager.snapshots().write().unwrap();
    apply(&manager, &log[400..600]);
    manager.snapshots().write().unwrap();
    apply(&manager, &log[600..]);
    manager.close(LONG).unwrap();
    let names = files(&scratch.path(), ".snap");
    assert_eq!(names.len(), 2);
    let flip = |name: &str| {
        let path = scratch.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(&path, bytes).unwrap();
    };
    flip(&names[1]);
    let manager = scratch.open();
    let recovery = manager.stats().recovery.unwrap();
    assert_eq!(recovery.snapshot, Some(log[399].0));
    assert_eq!(recovery.damaged_snapshots, names[1..]);
    check(&manager, &log);
    manager.close(LONG).unwrap();
    flip(&names[0]);
    let manager = scratch.open();
    assert_eq!(manager.stats().recovery.unwrap().snapshot, None);
    check(&manager, &log);
}

/// Proves DUR-19.
#[test]
fn nothing_opens_with_a_hole_where_a_damaged_or_missing_snapshot_was() {
    let (scratch, log) = (Scratch::new(), log(7, 1, 2000));
    let manager = scratch.open();
    apply(&manager, &log);
    manager.snapshots().compact().unwrap();
    manager.close(LONG).unwrap();
    let name = files(&scratch.path(), ".snap").remove(0);
    let path = scratch.path().join(&name);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 3] ^= 1;
    fs::write(&path, bytes).unwrap();
    // The state is nowhere else, so the directory opens at once. A read of the damage fails, and
    // the fill ends the engine.
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let told = machine.scan_sorted().unwrap_err().to_string();
    assert!(told.contains(&name) && told.contains("corrupt"), "{told}");
    let engine = Stepped::new(machine, apply_config(1)).unwrap();
    assert!(!engine.step_fill() && engine.poison().is_some());
    assert!(engine.snapshots().compact().is_err());
    drop(engine);
    // Damage in its index is refused.
    let mut bytes = whole.clone();
    let end = bytes.len();
    bytes[end - 80] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(refused(scratch.config()), OpenError::Corrupt(place) if place.file == name));
    fs::remove_file(&path).unwrap();
    assert!(
        matches!(refused(scratch.config()), OpenError::Corrupt(place) if place.file.ends_with(".snap"))
    );
    fs::write(&path, whole).unwrap();
    check(&scratch.open(), &log);
    assert!(Snapshot::open(&path).is_ok());
}

/// Takes snapshots at any index while `log` is applied flat out.
fn taken_under_load<M: StateMachine>(
    manager: &ApplyManager<M>,
    log: &[Logged],
    taken: &mut Vec<(u64, Vec<u8>)>,
) {
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| {
            for piece in log.chunks(9) {
                with_entries(piece, |entries| {
                    while manager.apply_entries(entries).is_err() {
                        assert!(manager.poison().is_none());
                        std::thread::yield_now();
                    }
                });
            }
        });
        while !feeder.is_finished() {
            let mut bytes = Vec::new();
            let report = manager.snapshots().write_to(&mut bytes).unwrap();
            taken.push((report.log_id.map_or(0, |log_id| log_id.index), bytes));
        }
        feeder.join().unwrap();
    });
}

/// Proves DUR-20.
#[test]
fn a_hundred_snapshots_under_load_are_byte_for_byte_those_of_a_serial_engine_at_their_index() {
    let log = log(11, 1, 3000);
    let mut taken = Vec::new();
    for workers in (1..=4).cycle() {
        let manager = manage(memory(), apply_config(workers).pipeline_depth(64));
        taken_under_load(&manager, &log, &mut taken);
        let scratch = Scratch::new();
        let machine =
            PersistentStateMachine::open(scratch.config().segment_bytes(1 << 20)).unwrap();
        let manager = manage(machine, apply_config(workers).pipeline_depth(64));
        taken_under_load(&manager, &log, &mut taken);
        let inside = taken.iter().filter(|(index, _)| (1..3000).contains(index)).count();
        if workers == 4 && inside >= 100 {
            break;
        }
    }
    taken.sort();
    let serial = manage(memory(), apply_config(1));
    let mut applied = 0;
    for (index, bytes) in taken {
        for entry in &log[applied..index as usize] {
            with_entries(std::slice::from_ref(entry), |one| serial.apply(&one[0], LONG)).unwrap();
        }
        applied = index as usize;
        let mut expected = Vec::new();
        serial.snapshots().write_to(&mut expected).unwrap();
        assert!(bytes == expected, "the snapshot at {index} differs");
    }
}

/// Changes a byte of a mapped file in place.
fn rot(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

fn has_rotten(result: Result<impl std::fmt::Debug, SnapshotError>, name: &str, at: u64) {
    match result {
        Err(SnapshotError::Corrupt { file, offset, .. }) => {
            assert_eq!((&*file, offset), (name, at));
        }
        other => panic!("{other:?}"),
    }
}

/// Proves DUR-24.
#[test]
fn a_value_that_rotted_in_the_log_is_not_sealed_in_a_snapshot_and_its_segment_stays() {
    let (scratch, log) = (Scratch::new(), log(11, 1, 1500));
    let manager = crate::common::open(scratch.config().compaction(None));
    apply(&manager, &log[..1000]);
    let before = files(&scratch.path(), ".seg");
    let found = crate::common::frames::frames(&scratch.path());
    let first_index = |frame: &&crate::common::frames::Frame| frame.name() == before[1];
    let frame = found.iter().filter(first_index).nth(1).unwrap();
    let at = (frame.offset + frame.bytes() - 3) as u64;
    rot(&frame.file, at);
    has_rotten(manager.snapshots().compact(), &frame.name(), frame.offset as u64);
    assert!(manager.poison().is_none());
    assert!(
        files(&scratch.path(), ".snap").is_empty() && files(&scratch.path(), ".tmp").is_empty()
    );
    assert!(before.iter().all(|name| files(&scratch.path(), ".seg").contains(name)));
    assert_eq!(manager.log().unwrap().state().unwrap().purged, None);
    apply(&manager, &log[1000..]);
    // A snapshot hides nothing while the log stays; giving the log up does.
    manager.snapshots().write().unwrap();
    match manager.log().unwrap().purge(1500) {
        Err(LogError::Snapshot(error)) => {
            has_rotten(Err::<(), _>(error), &frame.name(), frame.offset as u64);
        }
        other => panic!("{other:?}"),
    }
    let image = scratch.crash_image();
    assert!(matches!(refused(image.config()), OpenError::Corrupt(_)));
    rot(&frame.file, at);
    manager.snapshots().compact().unwrap();
    check(&manager, &log);
}

/// Proves DUR-24.
#[test]
fn a_value_that_rotted_in_the_snapshot_before_is_not_sealed_in_the_next_one() {
    let (scratch, log) = (Scratch::new(), log(12, 1, 900));
    for (reopened, last) in [(false, 850), (true, 900)] {
        let manager = crate::common::open(scratch.config().compaction(None));
        if !reopened {
            apply(&manager, &log[..800]);
            manager.snapshots().compact().unwrap();
        }
        assert!(eventually(LONG, || manager.stats().machine.unfilled_chunks == 0));
        let old = files(&scratch.path(), ".snap").remove(0);
        let path = scratch.path().join(&old);
        apply(&manager, &log[last - 50..last]);
        rot(&path, 4096 + 100);
        has_rotten(manager.snapshots().write(), &old, 4096);
        has_rotten(manager.snapshots().compact(), &old, 4096);
        assert!(manager.poison().is_none());
        assert_eq!(files(&scratch.path(), ".snap"), [&*old]);
        rot(&path, 4096 + 100);
        manager.snapshots().compact().unwrap();
        check(&manager, &log[..last]);
        manager.close(LONG).unwrap();
    }
}
