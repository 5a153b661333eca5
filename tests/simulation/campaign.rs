//! Tests of random lives: any shape, any fault, any crash, several in a row.

use sprag::Durability;
use sprag::testing::{Fault, FaultError};

use crate::simulation::random::for_seeds;
use crate::simulation::world::{Crash, World};

fn live(seed: u64, durability: Durability) -> Result<u64, String> {
    let mut world = World::random(seed);
    world.shape.durability = durability;
    for _ in 0..1 + world.random.below(5) {
        let operation = world.random.below(60) as u64;
        let fault = match world.random.below(8) {
            0 => Fault::Error(FaultError::Eio),
            1 => Fault::Error(FaultError::Enospc),
            2 => Fault::ShortWriteThenError { bytes: world.random.below(4000) },
            3 => Fault::SyncErrorThenClean,
            _ => Fault::PowerCut,
        };
        world.arm(operation, fault);
        let entries = world.random.below(60);
        world.run(entries)?;
        let crash = match world.random.below(8) {
            0 if !world.disk.is_power_off() => Crash::Process,
            1 => Crash::Power(0),
            2 => Crash::Power(u64::MAX),
            _ => Crash::Power(world.random.next()),
        };
        world.crash(crash);
        let deep = world.random.below(4).saturating_sub(1) + usize::from(world.random.one_in(8));
        let more = world.random.below(6);
        world.recover(deep, more)?;
        if world.shape.snapshot_every > 0 {
            world.check_snapshots()?;
        }
        world.crash(Crash::Power(world.random.clone().next()));
    }
    world.recover(0, 1)?;
    Ok(world.crashes)
}

/// Proves DUR-1.
#[test]
fn campaign_sync() {
    for_seeds("campaign_sync", 200, |seed| live(seed, Durability::Sync));
}

/// Proves DUR-3.
#[test]
fn campaign_os() {
    for_seeds("campaign_os", 100, |seed| live(seed, Durability::Os));
}
