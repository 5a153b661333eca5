//! Tests in which the power fails before every operation of a small run, and any subset of the
//! unsynced items survives.

use sprag::testing::{Fault, SimDisk};
use sprag::{Entry, PersistentStateMachine};

use crate::simulation::random::Random;
use crate::simulation::world::{Crash, Node, Shape, World};

/// Number of unsynced items up to which every subset is tried; of more, [`SAMPLES`].
const EXHAUSTIVE_ITEMS: usize = 8;
const SAMPLES: usize = 16;

/// Number of operations of a run without a crash.
fn operations(seed: u64, shape: &Shape, entries: usize) -> u64 {
    let mut world = World::new(seed, shape.clone());
    world.run(entries).unwrap();
    assert_eq!(world.durable, entries, "it was not interrupted");
    world.disk.operations()
}

/// Runs up to the power cut before operation `n`; what is left is not decided yet.
fn run_to(seed: u64, shape: &Shape, entries: usize, n: u64) -> Result<World, String> {
    let mut world = World::new(seed, shape.clone());
    world.arm(n, Fault::PowerCut);
    world.run(entries)?;
    assert!(world.disk.is_power_off(), "the run is the same each time");
    Ok(world)
}

/// Cuts before every operation; returns the number of cuts.
fn cut_at_every_operation(seed: u64, shape: &Shape, entries: usize) -> Result<u64, String> {
    let mut cuts = 0;
    for n in 0..operations(seed, shape, entries) {
        let items = run_to(seed, shape, entries, n)?.disk.unsynced();
        let mut random = Random::new(seed ^ n);
        let masks: Vec<u64> = match items {
            0..=EXHAUSTIVE_ITEMS => (0..1 << items).collect(),
            _ => (0..SAMPLES).map(|_| random.next()).collect(),
        };
        for mask in masks {
            let mut world = run_to(seed, shape, entries, n)?;
            let recovered = (|| {
                world.crash(Crash::Power(mask));
                // Sometimes the recovery is cut too, and its recovery, up to three deep.
                let deep = if random.one_in(4) { 1 + random.below(3) } else { 0 };
                world.recover(deep, 3)?;
                // The old tail must not come back behind later entries.
                let again = random.next();
                world.crash(Crash::Power(again));
                world.recover(0, 1)
            })();
            cuts += world.crashes;
            recovered.map_err(|violation| {
                format!("seed {seed}, cut before operation {n} keeping {mask:#x}: {violation}")
            })?;
        }
    }
    Ok(cuts)
}

/// Proves DUR-1.
#[test]
fn a_power_cut_at_every_operation_keeps_what_was_acknowledged() {
    let mut cuts = 0;
    for seed in 0..2 {
        cuts += cut_at_every_operation(seed, &Shape::plain(), 24).unwrap();
    }
    println!("{cuts} power cuts");
}

#[test]
fn a_power_cut_while_a_segment_rolls_keeps_what_was_acknowledged() {
    let shape = Shape { value_bytes_max: 4000, frame_entries: 2, ..Shape::plain() };
    let cuts = cut_at_every_operation(2, &shape, 16).unwrap();
    println!("{cuts} power cuts");
}

#[test]
fn a_power_cut_with_several_writes_in_flight_keeps_what_was_acknowledged() {
    let shape = Shape { queue_depth: 3, group_bytes: 1, frame_entries: 1, ..Shape::plain() };
    let cuts = cut_at_every_operation(3, &shape, 20).unwrap();
    println!("{cuts} power cuts");
}

/// The frames of a cut tail keep their old headers. When the same entry is sent again and its write
/// is torn, the new body on disk can complete the old frame. Frames that followed the old frame
/// then continue the chain.
///
/// Proves DUR-14.
#[test]
fn a_cut_tail_is_not_completed_by_a_torn_write_of_the_same_entry_over_it() {
    let shape = Shape { frame_entries: 1, ..Shape::plain() };
    let disk = SimDisk::new(0);
    let open = || {
        let machine =
            PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), shape.config());
        Node::new(&disk, machine.unwrap(), &shape)
    };
    let large = [b'v'; 1400];
    let entries: [Entry<'_>; 3] = [
        Entry::put(1, 1, b"a", b"1"),
        Entry::put(2, 1, b"b", &large),
        Entry::put(3, 1, b"c", b"3"),
    ];
    let write_and_cut = |node: &Node, submitted: &[Entry<'_>], mask| {
        let _ = node.apply_entries(submitted).unwrap();
        disk.fail_at(disk.operations() + 1, Fault::PowerCut);
        while node.step_log_writer() {}
        assert!(disk.is_power_off() && disk.unsynced() == 4, "{} sectors", disk.unsynced());
        disk.power_cut_keeping(mask);
    };
    let node = open();
    node.run_until_idle();
    let _ = node.apply_entries(&entries[..1]).unwrap();
    node.run_until_idle();
    // Entries 2 and 3 are one write; the second of its four sectors, in the middle of entry 2, is
    // lost.
    write_and_cut(&node, &entries[1..], 0b1101);
    drop(node);

    let node = open();
    let cut = node.machine().recovery().cut.clone().unwrap();
    assert_eq!(cut.indexes, Some((2, 3)), "both were seen, and cut");
    node.run_until_idle();
    // Entry 2 is sent again, and of its write only that sector reaches the disk.
    write_and_cut(&node, &entries[1..2], 0b0010);
    drop(node);

    let last = open().log().unwrap().state().unwrap().last.unwrap();
    assert!(last.index <= 2, "entry {} was cut, and not sent again", last.index);
}

#[test]
fn the_same_seed_does_the_same() {
    let trace = |seed| {
        let mut world = World::random(seed);
        let mut lines = Vec::new();
        for n in [9, 30, 5] {
            world.arm(n, Fault::PowerCut);
            world.run(40).unwrap();
            lines.push(format!("{:?} {}", world.disk.trace(), world.durable));
            world.crash(Crash::Power(seed));
        }
        lines
    };
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed));
    }
    assert_ne!(trace(0), trace(1));
}
