//! Tests that a frame without a place in the log writer's queue, which cannot happen, ends the
//! engine and blocks no thread.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use super::queue::LogQueue;
use crate::error::{CloseError, Poison, SubmitError};
use crate::testing::{SimDisk, Stepped};
use crate::{ApplyConfig, Entry, PersistentConfig, PersistentStateMachine};

type Engine = Stepped<PersistentStateMachine>;

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(4 << 20).batch_size(1).expected_keys(64)
}

fn open(disk: &SimDisk) -> Engine {
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config());
    Stepped::new(machine.unwrap(), ApplyConfig::new()).unwrap()
}

fn queue(engine: &Engine) -> Arc<LogQueue> {
    Arc::clone(&engine.engine.pipeline().log_desk().log().unwrap().writing.as_ref().unwrap().queue)
}

/// Submits entries, one a frame, until there is no room. Returns the last index taken.
fn fill(engine: &Engine, first: u64) -> u64 {
    let mut next = first;
    loop {
        match engine.apply_entries(&[Entry::put(next, 1, b"key", b"value")]) {
            Ok(_) => next += 1,
            Err(SubmitError::Full { .. }) => return next - 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_lost_frame_poisons_and_closing_by_hand_says_so() {
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    let engine = open(&disk);
    let durable = 3;
    for index in 1..=durable {
        let _ = engine.apply_entries(&[Entry::put(index, 1, b"key", b"value")]).unwrap();
    }
    engine.run_until_idle();
    let last = fill(&engine, durable + 1);
    assert!(last > 8000, "{last}");
    // Frames of another log fill the reserved places.
    let lender = open(&other);
    fill(&lender, 1);
    let (queue, borrowed) = (queue(&engine), queue(&lender));
    assert!(!queue.has_lost());
    while !queue.has_lost() {
        queue.push(borrowed.pop().unwrap());
    }
    // Nothing is taken after the loss, even though a place is free again.
    let waiting = std::iter::from_fn(|| queue.pop()).count();
    queue.push(borrowed.pop().unwrap());
    assert!(waiting > 8000 && queue.is_empty());

    let closed = engine.into_manager().close(Duration::ZERO);
    let Err(CloseError::Poisoned(Poison::Internal(what))) = closed else { panic!("{closed:?}") };
    assert!(what.contains("no place"), "{what}");
    disk.crash_process();
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config()).unwrap();
    assert_eq!(machine.recovery().applied, Some(durable));
}
