//! Tests of the modes that acknowledge before the sync: a power cut takes a suffix, never a synced
//! entry, and never out of order.

use std::time::Duration;

use sprag::testing::{Fault, SimDisk, Stepped};
use sprag::{ApplyConfig, Durability, Entry, PersistentConfig, PersistentStateMachine, Stage};

use crate::simulation::random::Random;
use crate::simulation::world::{Crash, Shape, World};

/// The modes; the interval is always due, or never, because a clock test covers it.
const MODES: [Durability; 3] = [
    Durability::Os,
    Durability::Periodic(Duration::ZERO),
    Durability::Periodic(Duration::from_secs(1 << 30)),
];

fn shapes(durability: Durability) -> [Shape; 2] {
    let small = Shape { durability, ..Shape::plain() };
    let rolling =
        Shape { value_bytes_max: 3000, queue_depth: 2, frame_entries: 2, ..small.clone() };
    [small, rolling]
}

/// Proves DUR-4.
#[test]
fn a_power_cut_takes_a_suffix_of_what_was_not_synced() {
    let mut lost = [0; 3];
    for (mode, durability) in MODES.into_iter().enumerate() {
        for (seed, shape) in shapes(durability).into_iter().enumerate() {
            for n in 0..80 {
                for choice in 0..3 {
                    let mut world = World::new(seed as u64, shape.clone());
                    world.arm(n, Fault::PowerCut);
                    let mask = [0, u64::MAX, Random::new(n).next()][choice];
                    let acknowledged = cut(&mut world, mask).unwrap_or_else(|violation| {
                        panic!("{durability:?}, operation {n}, keeping {mask:#x}: {violation}")
                    });
                    lost[mode] += acknowledged;
                }
            }
        }
    }
    // The canary of the modes themselves: they do acknowledge before they sync.
    assert!(lost[0] > 0 && lost[2] > 0, "{lost:?}");
}

/// Number of acknowledged entries that the cut took.
fn cut(world: &mut World, mask: u64) -> Result<usize, String> {
    world.run(30)?;
    let acknowledged = world.acknowledged;
    world.crash(Crash::Power(mask));
    let node = world.open_whole()?;
    let lost = acknowledged.saturating_sub(world.acknowledged);
    drop(node);
    world.crash(Crash::Power(mask >> 7));
    world.recover(0, 3)?;
    Ok(lost)
}

/// Proves DUR-3.
#[test]
fn a_crash_of_the_process_takes_nothing_that_was_acknowledged() {
    for durability in MODES {
        for shape in shapes(durability) {
            for n in 0..60 {
                let mut world = World::new(n, Shape { queue_depth: 1, ..shape.clone() });
                world.arm(n, Fault::Error(sprag::testing::FaultError::Eio));
                world.dies_when_struck = true;
                let checked = world.run(30).and_then(|_| {
                    world.crash(Crash::Process);
                    world.dies_when_struck = false;
                    world.recover(0, 3)
                });
                checked.unwrap_or_else(|violation| panic!("{durability:?}, {n}: {violation}"));
            }
        }
    }
}

/// Proves DUR-6.
#[test]
fn what_was_asked_to_be_durable_is_synced_in_every_mode() {
    for durability in MODES {
        let mut world = World::new(5, Shape { durability, ..Shape::plain() });
        let node = world.open_whole().unwrap();
        world.drive(&node, 10).unwrap();
        let last = world.history.first + 9;
        assert!(node.flush_pending(Duration::ZERO).is_err() || node.stats().durable == Some(last));
        node.run_until_idle();
        world.note(&node).unwrap();
        assert_eq!(world.durable, 10, "{durability:?}");
        drop(node);
        world.crash(Crash::Power(0));
        world.recover(0, 1).unwrap();
    }
}

/// Proves DUR-6.
#[test]
fn every_call_that_asks_for_durability_gives_it_in_every_mode() {
    for durability in MODES {
        for call in ["flush_pending", "sync", "wait_until", "close", "none"] {
            let disk = SimDisk::new(1);
            let open = || {
                let config = PersistentConfig::new("simulated").durability(durability);
                let disk = disk.open(true).unwrap();
                let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
                Stepped::new(machine, ApplyConfig::new()).unwrap()
            };
            let engine = open();
            for index in 1..=10 {
                let put = Entry::put(index, 1, b"key", b"value");
                assert_eq!(engine.apply_entries(&[put]).unwrap().new, 1);
            }
            engine.run_until_idle();
            // The calls ask at once; no thread runs that they could wait for.
            match call {
                "flush_pending" => drop(engine.flush_pending(Duration::ZERO)),
                "sync" => drop(engine.log().unwrap().sync(Duration::ZERO)),
                "wait_until" => drop(engine.wait_until(10, Stage::Durable, Duration::ZERO)),
                _ => {}
            }
            engine.run_until_idle();
            if call == "close" {
                engine.into_manager().close(crate::common::LONG).unwrap();
                disk.power_cut_keeping(0);
            } else {
                // A drop would sync.
                disk.power_cut_keeping(0);
                drop(engine);
            }
            let applied = open().stats().applied;
            // The canary: without such a call there is a mode that has synced nothing.
            let is_lost = call == "none" && durability == Durability::Os;
            let is_asked = call != "none";
            assert!(!is_asked || applied == Some(10), "{durability:?}, {call}: {applied:?}");
            assert!(!is_lost || applied.is_none(), "{durability:?}, {call}: {applied:?}");
        }
    }
}
