//! Tests with a power cut and a kill at every operation of the disk and of the storage, with
//! compactions between.

use sprag::CommitMode;
use sprag::testing::Random;
use sprag::testing::{Fault, SimDisk};

use super::{Engine, TIMEOUT, World, append, applied, assert_state, counter, submit};

/// Number of entries of the workload. A compaction comes every forty.
const ENTRIES: u64 = 120;

impl World {
    /// Syncs the log, and then cuts the power: the storage loses its unsynced changes.
    pub(crate) fn cut_power_after_log_sync(&mut self, engine: Engine) {
        engine.log().unwrap().sync(TIMEOUT).unwrap();
        self.cut_power(engine, 0, 0);
    }
}

/// Submits, steps and compacts until an operation fails, or everything is done.
fn work(engine: &Engine, mode: CommitMode, random: &mut Random) {
    let mut next = engine.stats().submitted.map_or(1, |last| last + 1);
    while next <= ENTRIES && engine.poison().is_none() {
        let last = (next + random.below(6) as u64).min(ENTRIES);
        match mode {
            CommitMode::ByCommit => {
                append(engine, next, last, 1);
                engine.consensus().unwrap().commit(last).unwrap();
            }
            _ => submit(engine, next, last),
        }
        for _ in 0..random.below(4) {
            engine.step_worker(0);
        }
        for _ in 0..random.below(3) {
            engine.step_log_writer();
        }
        engine.step_background();
        if next / 40 != (last + 1) / 40 {
            let _may_fail = engine.snapshots().compact();
        }
        next = last + 1;
    }
    engine.run_until_idle();
}

/// Opens after a crash, and checks that the state is that after some entry, with each entry applied
/// once.
fn check(world: &World, mode: CommitMode, what: &str) {
    // Clear a fault that did not strike.
    world.disk.reset_operations();
    let engine = world.open();
    let found = applied(&engine);
    assert_eq!(counter(&engine), found.div_ceil(2), "{what}: after {found} entries");
    let mut random = Random::new(1);
    if mode == CommitMode::ByCommit
        && let Some(last) = engine.log().unwrap().state().unwrap().last
    {
        engine.consensus().unwrap().commit(last.index).unwrap();
    }
    work(&engine, mode, &mut random);
    assert!(engine.poison().is_none(), "{what}: {:?}", engine.poison());
    assert_state(&engine, ENTRIES);
}

/// Numbers of operations of the workload, on the disk and on the storage.
fn operations(mode: CommitMode) -> (u64, u64) {
    let world = World::new(1, mode);
    work(&world.open(), mode, &mut Random::new(7));
    (world.disk.operations(), world.storage.operations())
}

/// Proves DUR-31.
#[test]
fn a_power_cut_at_every_operation_of_the_disk_leaves_each_entry_once() {
    for mode in [CommitMode::OnAppend, CommitMode::ByCommit] {
        let (disk_operations, _) = operations(mode);
        assert!(disk_operations > 40, "{disk_operations}");
        for operation in 0..disk_operations {
            for keep in [0, 1, 2] {
                let mut world = World::new(1, mode);
                world.disk.fail_at(operation, Fault::PowerCut);
                let what = format!("{mode:?}, power cut at {operation}, keep {keep}");
                if let Ok(machine) = world.machine() {
                    let config = sprag::ApplyConfig::new().pipeline_depth(256);
                    let engine = Engine::new(machine, config).unwrap();
                    work(&engine, mode, &mut Random::new(7));
                    let changes = world.storage.unsynced() * keep / 2;
                    world.cut_power(engine, 0x5555_5555_5555_5555 << (keep % 2), changes);
                } else {
                    world.disk.power_cut_keeping(0);
                }
                check(&world, mode, &what);
            }
        }
    }
}

/// Proves DUR-31.
#[test]
fn a_crash_at_every_operation_of_the_storage_leaves_each_entry_once() {
    for mode in [CommitMode::OnAppend, CommitMode::ByCommit] {
        let (_, storage_operations) = operations(mode);
        assert!(storage_operations > 20, "{storage_operations}");
        for operation in 0..storage_operations {
            for (keep, is_kill) in [(0, false), (1, false), (2, false), (2, true)] {
                let mut world = World::new(1, mode);
                world.storage.fail_after(operation);
                let what = format!("{mode:?}, crash at {operation}, keep {keep}, kill {is_kill}");
                match world.machine() {
                    Ok(machine) => {
                        let config = sprag::ApplyConfig::new().pipeline_depth(256);
                        let engine = Engine::new(machine, config).unwrap();
                        work(&engine, mode, &mut Random::new(7));
                        if is_kill {
                            world.kill(engine);
                        } else {
                            let changes = world.storage.unsynced() * keep / 2;
                            world.cut_power(engine, u64::MAX * (keep as u64 % 2), changes);
                        }
                    }
                    Err(_) => {
                        world.disk = SimDisk::new(2);
                        world.storage = world.storage.after_power_cut(keep);
                    }
                }
                check(&world, mode, &what);
            }
        }
    }
}
