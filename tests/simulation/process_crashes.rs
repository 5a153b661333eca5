//! Tests in which the process dies and the system goes on: no write is lost, but nothing more is on
//! disk.

use sprag::testing::{Fault, FaultError};

use crate::simulation::random::Random;
use crate::simulation::world::{Crash, Ran, Shape, World};

/// Runs with `fault` at every operation. Calls `then` with each world, the operation, and the end
/// of the run.
pub(crate) fn at_every_operation(
    make: impl Fn() -> World,
    entries: usize,
    fault: Fault,
    mut then: impl FnMut(&mut World, u64, Ran) -> Result<(), String>,
) {
    for n in 0.. {
        let mut world = make();
        world.arm(n, fault);
        let checked = world.run(entries).and_then(|ran| {
            if !world.struck() {
                return Ok(false);
            }
            then(&mut world, n, ran)?;
            Ok(true)
        });
        match checked {
            Ok(true) => {}
            Ok(false) => return assert!(n > 10, "faults were tried at {n} operations only"),
            Err(violation) => panic!("{fault:?} at operation {n}: {violation}"),
        }
    }
}

fn shapes() -> [Shape; 2] {
    [Shape::plain(), Shape { value_bytes_max: 4000, frame_entries: 2, ..Shape::plain() }]
}

#[test]
fn a_crash_of_the_process_at_every_operation_loses_nothing_that_was_acknowledged() {
    for shape in shapes() {
        let make = || {
            let mut world = World::new(11, shape.clone());
            world.dies_when_struck = true;
            world
        };
        // An operation that fails, after which nothing happens, acts as one that was never tried.
        at_every_operation(make, 24, Fault::Error(FaultError::Eio), |world, n, _ran| {
            world.crash(Crash::Process);
            world.dies_when_struck = false;
            world.recover(0, 3)?;
            // Recovery wrote again what was only in the cache when the process died.
            world.crash(Crash::Power(Random::new(n).next() & 1));
            world.recover(0, 1)
        });
    }
}

/// Proves DUR-9.
#[test]
fn a_sync_that_fails_once_is_final_and_its_entries_are_written_again_before_they_count() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        for power in [None, Some(0)] {
            let make = || World::new(seed as u64, shape.clone());
            let mut poisoned = 0;
            at_every_operation(make, 24, Fault::SyncErrorThenClean, |world, _, ran| {
                poisoned += usize::from(matches!(ran, Ran::Poisoned(_)));
                world.crash(power.map_or(Crash::Process, Crash::Power));
                world.recover(0, 3)?;
                world.crash(Crash::Power(0));
                world.recover(0, 3)?;
                world.crash(Crash::Power(0));
                world.recover(0, 0)
            });
            assert!(poisoned > 4);
        }
    }
}
