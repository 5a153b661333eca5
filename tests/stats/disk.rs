//! Tests of figures of the disk: writes, snapshots, compactions, and the findings of opening.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sprag::error::SnapshotError;
use sprag::testing::SimDisk;
use sprag::{
    ApplyStats, CompactionPolicy, Durability, Entry, EntryRange, Fatal, Journaled, LogId,
    Partition, PersistentStateMachine, Replies, SnapshotSink, StateMachine,
};

use super::{Own, fill, one_worker, opaque, stepped, stepped_with};
use crate::common::frames::{HEADER_BYTES, flip, frames};
use crate::common::{LONG, Scratch, apply_config, manage};

#[test]
fn the_log_writer_counts_what_it_wrote_and_synced() {
    let engine = stepped(&SimDisk::new(1), one_worker());
    let before = engine.stats().log_writer;
    let shown = || {
        let now = engine.stats().log_writer;
        let frames = now.durable_sequence - before.durable_sequence;
        (now.groups - before.groups, now.syncs - before.syncs, now.bytes - before.bytes, frames)
    };
    let _ = engine.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    assert_eq!(shown(), (0, 0, 0, 0));
    engine.run_until_idle();
    // A frame is a header of 128 bytes, and 16 of the entry.
    assert_eq!(shown(), (1, 1, 144, 1));
    let _ = engine.apply_entries(&[Entry::put(2, 1, b"key", b"value")]).unwrap();
    engine.run_until_idle();
    // A frame begins at a multiple of 64 bytes.
    assert_eq!(shown(), (2, 2, 192 + 144, 2));

    let engine = stepped_with(&SimDisk::new(1), one_worker(), |config| {
        config.durability(Durability::Periodic(Duration::from_secs(1)))
    });
    let _ = engine.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    engine.run_until_idle();
    let stats = engine.stats().log_writer;
    assert_eq!((stats.groups, stats.syncs), (1, 0));
    engine.advance(Duration::from_secs(1));
    engine.run_until_idle();
    let stats = engine.stats().log_writer;
    assert_eq!((stats.groups, stats.syncs), (1, 1));
}

#[test]
fn a_write_that_fails_is_not_counted_as_written() {
    let disk = SimDisk::new(1);
    let engine = stepped(&disk, one_worker());
    let before = engine.stats().log_writer;
    let _ = engine.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    disk.crash_process();
    engine.run_until_idle();
    assert!(engine.poison().is_some());
    let after = engine.stats();
    assert_eq!(after.log_writer, before);
    assert_eq!(after.acknowledged, None);
}

#[test]
fn snapshots_and_compactions_are_counted() {
    let scratch = Scratch::new();
    let config = scratch.config().segment_bytes(64 << 10).compaction(None);
    let machine = PersistentStateMachine::open(config).unwrap();
    let manager = manage(machine, apply_config(1));
    fill(&manager, 1, 10);
    let shown = || {
        let stats = manager.stats();
        let CompactionFigures { done, failed } = CompactionFigures::of(&stats);
        (stats.snapshot, stats.machine.last_snapshot, stats.purged, done, failed)
    };
    assert_eq!(shown(), (None, None, None, 0, 0));
    manager.snapshots().write().unwrap();
    assert_eq!(shown(), (Some(10), Some(10), None, 0, 0));
    fill(&manager, 11, 200);
    let report = manager.snapshots().compact().unwrap();
    assert_eq!(report.snapshot.log_id.map(|last| last.index), Some(210));
    assert!(report.segments > 1);
    assert_eq!(shown(), (Some(210), Some(210), report.purged, 1, 0));
    assert!(report.purged.is_some_and(|purged| (100..=210).contains(&purged)));
    // Each segment that takes a recycled file counts, and none before.
    assert_eq!(manager.stats().log_writer.recycled_segments, 0);
    fill(&manager, 211, 200);
    let recycled = manager.stats().log_writer.recycled_segments;
    assert!((1..=4).contains(&recycled), "{recycled} of at most 4 spare ones");
    manager.snapshots().compact().unwrap();
    assert_eq!(CompactionFigures::of(&manager.stats()).done, 2);
}

#[test]
fn the_disk_is_told_by_what_takes_it() {
    let scratch = Scratch::new();
    let config = scratch.config().segment_bytes(64 << 10).compaction(None);
    let machine = PersistentStateMachine::open(config).unwrap();
    let manager = manage(machine, apply_config(1));
    let first = manager.stats().disk;
    assert_eq!((first.segments, first.segment_bytes), (1, 64 << 10));
    assert_eq!((first.spare_bytes, first.snapshot_bytes), (0, 0));
    fill(&manager, 1, 200);
    // The last file may belong to the next segment, which is made ready ahead.
    let are_all = |files: u64| {
        let now = manager.stats().disk;
        assert_eq!(now.segment_bytes, now.segments * (64 << 10));
        let shown = (now.segment_bytes + now.spare_bytes) / (64 << 10);
        assert!((files - 1..=files).contains(&shown), "{shown} of {files}");
        now
    };
    let full = are_all(names(&scratch, ".seg").len() as u64);
    assert_eq!((full.segments > 2, full.spare_bytes), (true, 0));
    let report = manager.snapshots().compact().unwrap();
    let after = are_all(names(&scratch, ".seg").len() as u64);
    assert!(after.segments < full.segments && after.spare_bytes > 0);
    assert_eq!(after.snapshot_bytes, report.snapshot.bytes);
    manager.close(LONG).unwrap();
}

struct CompactionFigures {
    done: u64,
    failed: u64,
}

impl CompactionFigures {
    fn of(stats: &ApplyStats) -> Self {
        Self { done: stats.compaction.done, failed: stats.compaction.failed }
    }
}

#[test]
fn a_compaction_that_fails_is_counted_until_one_is_done() {
    /// A machine that has snapshots once it has two entries.
    #[derive(Default)]
    struct Late(Own);
    impl StateMachine for Late {
        fn apply(
            &self,
            range: &EntryRange<'_>,
            partition: Partition,
            replies: &mut Replies<'_>,
        ) -> Result<(), Fatal> {
            self.0.apply(range, partition, replies)
        }

        fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
            if self.0.0.load(Ordering::Relaxed) < 2 {
                return Err(SnapshotError::Unsupported { what: "so few entries" });
            }
            self.0.snapshot(out)
        }
    }
    let scratch = Scratch::new();
    let config = scratch.config().compaction(None::<CompactionPolicy>);
    let manager = manage(Journaled::open(config, Late::default()).unwrap(), apply_config(1));
    manager.apply(&opaque(1), LONG).unwrap();
    for failed in 1..=2 {
        manager.snapshots().compact().unwrap_err();
        let compaction = manager.stats().compaction;
        assert_eq!((compaction.done, compaction.failed), (0, failed));
        assert!(compaction.last_error.unwrap().contains("so few entries"));
    }
    manager.apply(&opaque(2), LONG).unwrap();
    manager.snapshots().compact().unwrap();
    let compaction = manager.stats().compaction;
    assert_eq!((compaction.done, compaction.failed, compaction.last_error), (1, 2, None));
}

#[test]
fn a_compaction_without_room_is_counted_as_such() {
    let disk = SimDisk::new(1);
    let engine = stepped_with(&disk, one_worker(), |config| config.compaction(None));
    for index in 1..=100 {
        let _ =
            engine.apply_entries(&[Entry::put(index, 1, &index.to_le_bytes(), &[7; 500])]).unwrap();
    }
    engine.run_until_idle();
    disk.set_capacity(Some(0));
    let error = engine.snapshots().compact().unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    let compaction = engine.stats().compaction;
    assert_eq!((compaction.failed, compaction.failed_disk_full), (1, 1));
    disk.set_capacity(None);
    engine.snapshots().compact().unwrap();
    assert_eq!(engine.stats().compaction.failed_disk_full, 1);
}

#[test]
fn recovery_says_what_opening_found() {
    let scratch = Scratch::new();
    let config = || scratch.config().segment_bytes(64 << 10).compaction(None);
    let open = || manage(PersistentStateMachine::open(config()).unwrap(), apply_config(1));
    let manager = open();
    let first = manager.stats().recovery.unwrap();
    assert_eq!((first.last, first.applied, first.frames), (None, None, 0));
    assert_eq!((first.cut, first.snapshot, first.purged), (None, None, None));
    assert!(!first.meta_slot_damaged && !first.beside_a_writer);
    // The file system locks directories wherever the test can run.
    assert_eq!(first.directory_lock_refused, None);
    assert_eq!(first.foreign, sprag::ForeignFiles::default());
    for index in 1..=3 {
        manager.apply(&Entry::put(index, 1, b"k", b"v"), LONG).unwrap();
    }
    let beside = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    assert!(beside.recovery().beside_a_writer);
    drop(beside);
    manager.close(LONG).unwrap();

    let manager = open();
    let found = manager.stats().recovery.unwrap();
    let last = Some(LogId::new(3, 1));
    assert_eq!((found.last, found.applied, found.frames), (last, Some(3), 3));
    fill(&manager, 4, 200);
    let purged = manager.snapshots().compact().unwrap().purged;
    manager.close(LONG).unwrap();

    std::fs::write(scratch.path().join("notes.txt"), b"a file that is not the engine's").unwrap();
    let manager = open();
    let found = manager.stats().recovery.unwrap();
    assert_eq!((found.last, found.applied), (Some(LogId::new(203, 1)), Some(203)));
    assert_eq!((found.snapshot, found.frames), (found.last, 0));
    assert_eq!(found.purged.map(|purged| purged.index), purged);
    assert_eq!((found.foreign.count, &found.foreign.names[..]), (1, &["notes.txt".to_owned()][..]));
    manager.close(LONG).unwrap();
}

#[test]
fn recovery_says_what_is_damaged() {
    let scratch = Scratch::new();
    let config = || scratch.config().compaction(None);
    let open = || manage(PersistentStateMachine::open(config()).unwrap(), apply_config(1));
    let manager = open();
    for index in 1..=10 {
        manager.apply(&Entry::put(index, 1, b"k", b"v"), LONG).unwrap();
    }
    // Tear the last frame, as a crash does.
    let killed = scratch.crash_image();
    let frame = frames(&killed.path()).pop().unwrap();
    frame.flip(HEADER_BYTES, 1);
    let machine = PersistentStateMachine::open(killed.config()).unwrap();
    let cut = machine.recovery().cut.clone().unwrap();
    let start = cut.offset.next_multiple_of(64);
    assert_eq!((cut.file, start), (frame.name(), frame.offset as u64));
    assert_eq!(machine.recovery().last.map(|last| last.index), Some(9));

    manager.snapshots().write().unwrap();
    manager.apply(&Entry::put(11, 1, b"k", b"v"), LONG).unwrap();
    manager.snapshots().write().unwrap();
    manager.close(LONG).unwrap();
    let names = names(&scratch, ".snap");
    let middle = std::fs::metadata(scratch.path().join(&names[1])).unwrap().len() / 2;
    flip(&scratch.path().join(&names[1]), usize::try_from(middle).unwrap(), 1);
    let manager = open();
    let found = manager.stats().recovery.unwrap();
    assert_eq!(found.damaged_snapshots, names[1..]);
    assert_eq!((found.snapshot, found.unreadable), (Some(LogId::new(10, 1)), None));
    manager.close(LONG).unwrap();

    let read_only = || PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    assert!(!read_only().recovery().meta_slot_damaged);
    flip(&scratch.path().join("META"), 5, 1);
    assert!(read_only().recovery().meta_slot_damaged);
    flip(&scratch.path().join("META"), 5, 1);
    let frame = frames(&scratch.path()).into_iter().find(|frame| frame.first_index == 11).unwrap();
    frame.flip(HEADER_BYTES, 1);
    let unreadable = read_only().recovery().unreadable.clone().unwrap();
    assert_eq!((unreadable.file, unreadable.offset), (frame.name(), frame.offset as u64));
    assert_eq!(unreadable.index, Some(11));
}

/// The file names with this ending, sorted.
fn names(scratch: &Scratch, end: &str) -> Vec<String> {
    let files = std::fs::read_dir(scratch.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(end)).collect();
    names.sort();
    names
}
