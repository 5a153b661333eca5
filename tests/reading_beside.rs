//! Tests of reading a directory that is damaged, full, or open for writing.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]

use crate::common::io;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sprag::error::OpenError;
use sprag::inspect::{dump, inspect, verify};
use sprag::testing::{SimDisk, Stepped};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Entry, IoBackend, PersistentConfig,
    PersistentStateMachine,
};

const TIMEOUT: Duration = Duration::from_secs(20);

fn open(config: PersistentConfig) -> ApplyManager<PersistentStateMachine> {
    io::manage(PersistentStateMachine::open(config).unwrap(), ApplyConfig::new())
}

fn config(path: &Path) -> PersistentConfig {
    io::config(path).segment_bytes(64 << 10).expected_keys(64)
}

fn key(index: u64) -> Vec<u8> {
    format!("key {}", index % 50).into_bytes()
}

/// A value so long that a few hundred take several segments, and whose content shows whether all of
/// it is from one write.
fn value(index: u64) -> Vec<u8> {
    index.to_le_bytes().repeat(40)
}

fn put(manager: &ApplyManager<PersistentStateMachine>, index: u64) {
    manager.apply(&Entry::put(index, 1, &key(index), &value(index)), TIMEOUT).unwrap();
}

fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Proves DUR-16.
#[test]
fn a_damaged_directory_is_read_up_to_the_damage_and_says_where_that_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let manager = open(config(&path));
    (1..=300).for_each(|index| put(&manager, index));
    manager.close(TIMEOUT).unwrap();
    let mut offset = 0;
    let mut file = String::new();
    sprag::inspect::frames(&path, &mut |frame| {
        if frame.first.index == 200 {
            (file, offset) = (frame.file.clone(), frame.offset);
        }
        Ok(())
    })
    .unwrap();
    let mut bytes = fs::read(path.join(&file)).unwrap();
    bytes[offset as usize + 140] ^= 1;
    fs::write(path.join(&file), &bytes).unwrap();
    let before = files(&path);

    let refused = PersistentStateMachine::open(config(&path)).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt(_)));
    let machine = PersistentStateMachine::open_read_only(&path).unwrap();
    let recovery = machine.recovery();
    let unreadable = recovery.unreadable.clone().unwrap();
    assert_eq!((&unreadable.file, unreadable.offset, unreadable.index), (&file, offset, Some(200)));
    assert_eq!((recovery.applied, recovery.frames, recovery.cut.is_none()), (Some(199), 199, true));
    assert_eq!(machine.get(&key(199)).unwrap().unwrap(), value(199)[..]);
    assert_eq!(machine.get(&key(200)).unwrap().unwrap(), value(150)[..]);
    assert_eq!(files(&path), before, "not a byte was changed");
    assert!(!recovery.beside_a_writer);
}

#[test]
fn a_damaged_hard_state_keeps_nothing_else_from_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let manager = open(config(&path).commit_mode(CommitMode::ByCommit));
    let _ = manager.consensus().unwrap().append(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    manager.consensus().unwrap().commit(1).unwrap();
    manager.log().unwrap().save_hard_state(b"vote").unwrap();
    manager.close(TIMEOUT).unwrap();
    let mut hard = fs::read(path.join("HARD")).unwrap();
    hard[4096 + 70] ^= 1;
    fs::write(path.join("HARD"), &hard).unwrap();
    let machine = PersistentStateMachine::open_read_only(&path).unwrap();
    assert_eq!(machine.recovery().unreadable.as_ref().unwrap().file, "HARD");
    assert_eq!(machine.get(b"key").unwrap().unwrap(), *b"value");
}

#[test]
fn a_full_disk_is_opened_read_only() {
    let disk = SimDisk::new(1);
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
    let machine =
        PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config.clone()).unwrap();
    let engine = Stepped::new(machine, ApplyConfig::new()).unwrap();
    let _ = engine.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    engine.run_until_idle();
    disk.crash_process();
    drop(engine);
    disk.set_capacity(Some(0));
    disk.reset_operations();
    let disk_read = disk.open(false).unwrap();
    let machine = PersistentStateMachine::open_read_only_on_disk(disk_read).unwrap();
    assert_eq!(machine.get(b"key").unwrap().unwrap(), *b"value");
    assert_eq!(disk.trace(), Vec::<String>::new(), "reading asks for no space");
}

/// One thread writes while others open, check every value against its index, and inspect the
/// directory.
fn read_beside(io: IoBackend) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let manager = io::open_over(io, config(&path), ApplyConfig::new());
    put(&manager, 1);
    let (acknowledged, done) = (AtomicU64::new(1), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for index in 2.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                put(&manager, index);
                acknowledged.store(index, Ordering::Release);
            }
        });
        let read = || {
            for _ in 0..8 {
                let least = acknowledged.load(Ordering::Acquire);
                let machine = PersistentStateMachine::open_read_only(&path).unwrap();
                let recovery = machine.recovery();
                assert!(recovery.beside_a_writer);
                assert_eq!((&recovery.unreadable, &recovery.cut), (&None, &None));
                let last = recovery.applied.unwrap();
                assert!(last >= least, "{last} instead of the acknowledged {least}");
                for index in last.saturating_sub(49).max(1)..=last {
                    let found = machine.get(&key(index)).unwrap().unwrap();
                    assert_eq!(found, value(index)[..], "index {index} of {last}");
                }
                let report = verify(&path).unwrap();
                assert!(report.beside_a_writer);
                assert_eq!(report.findings, []);
                assert!(report.entries >= last);
                let inspection = inspect(&path).unwrap();
                assert_eq!((inspection.damage, inspection.cut), (None, None));
                let mut next = 1;
                let summary = dump(&path, .., &mut |entry| {
                    assert_eq!(entry.log_id.index, next);
                    next += 1;
                    Ok(())
                })
                .unwrap();
                assert_eq!(summary.last.unwrap().index + 1, next);
            }
        };
        // A reader that fails must end the writer too, or the test would hang.
        let outcome =
            thread::scope(|readers| readers.spawn(read).join().and(readers.spawn(read).join()));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
    manager.close(TIMEOUT).unwrap();
}

/// Proves DUR-32.
#[test]
fn beside_a_writer_that_uses_pwrite_a_prefix_with_all_that_was_acknowledged_is_seen() {
    read_beside(IoBackend::Pwrite);
}

/// Proves DUR-32.
#[test]
fn beside_a_writer_that_uses_an_io_uring_a_prefix_with_all_that_was_acknowledged_is_seen() {
    read_beside(IoBackend::Uring);
}

#[test]
fn damage_is_found_beside_a_writer_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let manager = open(config(&path));
    (1..=100).for_each(|index| put(&manager, index));
    let mut place = None;
    sprag::inspect::frames(&path, &mut |frame| {
        if frame.first.index == 50 {
            place = Some((frame.file.clone(), frame.offset));
        }
        Ok(())
    })
    .unwrap();
    let (file, offset) = place.unwrap();
    let damaged = fs::OpenOptions::new().write(true).open(path.join(&file)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&damaged, b"\xff", offset + 140).unwrap();
    let machine = PersistentStateMachine::open_read_only(&path).unwrap();
    let unreadable = machine.recovery().unreadable.as_ref().unwrap();
    assert_eq!((&unreadable.file, unreadable.offset), (&file, offset));
    assert_eq!(machine.recovery().applied, Some(49));
    let report = verify(&path).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert!(!report.is_clean());
    drop(manager);
}

/// Bytes that system calls gave to this thread.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn after_a_clean_close_nothing_behind_the_end_of_the_log_is_read() {
    type Read<'a> = (&'a str, &'a dyn Fn(&Path));
    if fs::read_to_string("/proc/thread-self/io").is_err() {
        println!("skipped: this system does not count what a thread reads");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    // The segments have the usual length, most of which is reserved and not used.
    let manager = open(io::config(&path));
    (1..=50).for_each(|index| put(&manager, index));
    let while_open = bytes_read();
    PersistentStateMachine::open_read_only(&path).unwrap();
    let while_open = bytes_read() - while_open;
    manager.close(TIMEOUT).unwrap();
    let log_bytes = fs::metadata(path.join("0000000000000001.seg")).unwrap().len();
    let reads: [Read<'_>; 4] = [
        ("get", &|path| {
            let machine = PersistentStateMachine::open_read_only(path).unwrap();
            assert!(machine.get(&key(1)).unwrap().is_some());
        }),
        ("inspect", &|path| assert_eq!(inspect(path).unwrap().last.unwrap().index, 50)),
        ("dump", &|path| drop(dump(path, .., &mut |_| Ok(())).unwrap())),
        ("frames", &|path| sprag::inspect::frames(path, &mut |_| Ok(())).unwrap()),
    ];
    for (what, read) in reads {
        let before = bytes_read();
        read(&path);
        let bytes = bytes_read() - before;
        // Opening reads the log itself, in blocks of 64 KiB, and META; some of it twice.
        assert!(bytes <= 512 << 10, "{what}: {bytes} of {log_bytes}");
    }
    println!("beside a writer: {while_open} bytes");
    let before = bytes_read();
    assert!(verify(&path).unwrap().is_clean());
    assert!(bytes_read() - before >= log_bytes, "verify reads every byte");
}
