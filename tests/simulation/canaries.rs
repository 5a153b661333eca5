//! Canaries of the power-cut tests, which prove that the engine syncs: on a disk that does not,
//! they must fail.

use std::collections::BTreeMap;

use sprag::testing::Fault;

use crate::simulation::world::{Crash, Shape, World};

#[test]
fn a_disk_that_never_syncs_is_caught() {
    let mut violations = 0;
    for n in 0..60 {
        let mut world = World::new(n, Shape::plain());
        world.disk.set_sync_disabled(true);
        world.arm(n, Fault::PowerCut);
        violations += usize::from(run_and_cut(&mut world).is_err());
    }
    assert!(violations > 20, "{violations} violations were found");
}

#[test]
fn a_single_lost_sync_of_any_file_or_of_the_directory_is_caught() {
    let shape = Shape { value_bytes_max: 4000, frame_entries: 2, ..Shape::plain() };
    let mut caught: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0.. {
        let mut world = World::new(1, shape.clone());
        world.arm(n, Fault::LostSync);
        world.dies_when_struck = true;
        let ran = world.run(24);
        if !world.struck() {
            break;
        }
        let operation = world.disk.trace().pop().unwrap();
        let outcome = ran.and_then(|_| {
            world.crash(Crash::Power(0));
            world.recover(0, 1)
        });
        if outcome.is_err() {
            *caught.entry(operation).or_default() += 1;
        }
    }
    let synced_files: Vec<&str> = caught.keys().map(String::as_str).collect();
    assert!(synced_files.iter().filter(|line| line.ends_with(".seg")).count() > 1, "{caught:?}");
    assert!(caught.keys().all(|operation| operation.starts_with("sync")), "{caught:?}");
}

#[test]
fn a_directory_that_is_never_synced_is_caught() {
    // The run is the same each time, so a run without faults tells where it syncs the directory.
    let mut world = World::new(1, Shape::plain());
    world.run(40).unwrap();
    let syncs: Vec<u64> = (0..)
        .zip(world.disk.trace())
        .filter_map(|(operation, line)| (line == "sync_dir").then_some(operation))
        .collect();
    assert!(syncs.len() > 2);

    let mut world = World::new(1, Shape::plain());
    syncs.iter().for_each(|operation| world.disk.fail_at(*operation, Fault::LostSync));
    world.run(40).unwrap();
    assert_eq!(world.acknowledged, 40);
    world.crash(Crash::Power(0));
    world.recover(0, 1).unwrap_err();
}

fn run_and_cut(world: &mut World) -> Result<(), String> {
    world.run(40)?;
    world.crash(Crash::Power(0));
    world.recover(0, 1)
}
