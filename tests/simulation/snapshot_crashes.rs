//! Faults and crashes at every operation of snapshots, compactions, and the openings after them.

use sprag::testing::{Fault, FaultError};

use crate::random::Random;
use crate::snapshots::Step::{Apply, Close, Restart};
use crate::snapshots::{Step, Take};
use crate::world::{Crash, Ran, Shape, World};

const SNAPSHOT: Step = Step::Take(Take::Snapshot);
const COMPACTION: Step = Step::Take(Take::Compaction);

/// Up to so many unsynced items, every subset of them is tried.
const EXHAUSTIVE_ITEMS: usize = 4;

/// Compactions that remove segments, one that has nothing to add, snapshots in between, and openings after each.
const SCRIPT: &[Step] = &[
    Apply(9),
    COMPACTION,
    Apply(7),
    SNAPSHOT,
    Restart,
    Apply(5),
    COMPACTION,
    COMPACTION,
    Close,
    Apply(4),
    SNAPSHOT,
    Apply(1),
];

/// A segment takes half a dozen entries.
fn rolling() -> Shape {
    Shape { value_bytes_max: 4000, frame_entries: 2, ..Shape::plain() }
}

fn world(seed: u64, shape: &Shape) -> World {
    World::new(seed, shape.clone())
}

/// The operations of the script, crash-free.
fn trace(seed: u64, shape: &Shape) -> Vec<String> {
    let mut world = world(seed, shape);
    assert!(matches!(world.run_script(SCRIPT), Ok(Ran::Through)));
    let trace = world.disk.trace();
    let count = |start: &str, end: &str| {
        trace.iter().filter(|line| line.starts_with(start) && line.ends_with(end)).count()
    };
    assert!(count("remove", ".seg") > 0 && count("remove", ".snap") > 1, "{trace:?}");
    trace
}

/// Whether a crash here may leave something that a compaction has half done.
fn is_of_a_snapshot(line: &str) -> bool {
    ["snap", "META", "remove", "sync_dir"].iter().any(|part| line.contains(part))
}

/// A run up to the power cut before operation `n`; what is left is not decided yet.
fn run_to(seed: u64, shape: &Shape, n: u64) -> Result<World, String> {
    let mut world = world(seed, shape);
    world.arm(n, Fault::PowerCut);
    world.run_script(SCRIPT)?;
    assert!(world.disk.is_power_off(), "the run is the same each time");
    Ok(world)
}

fn cut_at_every_operation(seed: u64, shape: &Shape) -> Result<u64, String> {
    let mut cuts = 0;
    for (n, line) in (0..).zip(trace(seed, shape)) {
        let items = run_to(seed, shape, n)?.disk.unsynced();
        let mut random = Random::new(seed ^ n);
        let masks: Vec<u64> = match items {
            0..=EXHAUSTIVE_ITEMS => (0..1 << items).collect(),
            _ => [0, u64::MAX, random.next(), random.next()].into(),
        };
        for mask in masks {
            let mut world = run_to(seed, shape, n)?;
            let recovered = (|| {
                world.crash(Crash::Power(mask));
                let deep = if random.one_in(3) { 1 + random.below(3) } else { 0 };
                world.recover(deep, 2)?;
                world.crash(Crash::Power(random.next()));
                if random.one_in(3) { world.check_snapshots() } else { world.recover(0, 1) }
            })();
            cuts += world.crashes;
            recovered.map_err(|violation| {
                format!("seed {seed}, cut before {line} ({n}) keeping {mask:#x}: {violation}")
            })?;
        }
    }
    Ok(cuts)
}

#[test]
fn a_power_cut_at_every_operation_leaves_the_old_or_the_new() {
    let cuts = cut_at_every_operation(4, &rolling()).unwrap();
    println!("{cuts} power cuts");
}

#[test]
fn a_power_cut_at_every_operation_leaves_the_entries_to_retain() {
    let shape = Shape { retain_entries: 5, workers: 2, queue_depth: 3, ..rolling() };
    let cuts = cut_at_every_operation(5, &shape).unwrap();
    println!("{cuts} power cuts");
}

/// What a process leaves in the kernel's cache is read by the next one, and may still be lost under it.
#[test]
fn a_crash_of_the_process_at_every_operation_and_a_power_cut_at_every_one_of_the_opening_after_it() {
    let shape = rolling();
    for fault in [Fault::Error(FaultError::Eio), Fault::SyncErrorThenClean] {
        for (n, line) in (0..).zip(trace(6, &shape)) {
            if !is_of_a_snapshot(&line) {
                continue;
            }
            for m in 0.. {
                let mut world = world(6, &shape);
                world.dies_when_struck = true;
                world.arm(n, fault);
                let outcome = world.run_script(SCRIPT).and_then(|_| {
                    world.crash(Crash::Process);
                    world.dies_when_struck = false;
                    world.arm(m, Fault::PowerCut);
                    world.run_script(&[])?;
                    let struck = world.struck();
                    let mask = if m % 2 == 0 { 0 } else { Random::new(n).next() };
                    world.crash(Crash::Power(mask));
                    world.recover(0, 1)?;
                    if m % 4 == 0 {
                        world.check_snapshots()?;
                    }
                    Ok(struck)
                });
                match outcome {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(violation) => panic!("{fault:?} at {line} ({n}), cut at {m}: {violation}"),
                }
            }
        }
    }
}
