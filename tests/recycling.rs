//! Tests of recycling: files of segments that a compaction gave up are reused, and nothing of their
//! earlier content comes back.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::common::io::open_over;
use crate::common::{LONG, Persistent, Scratch, apply_config, copy_dir, eventually, open};
use sprag::disk::Disk;
use sprag::error::OpenError;
use sprag::testing::{Fault, FaultError, SimDisk, Stepped};
use sprag::{Entry, IoBackend, PersistentConfig, PersistentStateMachine};

const KEYS: u64 = 20;

fn key(index: u64) -> [u8; 8] {
    (index % KEYS).to_be_bytes()
}

fn value(index: u64) -> Vec<u8> {
    vec![index.to_le_bytes()[0]; 300 + (index % 97) as usize]
}

/// Puts entries `from..=to`, a frame each, and waits until they are acknowledged.
fn put(manager: &Persistent, from: u64, to: u64) {
    for index in from..=to {
        manager.apply(&Entry::put(index, 1, &key(index), &value(index)), LONG).unwrap();
    }
}

fn has_all_to(machine: &PersistentStateMachine, last: u64) {
    for index in last + 1 - KEYS..=last {
        assert_eq!(
            machine.get(&key(index)).unwrap().unwrap(),
            value(index)[..],
            "{index} of {last}"
        );
    }
}

fn segments(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

fn inodes(path: &Path) -> BTreeSet<u64> {
    let inode = |name: &String| fs::metadata(path.join(name)).map(|file| file.ino());
    loop {
        match segments(path).iter().map(inode).collect::<io::Result<_>>() {
            // The file has another name by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.unwrap(),
        }
    }
}

fn config(scratch: &Scratch) -> PersistentConfig {
    scratch.config().compaction(None)
}

fn recycled(manager: &Persistent) -> u64 {
    manager.stats().log_writer.recycled_segments
}

/// Makes several segments, and gives them up.
fn compacted(scratch: &Scratch) -> Persistent {
    let manager = open(config(scratch));
    put(&manager, 1, 600);
    assert!(manager.snapshots().compact().unwrap().segments >= 3);
    manager
}

#[test]
fn segments_that_were_given_up_are_the_next_ones() {
    let scratch = Scratch::new();
    let manager = compacted(&scratch);
    assert_eq!(recycled(&manager), 0);
    let before = inodes(&scratch.path());
    put(&manager, 601, 1000);
    assert!(recycled(&manager) >= 2, "{:?}", manager.stats().log_writer);
    // A file that gets another name while the directory is listed may be missing.
    let same = eventually(LONG, || inodes(&scratch.path()) == before);
    assert!(same, "another file was made, or one removed");
    has_all_to(manager.machine(), 1000);
    drop(manager);
    let machine = PersistentStateMachine::open(config(&scratch)).unwrap();
    assert_eq!(machine.recovery().last.unwrap().index, 1000);
    has_all_to(&machine, 1000);
}

#[test]
fn spare_segments_is_how_many_are_kept() {
    for spares in [0, 2] {
        let scratch = Scratch::new();
        let manager = open(config(&scratch).spare_segments(spares));
        put(&manager, 1, 600);
        let given_up = manager.snapshots().compact().unwrap().segments;
        assert!(given_up >= 3);
        let base = segments(&scratch.path());
        // One file is the log's, and one may be ready for the next segment.
        assert!((spares + 1..=spares + 2).contains(&base.len()), "{spares}: {base:?}");
        put(&manager, 601, 1000);
        assert_eq!(recycled(&manager) > 0, spares > 0);
        has_all_to(manager.machine(), 1000);
    }
}

#[test]
fn what_is_kept_stays_for_the_next_open_and_is_never_taken_for_the_log() {
    let scratch = Scratch::new();
    drop(compacted(&scratch));
    let before = inodes(&scratch.path());
    let manager = open(config(&scratch));
    put(&manager, 601, 900);
    assert!(recycled(&manager) > 0);
    assert!(inodes(&scratch.path()).is_subset(&before), "another file was made");
    drop(manager);
    has_all_to(&PersistentStateMachine::open(config(&scratch)).unwrap(), 900);
}

#[test]
fn a_full_disk_costs_the_files_that_are_kept_before_it_costs_a_snapshot() {
    let mut freed = 0;
    for at in 0.. {
        let sim = SimDisk::new(at);
        let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).compaction(None);
        let disk = sim.open(true).unwrap();
        let machine = PersistentStateMachine::open_on_disk(Arc::clone(&disk), config).unwrap();
        let node = Stepped::new(machine, apply_config(1)).unwrap();
        let put = |from, to| {
            for index in from..=to {
                let _ = node
                    .apply_entries(&[Entry::put(index, 1, &key(index), &value(index))])
                    .unwrap();
                node.run_until_idle();
            }
        };
        put(1, 600);
        node.snapshots().compact().unwrap();
        put(601, 610);
        let kept = |disk: &dyn Disk| {
            let names = disk.list().unwrap();
            names.iter().filter(|name| name.ends_with(".seg")).count()
        };
        let before = kept(&*disk);
        sim.reset_operations();
        sim.fail_at(at, Fault::Error(FaultError::Enospc));
        let written = node.snapshots().write();
        if kept(&*disk) < before {
            freed += 1;
            assert_eq!(written.unwrap().log_id.unwrap().index, 610, "before operation {at}");
        }
        if sim.operations() <= at {
            break;
        }
        // The engine continues in any case.
        put(611, 620);
        assert_eq!(node.stats().acknowledged, Some(620), "before operation {at}");
    }
    assert!(freed > 1);
}

/// A crash leaves the old content of a recycled segment behind the end of the log. That is no torn
/// end, wherever in an old frame the log ends, even in the last of them.
///
/// Proves DUR-25.
#[test]
fn a_crash_in_a_recycled_segment_is_no_cut_wherever_the_log_ends_in_it() {
    let scratch = Scratch::new();
    let manager = open(config(&scratch));
    for index in 1..=60 {
        manager.apply(&Entry::put(index, 1, &key(index), &[9; 9000]), LONG).unwrap();
    }
    assert!(manager.snapshots().compact().unwrap().segments >= 3);
    put(&manager, 61, 100);
    for last in 101..=400 {
        put(&manager, last, last);
        if recycled(&manager) == 0 {
            continue;
        }
        let image = scratch.crash_image();
        let machine = PersistentStateMachine::open(config(&image).strict(true)).unwrap();
        let recovery = machine.recovery();
        assert_eq!((recovery.last.unwrap().index, &recovery.cut), (last, &None));
        has_all_to(&machine, last);
    }
    assert!(recycled(&manager) > 0);
}

#[test]
fn a_torn_group_in_a_recycled_segment_is_cut_and_its_frame_reported() {
    let scratch = Scratch::new();
    let manager = compacted(&scratch);
    put(&manager, 601, 800);
    assert!(recycled(&manager) > 0);
    let image = scratch.crash_image();
    drop(manager);
    let newest = segments(&image.path());
    let found = sprag::inspect::inspect(image.path()).unwrap();
    let tail = found.segments.iter().rfind(|segment| segment.frames > 0).unwrap();
    assert!(newest.contains(&tail.file));
    // The end of the last frame's body did not arrive, so the file's earlier bytes are there.
    let path = image.path().join(&tail.file);
    let mut bytes = fs::read(&path).unwrap();
    let end = usize::try_from(tail.used_bytes).unwrap();
    bytes[end - 100..end].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let refused = PersistentStateMachine::open(config(&image).strict(true)).unwrap_err();
    assert!(matches!(refused, OpenError::Torn { .. }), "{refused}");
    let machine = PersistentStateMachine::open(config(&image)).unwrap();
    let recovery = machine.recovery();
    assert_eq!(recovery.last.unwrap().index, 799);
    assert_eq!(recovery.cut.as_ref().unwrap().indexes, Some((800, 800)));
    has_all_to(&machine, 799);
}

/// Proves DUR-25.
#[test]
fn a_file_that_a_value_still_reads_is_not_used_again() {
    let scratch = Scratch::new();
    let manager = open(config(&scratch).pinned_images(0));
    put(&manager, 1, 20);
    let held = {
        put(&manager, 21, 400);
        // The segment is sealed by now, and read from its file.
        manager.apply(&Entry::put(401, 1, b"held", &[7; 1000]), LONG).unwrap();
        put(&manager, 402, 800);
        manager.machine().get(b"held").unwrap().unwrap()
    };
    let before = inodes(&scratch.path());
    manager.snapshots().compact().unwrap();
    put(&manager, 801, 1400);
    manager.snapshots().compact().unwrap();
    put(&manager, 1401, 2000);
    assert!(recycled(&manager) > 0);
    assert_eq!(held, [7; 1000][..]);
    let gone = before.difference(&inodes(&scratch.path())).count();
    assert!(gone >= 1, "the file of the value was kept");
    manager.close(LONG).unwrap();
    assert_eq!(held, [7; 1000][..]);
}

/// Proves DUR-25.
#[test]
fn a_file_that_somebody_linked_elsewhere_is_not_written_over() {
    let scratch = Scratch::new();
    drop(compacted(&scratch));
    let elsewhere = Scratch::new();
    copy_dir(&scratch.path(), &elsewhere.path());
    let names = segments(&scratch.path());
    for name in &names {
        let (ours, theirs) = (scratch.path().join(name), elsewhere.path().join(name));
        if name != names.last().unwrap() {
            fs::remove_file(&theirs).unwrap();
            fs::hard_link(ours, theirs).unwrap();
        }
    }
    let before = crate::common::dir_bytes(&elsewhere.path());
    let manager = open(config(&scratch));
    put(&manager, 601, 1000);
    assert_eq!(recycled(&manager), 0);
    assert_eq!(crate::common::dir_bytes(&elsewhere.path()), before);
    has_all_to(manager.machine(), 1000);
}

/// Proves DUR-25.
#[test]
fn a_file_of_another_length_is_not_used_again() {
    let scratch = Scratch::new();
    drop(compacted(&scratch));
    let manager = open(config(&scratch).segment_bytes(128 << 10));
    put(&manager, 601, 1400);
    assert_eq!(recycled(&manager), 0);
    has_all_to(manager.machine(), 1400);
}

#[test]
fn the_log_begins_right_behind_the_snapshot_of_a_compaction() {
    let scratch = Scratch::new();
    let manager = open(config(&scratch));
    put(&manager, 1, 300);
    let report = manager.snapshots().compact().unwrap();
    assert_eq!(report.purged, Some(300));
    put(&manager, 301, 310);
    drop(manager);
    let machine = PersistentStateMachine::open(config(&scratch)).unwrap();
    assert_eq!(machine.recovery().frames, 10, "only what is behind it was read");
    has_all_to(&machine, 310);
}

/// The write goes past the page cache, which takes opening the file once more under its current
/// name.
#[test]
fn a_recycled_segment_is_written_by_a_ring_as_any_other() {
    let scratch = Scratch::new();
    let config = || config(&scratch).io(IoBackend::Uring);
    let manager = open_over(IoBackend::Uring, config(), apply_config(2));
    if manager.stats().io_backend != "io_uring" {
        println!("io_uring: refused");
        return;
    }
    put(&manager, 1, 600);
    assert!(manager.snapshots().compact().unwrap().segments >= 3);
    put(&manager, 601, 1000);
    assert!(recycled(&manager) >= 2);
    let open_files = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
        let fd = fd.unwrap();
        let path = fs::read_link(fd.path()).ok()?;
        let info = Path::new("/proc/self/fdinfo").join(fd.file_name());
        path.starts_with(scratch.path()).then(|| fs::read_to_string(info).ok()).flatten()
    });
    let flags = |info: String| {
        let line = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        u32::from_str_radix(line, 8).unwrap()
    };
    // The flag of O_DIRECT. The file system supports it, because it does for the lock file;
    // otherwise there would be no ring. The only open segments are the current one, which is
    // recycled, and the next, to which nothing was written yet.
    let direct = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
    assert!(open_files.map(flags).any(|flags| flags & direct != 0));
    drop(manager);
    has_all_to(&PersistentStateMachine::open(config()).unwrap(), 1000);
}

/// Tests find frames in this way to damage them.
///
/// Proves DUR-25.
#[test]
fn a_plain_reading_finds_the_frames_of_the_log_and_none_of_what_its_files_had_before() {
    let scratch = Scratch::new();
    let manager = compacted(&scratch);
    for last in 601..=800 {
        put(&manager, last, last);
        if recycled(&manager) == 0 || last % 10 != 0 {
            continue;
        }
        let image = scratch.crash_image();
        let found = crate::common::frames::frames(&image.path());
        let machine = PersistentStateMachine::open(config(&image)).unwrap();
        assert_eq!(found.len() as u64, machine.recovery().frames, "after {last}");
        assert_eq!(found.last().unwrap().first_index, last);
    }
    assert!(recycled(&manager) > 0);
}
