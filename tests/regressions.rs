//! Tests of errors that were once in the code, found by reading; each is named by the promise it
//! broke.
#![allow(clippy::unwrap_used, reason = "tests")]

use crate::common::io;

use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use sprag::error::{OpenError, Poison, SubmitError};
use sprag::testing::{SimDisk, Stepped};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Durability, Entry, EntryRange, Fatal, Footprint, Limits,
    LogId, MemoryConfig, MemoryStateMachine, Partition, Payload, PayloadRef, PersistentConfig,
    PersistentStateMachine, Replies, Stage, StateMachine,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fn persistent(config: PersistentConfig) -> ApplyManager<PersistentStateMachine> {
    io::manage(PersistentStateMachine::open(config).unwrap(), ApplyConfig::new())
}

fn memory(config: ApplyConfig) -> ApplyManager<MemoryStateMachine> {
    ApplyManager::new(MemoryStateMachine::new(MemoryConfig::new()).unwrap(), config).unwrap()
}

fn eventually(reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < TIMEOUT, "it does not come");
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_configuration_that_could_write_what_recovery_refuses_is_refused_at_open() {
    let directory = tempfile::tempdir().unwrap();
    let config = || io::config(directory.path().join("data"));
    let limits = Limits::new().entry_bytes_max(64 << 20);
    for refused in [
        config().frame_bytes(64 << 20),
        config().limits(limits),
        config().batch_size(0),
        config().segment_bytes(5000),
        config().segment_images(1),
        config().expected_keys(usize::MAX),
    ] {
        let error = PersistentStateMachine::open(refused).unwrap_err();
        assert!(matches!(error, OpenError::Config { .. }), "{error}");
    }
}

#[test]
fn a_pipeline_of_any_depth_takes_entries_one_by_one_and_in_batches() {
    for depth in [1, 2, 3, 8] {
        let manager = memory(ApplyConfig::new().pipeline_depth(depth));
        for index in 1..=20 {
            manager.apply(&Entry::noop(index, 1), TIMEOUT).unwrap();
        }
        let entries = (21..=200).map(|index| Entry::increment(index, 1, b"k", 1));
        let mut seen = 0;
        let count = manager.apply_batch(entries, TIMEOUT, |_, _| seen += 1).unwrap();
        assert_eq!((count, seen), (180, 180));
        assert_eq!(manager.machine().get(b"k").unwrap().unwrap(), *b"180");
    }
}

/// A machine that panics in `footprint` at an opaque entry, and in `apply` at a membership.
struct Panicking;

impl StateMachine for Panicking {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        assert!(!matches!(payload, PayloadRef::Opaque(_)), "on purpose");
        Footprint::All
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        _replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            assert!(!matches!(entry?.payload, PayloadRef::Membership(_)), "on purpose");
        }
        Ok(())
    }
}

#[test]
fn a_panic_in_a_footprint_poisons_the_engine_and_names_the_index() {
    let manager = ApplyManager::new(Panicking, ApplyConfig::new()).unwrap();
    let bad = Entry::new(LogId::new(2, 1), Payload::Opaque(b""));
    let error = manager.apply_entries(&[Entry::noop(1, 1), bad]).unwrap_err();
    assert!(matches!(error, SubmitError::Poisoned(Poison::Panic { index: 2 })), "{error}");
    assert!(manager.apply_entries(&[Entry::noop(1, 1)]).is_err());
    assert!(manager.wait_for_apply(1, TIMEOUT).is_err());
}

#[test]
fn a_panic_in_apply_wakes_every_waiter_and_names_the_index() {
    let config = ApplyConfig::new().worker_count(NonZeroUsize::new(2).unwrap());
    let manager = ApplyManager::new(Panicking, config).unwrap();
    std::thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..4).map(|_| scope.spawn(|| manager.wait_for_apply(99, TIMEOUT))).collect();
        let bad = Entry::new(LogId::new(1, 1), Payload::Membership(b""));
        let _ = manager.apply_entries(&[bad]).unwrap();
        for waiter in waiters {
            let error = waiter.join().unwrap().unwrap_err();
            assert!(error.to_string().contains("index 1"), "{error}");
        }
    });
    assert!(matches!(manager.poison(), Some(Poison::Panic { index: 1 })));
}

#[test]
fn a_truncation_survives_a_clean_close_and_a_hard_state_saved_after_it() {
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let config = io::config(directory.path().join("data"))
            .segment_bytes(64 << 10)
            .commit_mode(CommitMode::ByCommit);
        let manager = persistent(config.clone());
        let entries: Vec<_> = (1..=10).map(|index| Entry::put(index, 1, b"k", b"v")).collect();
        let _ = manager.consensus().unwrap().append(&entries).unwrap();
        manager.consensus().unwrap().truncate_after(Some(4)).unwrap();
        if round % 2 == 0 {
            manager.log().unwrap().save_hard_state(b"vote").unwrap();
        }
        manager.close(TIMEOUT).unwrap();
        let reopened = persistent(config);
        let last = reopened.log().unwrap().state().unwrap().last.map(|last| last.index);
        assert_eq!(last, Some(4), "round {round}");
    }
}

#[test]
fn latency_counts_synchronous_calls_when_they_are_acknowledged() {
    let manager = memory(ApplyConfig::new());
    for index in 1..=100 {
        manager.apply(&Entry::noop(index, 1), TIMEOUT).unwrap();
    }
    // The last entry may be counted right after its caller has the answer.
    eventually(|| manager.stats().latency.count == 100);
    let latency = manager.stats().latency;
    assert!(latency.p50_ns > 0 && latency.p50_ns <= latency.p99_ns);
    assert!(latency.p99_ns <= latency.max_ns);
}

#[test]
fn waiting_for_a_far_index_to_be_durable_does_not_change_the_durability_mode() {
    let directory = tempfile::tempdir().unwrap();
    let config = io::config(directory.path().join("data")).durability(Durability::Os);
    let manager = persistent(config);
    let apply = |indexes: std::ops::RangeInclusive<u64>| {
        for index in indexes {
            manager.apply(&Entry::noop(index, 1), TIMEOUT).unwrap();
        }
    };
    apply(1..=50);
    let far = manager.wait_until(1_000_000, Stage::Durable, Duration::from_millis(50));
    assert!(far.is_err());
    // The submitted entries become durable.
    eventually(|| manager.stats().durable == Some(50));
    let syncs = manager.stats().log_writer.syncs;
    apply(51..=100);
    assert_eq!(manager.stats().log_writer.syncs, syncs);
}

#[test]
fn an_empty_range_of_the_log_is_read_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let manager = persistent(io::config(directory.path().join("data")));
    #[allow(clippy::reversed_empty_ranges, reason = "that is the case")]
    let entries = manager.log().unwrap().entries(1..=0, 100).unwrap();
    assert!(entries.is_empty());
}

#[test]
fn entries_known_already_are_checked_for_their_order_too() {
    let manager = memory(ApplyConfig::new());
    let noops = |indexes: &[u64]| {
        let entries: Vec<_> = indexes.iter().map(|index| Entry::noop(*index, 1)).collect();
        manager.apply_entries(&entries)
    };
    let _ = noops(&[1, 2, 3]).unwrap();
    assert!(matches!(noops(&[3, 1]), Err(SubmitError::Gap { expected: 4, got: 1 })));
    assert!(matches!(noops(&[1, 4]), Err(SubmitError::Gap { expected: 2, got: 4 })));
    let _ = noops(&[2, 3, 4]).unwrap();
}

/// An entry that comes just after a write waits for that interval's end, and for another one. No
/// third one begins because its frame is not closed yet.
#[test]
fn an_entry_waits_for_no_more_than_two_batch_intervals() {
    let disk = SimDisk::new(1).open(true).unwrap();
    let config = PersistentConfig::new("simulated").batch_interval(Duration::from_millis(10));
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    let engine = Stepped::new(machine, ApplyConfig::new()).unwrap();
    // Without work, the log writer asks for each frame to be closed for it.
    assert!(!engine.step_log_writer());
    let written_after = |entry: &Entry<'_>, already: Duration| {
        let index = entry.log_id.index;
        let mut waited = already;
        while engine.stats().written < Some(index) {
            while engine.step_log_writer() {}
            if engine.stats().written < Some(index) {
                engine.advance(Duration::from_millis(1));
                waited += Duration::from_millis(1);
            }
            assert!(waited < Duration::from_secs(1), "it is never written");
        }
        waited
    };
    let (first, second) = (Entry::put(1, 1, b"k", b"v"), Entry::put(2, 1, b"k", b"w"));
    let _ = engine.apply_entries(&[first]).unwrap();
    assert!(!engine.step_log_writer());
    engine.advance(Duration::from_millis(1));
    let _ = engine.apply_entries(&[second]).unwrap();
    let first = written_after(&first, Duration::from_millis(1));
    assert!((10..=11).contains(&first.as_millis()), "{first:?}");
    let second = written_after(&second, first - Duration::from_millis(1));
    assert!(second <= Duration::from_millis(20), "{second:?}");
}
