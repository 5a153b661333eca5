//! The power fails before every operation of a small run, and any subset of what was not synced survives.

use sprag::testing::Fault;

use crate::random::Random;
use crate::world::{Crash, Shape, World};

/// Up to so many unsynced items, every subset of them is tried; of more, [`SAMPLES`].
const EXHAUSTIVE_ITEMS: usize = 8;
const SAMPLES: usize = 16;

/// How many operations a run has, crash-free.
fn operations(seed: u64, shape: &Shape, entries: usize) -> u64 {
    let mut world = World::new(seed, shape.clone());
    world.run(entries).unwrap();
    assert_eq!(world.durable, entries, "it was not interrupted");
    world.disk.operations()
}

/// A run up to the power cut before operation `n`; what is left is not decided yet.
fn run_to(seed: u64, shape: &Shape, entries: usize, n: u64) -> Result<World, String> {
    let mut world = World::new(seed, shape.clone());
    world.arm(n, Fault::PowerCut);
    world.run(entries)?;
    assert!(world.disk.is_power_off(), "the run is the same each time");
    Ok(world)
}

/// Cuts before every operation; gives how many cuts there were.
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
                // Some of the time the recovery is cut too, and its recovery, up to three deep.
                let deep = if random.one_in(4) { 1 + random.below(3) } else { 0 };
                world.recover(deep, 3)?;
                // The old tail does not come back behind what came after it.
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
