//! Tests of a META that is older than the log or the snapshots beside it: it is named, nothing is
//! removed, and repair loses nothing.

use std::collections::BTreeMap;

use sprag::error::{Corrupt, OpenError};
use sprag::testing::{SimDisk, repair_on_disk};
use sprag::{PersistentStateMachine, RepairOptions, RepairReport, StateMachine};

use crate::simulation::snapshots::Take;
use crate::simulation::world::{Crash, Shape, World};

type Files = BTreeMap<String, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    let names = disk.file_names().into_iter();
    names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// Makes a file read as `bytes`, which has the file's length.
fn put_back(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let now = disk.read_file(name).unwrap();
    assert_eq!(now.len(), bytes.len());
    for (at, (now, then)) in now.iter().zip(bytes).enumerate() {
        assert!(now == then || disk.corrupt(name, at as u64, now ^ then));
    }
}

/// Actions of an opening before it is closed or killed.
#[derive(Clone, Copy)]
enum Do {
    Apply(usize),
    Compact,
    Kill,
}

/// Puts META back as the first opening left it after `before`; another opening did `after`.
fn older(shape: Shape, before: &[Do], after: &[Do]) -> World {
    let mut world = World::new(3, shape);
    life(&mut world, before);
    let meta = world.disk.read_file("META").unwrap();
    life(&mut world, after);
    put_back(&world.disk, "META", &meta);
    world
}

fn life(world: &mut World, steps: &[Do]) {
    let node = world.open_whole().unwrap();
    for step in steps {
        match step {
            Do::Apply(entries) => world.drive(&node, *entries).unwrap(),
            Do::Compact => assert!(world.take(&node, Take::Compaction).unwrap()),
            Do::Kill => {
                drop(node);
                return world.crash(Crash::Process);
            }
        }
    }
    node.run_until_idle();
    node.close().unwrap();
    world.crash(Crash::Process);
}

fn shape() -> Shape {
    Shape { value_bytes_max: 2500, ..Shape::plain() }
}

/// Checks that opening for writing is refused and changes nothing, and that reading says the same.
fn refused(world: &World) -> Corrupt {
    let before = files(&world.disk);
    let opened =
        PersistentStateMachine::open_on_disk(world.disk.open(true).unwrap(), world.config());
    let Err(OpenError::Corrupt(place)) = opened else { panic!("not refused: {opened:?}") };
    assert!(files(&world.disk) == before, "a refused directory was changed");
    let read =
        PersistentStateMachine::open_read_only_on_disk(world.disk.open(false).unwrap()).unwrap();
    assert_eq!(read.recovery().unreadable.as_ref(), Some(&place));
    place
}

fn repair(world: &World, write: bool) -> RepairReport {
    let options = RepairOptions::new().write(write);
    repair_on_disk(&world.disk, &SimDisk::new(0), options).unwrap()
}

/// Reports a repair and changes nothing; then repairs, and checks that `entries` entries are there,
/// and that the log continues.
fn repaired(world: &mut World, entries: usize) -> RepairReport {
    let before = files(&world.disk);
    let look = repair(world, false);
    assert!(look.is_damaged() && !look.repaired && files(&world.disk) == before);
    let done = repair(world, true);
    assert!(done.repaired);
    assert_eq!((&done.meta, &done.log, done.last), (&look.meta, &look.log, look.last));
    world.history.cut(entries);
    (world.durable, world.acknowledged) = (entries, entries);
    world.recover(0, 12).unwrap();
    assert!(!repair(world, false).is_damaged());
    look
}

/// The log of the older META is gone: its segments were given up for the snapshots of two
/// compactions.
///
/// Proves DUR-13.
#[test]
fn an_older_meta_deletes_no_log_that_begins_later() {
    let before = [Do::Apply(20), Do::Compact];
    let after = [Do::Apply(24), Do::Compact, Do::Apply(24), Do::Compact, Do::Apply(6)];
    let mut world = older(shape(), &before, &after);
    let all = world.history.len();
    let place = refused(&world);
    assert!(place.file.ends_with(".seg") && place.what == "the file is missing", "{place}");
    // The frames behind the newest snapshot are whole, and from an opening that META does not know.
    let look = repaired(&mut world, all);
    assert_eq!(look.log, None);
    assert!(look.snapshot.is_some() && look.meta.unwrap().what.contains("older than the log"));
}

/// All is from one opening: then frames behind the snapshot may be of an abandoned log, and repair
/// names them as lost.
#[test]
fn an_older_meta_of_the_same_opening_deletes_no_log_that_begins_later() {
    let mut world = World::new(3, shape());
    let node = world.open_whole().unwrap();
    world.drive(&node, 20).unwrap();
    assert!(world.take(&node, Take::Compaction).unwrap());
    let meta = world.disk.read_file("META").unwrap();
    world.drive(&node, 24).unwrap();
    assert!(world.take(&node, Take::Compaction).unwrap());
    let covered = world.history.len();
    world.drive(&node, 6).unwrap();
    node.close().unwrap();
    world.crash(Crash::Process);
    put_back(&world.disk, "META", &meta);
    refused(&world);
    let look = repaired(&mut world, covered);
    assert!(look.snapshot.is_some() && look.log.is_some_and(|lost| !lost.segments.is_empty()));
}

/// Nothing is behind the newest snapshot: it is the only one, and looks like one whose installation
/// was interrupted.
///
/// Proves DUR-13.
#[test]
fn a_closed_meta_completes_no_installation() {
    let mut world = older(shape(), &[Do::Apply(20), Do::Compact], &[Do::Apply(24), Do::Compact]);
    let all = world.history.len();
    let place = refused(&world);
    assert_eq!((&*place.file, place.index.is_some()), ("META", true), "{place}");
    assert!(place.what.contains("older than a snapshot"), "{place}");
    let look = repaired(&mut world, all);
    assert_eq!((look.meta, look.log), (Some(place), None));
    assert_eq!(look.snapshot, look.last);
}

/// The log only grew, and all of it can be read; but META's other fields are from another day.
///
/// Proves DUR-13.
#[test]
fn a_meta_that_does_not_know_the_opening_of_a_frame_is_named() {
    for entries in [1, 40] {
        for after in [vec![Do::Apply(entries)], vec![Do::Apply(entries), Do::Kill]] {
            let mut world = older(shape(), &[Do::Apply(9)], &after);
            let all = world.history.len();
            let place = refused(&world);
            assert_eq!(place.file, "META");
            assert!(place.what.contains("older than the log"), "{place}");
            let look = repaired(&mut world, all);
            assert_eq!((look.meta, look.log), (Some(place), None));
        }
    }
}

#[test]
fn a_recycled_spare_that_is_ready_at_a_clean_close_opens() {
    let mut recycled = 0;
    for entries in 0..40 {
        let shape = Shape { spare_segments: 2, ..shape() };
        let mut world = World::new(3, shape);
        life(&mut world, &[Do::Apply(24), Do::Compact, Do::Apply(24), Do::Compact]);
        life(&mut world, &[Do::Apply(entries)]);
        let segments: Vec<String> =
            world.disk.file_names().into_iter().filter(|name| name.ends_with(".seg")).collect();
        // A file has frames of another segment behind the last of the log.
        let last = world.disk.read_file(segments.last().unwrap()).unwrap();
        let named = format!("{:016x}.seg", u64::from_le_bytes(last[96..104].try_into().unwrap()));
        recycled += usize::from(last.starts_with(b"SPRG") && Some(&named) != segments.last());
        let node = world.open_whole().unwrap();
        assert_eq!(node.machine().recovery().cut, None, "{entries}");
        assert_eq!(node.machine().applied().map(|last| last.index), {
            (world.history.first + world.history.len() as u64).checked_sub(1)
        });
    }
    assert!(recycled > 10, "{recycled}");
}

/// A slot of META is damaged after a crash, and the other one knows less of the log than exists.
#[test]
fn repairing_a_slot_of_meta_after_a_crash_loses_no_frame() {
    let mut world = World::new(3, shape());
    life(&mut world, &[Do::Apply(9)]);
    life(&mut world, &[Do::Apply(9), Do::Kill]);
    let all = world.history.len();
    assert_eq!(world.acknowledged, all);
    let files = files(&world.disk);
    for slot in [0, 4096] {
        let mut world = World::new(3, shape());
        life(&mut world, &[Do::Apply(9)]);
        life(&mut world, &[Do::Apply(9), Do::Kill]);
        assert!(self::files(&world.disk) == files);
        assert!(world.disk.corrupt("META", slot + 70, 1));
        let look = repaired(&mut world, all);
        assert_eq!((look.meta_slot, look.log), (Some(slot), None));
    }
}

/// The slot that a crash left unreadable may have recorded a later end of the log than the other
/// one.
#[test]
fn a_damaged_slot_of_meta_stops_a_log_whose_end_nothing_else_shows() {
    let damaged = |after: &[Do], slot: u64| {
        let mut world = World::new(3, shape());
        life(&mut world, &[Do::Apply(9)]);
        life(&mut world, after);
        assert!(world.disk.corrupt("META", slot + 70, 1));
        world
    };
    let open = |world: &World| {
        let disk = world.disk.open(true).unwrap();
        PersistentStateMachine::open_on_disk(disk, world.config())
    };
    // The second opening was closed: both slots say where the log ends.
    for slot in [0, 4096] {
        let world = damaged(&[Do::Apply(5)], slot);
        let machine = open(&world).unwrap();
        assert!(machine.recovery().meta_slot_damaged);
        world.compare_state(&machine, world.history.len()).unwrap();
    }
    // It was killed: its own slot replaced the first of the two that the close before wrote.
    let names = |slot| {
        let mut world = damaged(&[Do::Apply(5), Do::Kill], slot);
        let all = world.history.len();
        let before = files(&world.disk);
        match open(&world) {
            Err(OpenError::Corrupt(place)) => {
                assert_eq!((&*place.file, place.offset), ("META", slot), "{place}");
                assert!(place.what.contains("where the log ends"), "{place}");
                assert!(files(&world.disk) == before);
                assert_eq!(repaired(&mut world, all).meta_slot, Some(slot));
                true
            }
            Ok(machine) => {
                // Frames of an opening that the other slot does not know prove everything in the
                // damaged one.
                assert!(machine.recovery().meta_slot_damaged);
                world.compare_state(&machine, all).unwrap();
                false
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!([names(0), names(4096)].iter().filter(|named| **named).count(), 1);
    // The second opening appended nothing, so its frames cannot prove anything.
    for slot in [0, 4096] {
        let world = damaged(&[Do::Kill], slot);
        let opened = open(&world);
        let other_is_closed = slot == 4096;
        assert_eq!(opened.is_ok(), other_is_closed, "{slot}: {opened:?}");
    }
}
