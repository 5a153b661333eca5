//! Moves of a running engine's marks that would break an order: each poisons it, also in a release
//! build. The moves of `Progress` are tested beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::Ordering;

use crate::error::Poison;
use crate::log::meta::LogBase;
use crate::numbers::{FrameSequence, Mark, SegmentNumber};
use crate::testing::{SimDisk, Stepped};
use crate::{
    ApplyConfig, Entry, Footprint, LogId, PayloadRef, PersistentConfig, PersistentStateMachine,
};

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
fn a_durable_frame_sequence_that_would_fall_poisons_and_nothing_more_is_acknowledged() {
    let engine = opened(3);
    let log = engine.engine.pipeline().log_desk().log().unwrap();
    let shared = &log.writing.as_ref().unwrap().shared;
    let ahead = FrameSequence::new(log.durable_sequence().get() + 9);
    shared.durable_sequence.store(ahead, Ordering::Release);
    let _ = engine.apply_entries(&[Entry::put(4, 1, b"key", b"value")]).unwrap();
    engine.run_until_idle();
    let poison = engine.poison().unwrap();
    assert_poisoned(&engine, &poison, "the durable frame sequence never falls");
    assert_eq!(log.durable_sequence(), ahead);
    assert_eq!(engine.stats().acknowledged, Some(3));
}

#[test]
fn a_log_that_would_start_over_beside_its_base_or_over_an_open_frame_stays_as_it_is() {
    const EXPECTED: &str = "a log starts over where its base is, and no frame is open";
    for is_frame_open in [false, true] {
        let engine = opened(3);
        let desk = engine.engine.pipeline().log_desk();
        let mut appending = desk.appending();
        if is_frame_open {
            let in_flight = engine.engine.pipeline().in_flight().ring();
            let footprint = |_, _: &PayloadRef<'_>| Footprint::All;
            // The idle log writer wants the first frame at once; the second stays open.
            for index in [4, 5] {
                let entries = [Entry::noop(index, 1)];
                appending.appender.append(&entries, in_flight, Mark::NONE, 1, footprint).unwrap();
            }
        }
        let before = appending.appender.last();
        let image = appending.appender.next_image().unwrap().unwrap();
        let here = image.image().segment();
        let segment = if is_frame_open { here } else { here.next() };
        let base = LogBase { segment, ..desk.log().unwrap().base() };
        let started = appending.appender.start_over(LogId::new(9, 1), Some((base, image)));
        let poison = started.unwrap_err();
        assert!(
            matches!(poison, Poison::Invariant { invariant: EXPECTED, .. }),
            "with an open frame {is_frame_open}: {poison}"
        );
        assert_eq!(appending.appender.last(), before);
    }
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
