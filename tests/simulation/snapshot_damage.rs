//! Tests of damage in a directory whose log begins after a snapshot: refused by name, or everything
//! is there, and never a hole.

use std::collections::BTreeMap;

use sprag::error::{OpenError, ReadError};
use sprag::testing::SimDisk;
use sprag::{Entry, PersistentStateMachine, StateMachine};

use crate::simulation::random::Random;
use crate::simulation::snapshots::Take;
use crate::simulation::world::{Crash, Node, Shape, World};

/// Two compactions, the second of which moved the beginning of the log, and later entries, closed
/// or killed.
fn compacted(closed: bool) -> World {
    let shape = Shape { value_bytes_max: 2500, ..Shape::plain() };
    let mut world = World::new(3, shape);
    let node = world.open_whole().unwrap();
    for entries in [20, 24] {
        world.drive(&node, entries).unwrap();
        assert!(world.take(&node, Take::Compaction).unwrap());
    }
    world.drive(&node, 9).unwrap();
    assert!(node.log().unwrap().state().unwrap().purged > Some(30));
    if closed {
        node.close().unwrap();
    } else {
        drop(node);
    }
    world.crash(Crash::Process);
    world
}

/// Opens, and returns whether that was refused as corrupt. An opened directory has at least `least`
/// entries, and their state.
fn refused(world: &World, write: bool, least: usize) -> Result<bool, String> {
    let disk = world.disk.open(write).unwrap();
    let opened = if write {
        PersistentStateMachine::open_on_disk(disk, world.config())
    } else {
        PersistentStateMachine::open_read_only_on_disk(disk)
    };
    let machine = match opened {
        Err(OpenError::Corrupt(_) | OpenError::Snapshot(_) | OpenError::UnknownVersion { .. }) => {
            return Ok(true);
        }
        Err(error) => return Err(format!("refused as something else: {error}")),
        Ok(machine) => machine,
    };
    let count = world.history.count_to(machine.applied().map(|last| last.index));
    let told = machine.recovery().unreadable.is_some();
    if count > world.history.len() || (count < least && (write || !told)) {
        return Err(format!("{count} entries, and {least} must be there"));
    }
    // A chunk of a snapshot is checked at its first read.
    match machine.scan_sorted() {
        Err(ReadError::Snapshot(_)) => Ok(true),
        _ => world.compare_state(&machine, count).map(|()| false),
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_costs_nothing() {
    let mut outcomes: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for closed in [true, false] {
        let mut world = compacted(closed);
        let least = if closed { world.history.len() } else { world.history.len() - 4 };
        for name in world.disk.file_names() {
            let bytes = world.disk.read_file(&name).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let kind = name.rsplit('.').next().unwrap().to_owned();
            // Headers, slots and the footer are in the first and last bytes; take samples of the
            // rest.
            let mut random = Random::new(used as u64);
            let mut places: Vec<usize> = (0..used.min(160)).step_by(5).collect();
            places.extend((used.saturating_sub(240)..used).step_by(7));
            places.extend((0..24).map(|_| random.below(used.max(1))));
            for at in places {
                if used == 0 || !world.disk.corrupt(&name, at as u64, 0x20) {
                    continue;
                }
                let looked = refused(&world, false, least);
                looked.unwrap_or_else(|wrong| panic!("{name} at {at}, looking: {wrong}"));
                let write = refused(&world, true, least);
                let write = write.unwrap_or_else(|wrong| panic!("{name} at {at}: {wrong}"));
                *outcomes.entry((kind.clone(), write)).or_default() += 1;
                world = compacted(closed);
            }
        }
    }
    println!("{outcomes:?}");
    for kind in ["seg", "snap", "META"] {
        assert!(outcomes.contains_key(&(kind.to_owned(), true)), "{kind}: {outcomes:?}");
    }
}

/// The newest slot of META is damaged or lost after the log's beginning moved, and the older one's
/// beginning is gone.
#[test]
fn an_older_meta_than_the_beginning_of_the_log_is_refused() {
    for entries in [0, 1, 9] {
        for lost in [false, true] {
            let shape = Shape { value_bytes_max: 2500, ..Shape::plain() };
            let mut world = World::new(3, shape);
            let node = world.open_whole().unwrap();
            world.drive(&node, 24).unwrap();
            let before = world.disk.read_file("META").unwrap();
            assert!(world.take(&node, Take::Compaction).unwrap());
            let after = world.disk.read_file("META").unwrap();
            world.drive(&node, entries).unwrap();
            drop(node);
            world.crash(Crash::Process);
            let changed: Vec<usize> =
                (0..after.len()).filter(|at| before.get(*at) != after.get(*at)).collect();
            let flips = if lost { &changed[..] } else { &changed[..1] };
            for at in flips {
                let xor = before.get(*at).copied().unwrap_or(0) ^ after[*at];
                assert!(world.disk.corrupt("META", *at as u64, xor));
            }
            let all = world.history.len();
            refused(&world, false, all).unwrap_or_else(|wrong| panic!("{entries}: {wrong}"));
            let outcome = refused(&world, true, all);
            outcome.unwrap_or_else(|wrong| panic!("{entries} entries after, {lost}: {wrong}"));
        }
    }
}

/// An entry of the log needs a value in a chunk of the snapshot, and the chunk cannot be read back.
///
/// Proves DUR-19.
#[test]
fn a_damaged_chunk_that_replay_meets_is_corrupt_with_its_file() {
    let disk = SimDisk::new(4);
    let shape = Shape::plain();
    let open = |write: bool| {
        let disk = disk.open(write).unwrap();
        if write {
            PersistentStateMachine::open_on_disk(disk, shape.config())
        } else {
            PersistentStateMachine::open_read_only_on_disk(disk)
        }
    };
    let node = Node::new(&disk, open(true).unwrap(), &shape);
    let apply = |entry: Entry<'_>| {
        assert_eq!(node.apply_entries(&[entry]).unwrap().new, 1);
        node.run_until_idle();
    };
    (1..=20).for_each(|index| apply(Entry::put(index, 1, b"key", &[7; 900])));
    apply(Entry::increment(21, 1, b"number", 5));
    assert!(node.snapshots().compact().unwrap().segments > 0);
    apply(Entry::increment(22, 1, b"number", 5));
    node.close().unwrap();
    disk.crash_process();
    let names = disk.file_names();
    let snapshot = names.iter().find(|name| name.ends_with(".snap")).unwrap();
    // The first chunk follows the header.
    assert!(disk.corrupt(snapshot, 4096 + 40, 1));
    for write in [false, true] {
        let before = disk.read_file("META");
        match open(write) {
            Err(OpenError::Corrupt(place)) => {
                assert_eq!((&place.file, place.offset), (snapshot, 4096), "{place}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(disk.read_file("META"), before);
    }
}
