//! Moves of a running engine's marks that would break an order: each poisons it, also in a release
//! build. The moves of `Progress` are tested beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::error::Poison;
use crate::log::meta::LogBase;
use crate::numbers::{Mark, SegmentNumber};
use crate::testing::{SimDisk, Stepped};
use crate::{ApplyConfig, Entry, LogId, PersistentConfig, PersistentStateMachine};

type Engine = Stepped<PersistentStateMachine>;

fn opened(entries: u64) -> Engine {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16);
    let disk = SimDisk::new(1).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    let engine = Stepped::new(machine, ApplyConfig::new()).unwrap();
    for index in 1..=entries {
        let _ = engine.apply_entries(&[Entry::put(index, 1, b"key", b"value")]).unwrap();
    }
    engine.run_until_idle();
    engine
}

fn assert_poisoned(engine: &Engine, got: &Poison, expected: &str) {
    for poison in [got, &engine.poison().unwrap()] {
        assert!(
            matches!(poison, Poison::Invariant { invariant, .. } if *invariant == expected),
            "{expected}: {poison}"
        );
    }
    assert_eq!(got.reason(), "internal");
    assert!(
        engine.machine().get(b"key").is_err()
            && engine.apply_entries(&[Entry::noop(9, 1)]).is_err()
    );
}

#[test]
fn a_snapshot_beyond_what_is_applied_poisons_and_is_not_told_of() {
    let engine = opened(3);
    let poison = engine.engine.snapshot_work().move_snapshot_to(LogId::new(4, 1)).unwrap_err();
    assert_poisoned(&engine, &poison, "snapshot <= applied");
    assert_eq!(engine.stats().snapshot, None);
}

#[test]
fn a_snapshot_before_the_newest_poisons() {
    let engine = opened(3);
    assert_eq!(
        engine.engine.snapshot_work().move_snapshot_to(LogId::new(3, 1)).unwrap(),
        Mark::NONE
    );
    let poison = engine.engine.snapshot_work().move_snapshot_to(LogId::new(2, 1)).unwrap_err();
    assert_poisoned(&engine, &poison, "snapshot never falls");
    assert_eq!(engine.stats().snapshot, Some(3));
}

#[test]
fn a_log_that_would_begin_behind_its_snapshot_or_earlier_than_it_does_poisons() {
    for (last, segment, expected) in [(3, 1, "purged <= snapshot"), (1, 0, "purged never falls")] {
        let engine = opened(3);
        let log = engine.engine.pipeline().log_desk().log().unwrap();
        let before = log.base();
        let last = Some(LogId::new(last, 1));
        let base = LogBase { segment: SegmentNumber::new(segment), last, ..before };
        let poison = log.move_base(base, 2).unwrap_err();
        assert_poisoned(&engine, &poison, expected);
        assert_eq!(log.base(), before);
    }
}

#[test]
fn a_base_in_memory_that_is_not_the_one_of_meta_poisons_and_is_not_stored() {
    let engine = opened(3);
    let log = engine.engine.pipeline().log_desk().log().unwrap();
    let before = log.base();
    let other = LogBase { segment: before.segment.next(), ..before };
    *log.base.lock() = other;
    let base = LogBase { last: Some(LogId::new(2, 1)), ..other };
    let poison = log.move_base(base, 2).unwrap_err();
    assert_poisoned(&engine, &poison, "the base in memory is the one that META has");
    assert_eq!(log.meta.lock().1.base, before);
}

#[test]
fn a_ring_without_the_room_that_was_seen_is_a_failure_and_no_lost_range() {
    let engine = opened(0);
    let rings = engine.engine.pipeline().workers().rings();
    let token = crate::ranges::index_range::IndexRange::view_token(0);
    while rings.have_room() {
        rings.push(token).unwrap();
    }
    assert!(matches!(rings.push(token), Err(Poison::Internal(_))));
}
