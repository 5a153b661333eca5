//! Tests in which every operation fails once, in every way: a failure is final, named, and costs
//! nothing that was acknowledged.

use sprag::error::OpenError;
use sprag::testing::{Fault, FaultError};

use crate::simulation::process_crashes::at_every_operation;
use crate::simulation::random::Random;
use crate::simulation::world::{Crash, Node, Opened, Ran, Shape, World};

fn small() -> Shape {
    Shape { value_bytes_max: 1500, ..Shape::plain() }
}

fn fails_at_every_operation(fault: Fault, depth: usize) -> [usize; 2] {
    let (mut poisoned, mut not_opened) = (0, 0);
    for process in [true, false] {
        let make = || World::new(21, Shape { queue_depth: depth, ..small() });
        at_every_operation(make, 24, fault, |world, n, ran| {
            poisoned += usize::from(matches!(ran, Ran::Poisoned(_)));
            not_opened += usize::from(matches!(ran, Ran::NotOpened(_)));
            if fault == Fault::Error(FaultError::Enospc) {
                is_named_as_full(&ran)?;
            }
            let mut random = Random::new(n);
            world.crash(if process { Crash::Process } else { Crash::Power(random.next()) });
            world.recover(0, 3)?;
            world.crash(Crash::Power(random.next()));
            world.recover(0, 1)
        });
    }
    [poisoned, not_opened]
}

fn is_named_as_full(ran: &Ran) -> Result<(), String> {
    let message = match ran {
        Ran::Poisoned(poison) if poison.is_disk_full() => poison.to_string(),
        Ran::Poisoned(poison) => return Err(format!("not known to be a full disk: {poison}")),
        Ran::NotOpened(error) => error.to_string(),
        _ => return Ok(()),
    };
    if message.contains("the disk is full") { Ok(()) } else { Err(format!("unnamed: {message}")) }
}

/// Proves DUR-9.
#[test]
fn an_error_of_the_medium_at_every_operation_is_final_and_loses_nothing_acknowledged() {
    for depth in [1, 3] {
        let [poisoned, not_opened] = fails_at_every_operation(Fault::Error(FaultError::Eio), depth);
        assert!(poisoned > 10 && not_opened > 4);
    }
}

/// Proves DUR-9.
#[test]
fn a_full_disk_at_every_operation_is_final_and_named_and_loses_nothing_acknowledged() {
    let [poisoned, not_opened] = fails_at_every_operation(Fault::Error(FaultError::Enospc), 1);
    assert!(poisoned > 10 && not_opened > 4);
}

/// Proves DUR-9.
#[test]
fn a_short_write_at_every_operation_is_final_and_loses_nothing_acknowledged() {
    for bytes in [1, 130, 512, 1000] {
        let [poisoned, _] = fails_at_every_operation(Fault::ShortWriteThenError { bytes }, 1);
        assert!(poisoned > 10);
    }
}

#[test]
fn a_disk_of_any_size_fills_up_and_everything_acknowledged_is_there_when_there_is_room() {
    let mut failures = [0; 3];
    for capacity in (0..=140_u64).map(|quarters| quarters * 512) {
        let mut world = World::new(capacity, small());
        world.disk.set_capacity(Some(capacity));
        let filled = fill(&mut world).map(|at| failures[at] += 1);
        filled.and_then(|()| with_room_again(&mut world)).unwrap_or_else(|violation| {
            panic!("capacity {capacity}: {violation}");
        });
    }
    assert!(failures.iter().all(|count| *count > 0), "{failures:?}");
}

/// Fills the disk until opening fails (0), the engine fails (1), or everything is there (2).
fn fill(world: &mut World) -> Result<usize, String> {
    let disk = world.disk.open(true).unwrap();
    let machine = match sprag::PersistentStateMachine::open_on_disk(disk, world.config()) {
        Ok(machine) => machine,
        Err(error @ OpenError::Io { .. }) if error.to_string().contains("the disk is full") => {
            return Ok(0);
        }
        Err(error) => return Err(format!("a full disk, not named: {error}")),
    };
    let node = Node::new(&world.disk, machine, &world.shape);
    world.drive(&node, 60)?;
    let poison = node.poison();
    if let Some(poison) = &poison {
        world.check_poison_is_sticky(&node)?;
        is_named_as_full(&Ran::Poisoned(poison.clone()))?;
    }
    drop(node);
    Ok(if poison.is_some() { 1 } else { 2 })
}

fn with_room_again(world: &mut World) -> Result<(), String> {
    // The disk is as full as before: the directory opens, or reports why not, and loses nothing.
    world.crash(Crash::Process);
    world.arm(u64::MAX, Fault::PowerCut);
    let disk = world.disk.open(true).unwrap();
    match sprag::PersistentStateMachine::open_on_disk(disk, world.config()) {
        Ok(machine) => drop(machine),
        Err(error) if error.to_string().contains("the disk is full") => {}
        Err(error) => return Err(format!("still full: {error}")),
    }
    world.disk.crash_process();
    world.disk.set_capacity(None);
    world.crash(Crash::Process);
    world.recover(0, 3)?;
    world.crash(Crash::Power(0));
    match world.open()? {
        Opened::Ready(node) => drop(node),
        Opened::Failed(error) => return Err(error.to_string()),
    }
    Ok(())
}

/// Neither the next segment nor the snapshot fits: the call fails, and the log continues where it
/// is.
#[test]
fn a_compaction_on_a_full_disk_fails_alone() {
    let mut world = World::new(31, small());
    let node = world.open_whole().unwrap();
    world.drive(&node, 4).unwrap();
    let bytes = |name: &String| world.disk.read_file(name).unwrap().len() as u64;
    world.disk.set_capacity(Some(world.disk.file_names().iter().map(bytes).sum()));
    for _ in 0..2 {
        let error = node.snapshots().compact().unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert!(node.poison().is_none(), "{:?}", node.poison());
    }
    world.disk.set_capacity(None);
    world.drive(&node, 4).unwrap();
    node.snapshots().compact().unwrap();
    world.drive(&node, 4).unwrap();
    drop(node);
    world.crash(Crash::Power(0));
    world.recover(0, 2).unwrap();
}
