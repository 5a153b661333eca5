//! Tests with faults and crashes at every operation of snapshots, compactions, and the openings
//! after them.

use std::collections::BTreeSet;
use std::time::Duration;

use sprag::testing::{Fault, FaultError};
use sprag::{Durability, PersistentStateMachine, StateMachine};

use crate::simulation::random::Random;
use crate::simulation::snapshots::Step::{Apply, Close, Restart};
use crate::simulation::snapshots::{Step, Take};
use crate::simulation::world::{Crash, Ran, Shape, World};

const SNAPSHOT: Step = Step::Take(Take::Snapshot);
const COMPACTION: Step = Step::Take(Take::Compaction);

/// Number of unsynced items up to which every subset is tried.
const EXHAUSTIVE_ITEMS: usize = 3;

/// Steps with compactions that remove segments, one that has nothing to add, snapshots between
/// them, and openings after each.
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

/// The shortest script with some of everything.
const SHORT: &[Step] = &[Apply(9), COMPACTION, Apply(6), COMPACTION, Apply(1)];

/// A shape whose segments take half a dozen entries.
fn rolling() -> Shape {
    Shape { value_bytes_max: 4000, frame_entries: 2, ..Shape::plain() }
}

/// A shape whose files are recycled.
fn recycling() -> Shape {
    Shape { spare_segments: 4, ..rolling() }
}

fn world(seed: u64, shape: &Shape) -> World {
    World::new(seed, shape.clone())
}

/// The operations of the script without a crash.
fn trace(seed: u64, shape: &Shape, script: &[Step]) -> Vec<String> {
    let mut world = world(seed, shape);
    assert!(matches!(world.run_script(script), Ok(Ran::Through)));
    let trace = world.disk.trace();
    let count = |start: &str, end: &str| {
        trace.iter().filter(|line| line.starts_with(start) && line.ends_with(end)).count()
    };
    let goes = if shape.spare_segments == 0 { "remove" } else { "rename" };
    assert!(count(goes, ".seg") > 0 && count("remove", ".snap") > 0, "{trace:?}");
    trace
}

/// Whether a crash at this operation may leave a compaction half done.
fn is_of_a_snapshot(line: &str) -> bool {
    ["snap", "META", "remove", "sync_dir"].iter().any(|part| line.contains(part))
}

/// Runs up to the power cut before operation `n`; what is left is not decided yet.
fn run_to(seed: u64, shape: &Shape, n: u64) -> Result<World, String> {
    let mut world = world(seed, shape);
    world.arm(n, Fault::PowerCut);
    world.run_script(SCRIPT)?;
    assert!(world.disk.is_power_off(), "the run is the same each time");
    Ok(world)
}

fn cut_at_every_operation(seed: u64, shape: &Shape) -> Result<u64, String> {
    let mut cuts = 0;
    for (n, line) in (0..).zip(trace(seed, shape, SCRIPT)) {
        let mut first = Some(run_to(seed, shape, n)?);
        let items = first.as_ref().map_or(0, |world| world.disk.unsynced());
        let mut random = Random::new(seed ^ n);
        let masks: Vec<u64> = match items {
            0..=EXHAUSTIVE_ITEMS => (0..1 << items).collect(),
            _ => [0, random.next(), random.next()].into(),
        };
        for mask in masks {
            let mut world = first.take().map_or_else(|| run_to(seed, shape, n), Ok)?;
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

/// Proves DUR-23.
#[test]
fn a_power_cut_at_every_operation_leaves_the_old_or_the_new() {
    let cuts = cut_at_every_operation(4, &rolling()).unwrap();
    println!("{cuts} power cuts");
}

/// Proves DUR-23.
#[test]
fn a_power_cut_at_every_operation_leaves_the_old_or_the_new_in_files_that_are_used_again() {
    let shape = Shape { queue_depth: 3, group_bytes: 1, ..recycling() };
    let cuts = cut_at_every_operation(11, &shape).unwrap();
    println!("{cuts} power cuts");
}

#[test]
fn a_power_cut_at_every_operation_leaves_the_entries_to_retain() {
    let shape =
        Shape { retain_entries: 5, workers: 2, queue_depth: 3, reads_lazily: true, ..rolling() };
    let cuts = cut_at_every_operation(5, &shape).unwrap();
    println!("{cuts} power cuts");
}

/// The next process reads what a process leaves in the kernel's cache, and a power cut may still
/// take it.
///
/// Proves DUR-15.
#[test]
fn a_crash_of_the_process_at_every_operation_and_a_power_cut_at_every_one_of_the_opening_after_it()
{
    let shape = rolling();
    for fault in [Fault::Error(FaultError::Eio), Fault::SyncErrorThenClean] {
        for (n, line) in (0..).zip(trace(6, &shape, SHORT)) {
            // Without a sync, the two faults are the same.
            let same = fault == Fault::SyncErrorThenClean && !line.starts_with("sync ");
            if !is_of_a_snapshot(&line) || same {
                continue;
            }
            for m in 0.. {
                let mut world = world(6, &shape);
                world.dies_when_struck = true;
                world.arm(n, fault);
                let outcome = world.run_script(SHORT).and_then(|_| {
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

/// Runs the script with `fault` at every operation, and continues. Returns how often the engine
/// failed, and how often only a call did.
fn fails_at_every_operation(shape: &Shape, fault: Fault) -> [usize; 2] {
    let (mut poisoned, mut went_on) = (0, 0);
    for (n, line) in (0..).zip(trace(7, shape, SHORT)) {
        let same_as_plain = match fault {
            Fault::ShortWriteThenError { .. } => !line.starts_with("write"),
            Fault::SyncErrorThenClean => !line.starts_with("sync "),
            _ => false,
        };
        if same_as_plain {
            continue;
        }
        let mut world = world(7, shape);
        world.arm(n, fault);
        let outcome = world.run_script(SHORT).and_then(|ran| {
            let failed = matches!(ran, Ran::Poisoned(_));
            let opening = matches!(ran, Ran::NotOpened(_));
            if line.contains("META") && !failed && !opening {
                return Err("a failed META was not final".to_owned());
            }
            let only_a_call = line.contains("snap")
                || line.starts_with("remove")
                || (line.starts_with("rename") && line.ends_with(".seg"));
            if only_a_call && (failed || opening) {
                return Err(format!("more than the call failed: {ran:?}"));
            }
            poisoned += usize::from(failed);
            went_on += usize::from(line.contains("snap"));
            let mut random = Random::new(n);
            world.crash(if n % 2 == 0 { Crash::Process } else { Crash::Power(random.next()) });
            world.recover(0, 2)?;
            world.crash(Crash::Power(random.next()));
            world.check_snapshots()
        });
        outcome.unwrap_or_else(|violation| panic!("{fault:?} at {line} ({n}): {violation}"));
    }
    [poisoned, went_on]
}

/// Proves DUR-23.
#[test]
fn a_failure_at_every_operation_fails_the_call_or_the_engine_and_loses_nothing() {
    for fault in [
        Fault::Error(FaultError::Eio),
        Fault::Error(FaultError::Enospc),
        Fault::ShortWriteThenError { bytes: 700 },
        Fault::SyncErrorThenClean,
    ] {
        for shape in [rolling(), recycling()] {
            let [poisoned, went_on] = fails_at_every_operation(&shape, fault);
            assert!(poisoned > 3 && went_on > 1, "{fault:?}: {poisoned}, {went_on}");
        }
    }
}

/// A reader changes nothing in a directory: the rest of a crash stays, and does not hinder.
#[test]
fn a_half_written_snapshot_is_passed_over_by_who_looks_and_removed_by_who_writes() {
    let shape = rolling();
    let lines = trace(8, &shape, SHORT);
    let rename = lines.iter().rposition(|line| line.starts_with("rename")).unwrap() as u64;
    let mut world = world(8, &shape);
    world.dies_when_struck = true;
    // The process dies before it renames, so nothing removes the temporary file.
    world.arm(rename, Fault::PowerCut);
    world.run_script(SHORT).unwrap();
    world.crash(Crash::Power(u64::MAX));
    let left = world.disk.file_names();
    assert!(left.iter().any(|name| name.ends_with(".snap.tmp")), "{left:?}");
    let disk = world.disk.open(false).unwrap();
    let machine = PersistentStateMachine::open_read_only_on_disk(disk).unwrap();
    let count = world.history.count_to(machine.applied().map(|last| last.index));
    assert!(count >= world.durable);
    world.compare_state(&machine, count).unwrap();
    drop(machine);
    assert_eq!(world.disk.file_names(), left);
    world.dies_when_struck = false;
    world.check_snapshots().unwrap();
}

/// A snapshot has no entry that a power cut takes from the log, in the modes that acknowledge
/// before the sync.
#[test]
fn a_snapshot_does_not_outlive_the_log_in_the_modes_that_sync_later() {
    for durability in [Durability::Os, Durability::Periodic(Duration::from_secs(1 << 30))] {
        let shape = Shape { durability, queue_depth: 2, ..recycling() };
        for (n, line) in (0..).zip(trace(9, &shape, SHORT)) {
            for mask in [0, Random::new(n).next()] {
                let mut world = world(9, &shape);
                world.arm(n, Fault::PowerCut);
                let outcome = world.run_script(SHORT).and_then(|_| {
                    world.crash(Crash::Power(mask));
                    world.recover(0, 2)?;
                    world.crash(Crash::Power(!mask));
                    if n % 3 == 0 { world.check_snapshots() } else { world.recover(0, 1) }
                });
                outcome.unwrap_or_else(|violation| {
                    panic!("{durability:?}, cut before {line} ({n}) keeping {mask:#x}: {violation}")
                });
            }
        }
    }
}

/// The tests above prove that the engine syncs: a lost sync of a snapshot, of META or of the
/// directory must make them fail.
#[test]
fn a_lost_sync_of_a_snapshot_of_meta_or_of_the_directory_is_caught() {
    let shape = rolling();
    let mut caught = BTreeSet::new();
    let lines = trace(4, &shape, SHORT);
    for (n, line) in (0..).zip(&lines) {
        let kind = match line.as_str() {
            "sync_dir" => "directory",
            "sync META" => "META",
            line if line.starts_with("sync") && line.contains("snap") => "snapshot",
            _ => continue,
        };
        // A lost sync shows when no later one covers it: the power fails at one of the next
        // operations.
        for after in 1..12 {
            let mut world = world(4, &shape);
            world.arm(n + after, Fault::PowerCut);
            world.disk.fail_at(n, Fault::LostSync);
            // META is stored twice when a directory is made, and the second sync covers the first.
            let more = lines[n as usize + 1..].iter().take(2).position(|line| line == "sync META");
            if let Some(more) = more.filter(|_| kind == "META") {
                world.disk.fail_at(n + 1 + more as u64, Fault::LostSync);
            }
            let outcome = world.run_script(SHORT).and_then(|_| {
                world.crash(Crash::Power(0));
                world.recover(0, 1)
            });
            if outcome.is_err() {
                caught.insert(kind);
            }
        }
    }
    assert_eq!(caught, BTreeSet::from(["META", "directory", "snapshot"]));
}
