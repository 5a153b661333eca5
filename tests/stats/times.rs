//! Tests of times: each slow operation shows in its own histogram, with its exact duration.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sprag::error::SnapshotError;
use sprag::testing::storage::MemoryStorage;
use sprag::testing::{HandClock, SimDisk, Stepped};
use sprag::{
    Durability, Entry, EntryRange, Fatal, Footprint, Journaled, LogId, Partition, Payload,
    PayloadRef, PersistentConfig, PersistentStateMachine, Replies, SnapshotSink, StateMachine,
    StorageConfig, TimeHistogram,
};

use super::slow::{Delays, SlowDisk, SlowStorage};
use super::{Own, memory, one_worker, opaque};
use crate::common::{LONG, Scratch, apply_config, manage};

const MS: Duration = Duration::from_millis(1);

fn persistent() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(64 << 10).compaction(None)
}

/// An engine over a disk whose operations take time of the engine's clock.
fn on_slow_disk(config: PersistentConfig) -> (Stepped<PersistentStateMachine>, Arc<Delays>) {
    let delays = Arc::new(Delays::default());
    let disk = SimDisk::new(1).open(true).unwrap();
    let disk = Arc::new(SlowDisk { disk, delays: Arc::clone(&delays) });
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    let clock = delays.clock.clone();
    (Stepped::with_clock(machine, one_worker(), clock).unwrap(), delays)
}

fn shown(histogram: &TimeHistogram) -> (u64, Duration) {
    (histogram.count(), histogram.sum())
}

#[test]
fn a_slow_disk_shows_in_the_times_of_the_log() {
    let (engine, delays) = on_slow_disk(persistent());
    Delays::set(&delays.write_ns, 3 * MS);
    Delays::set(&delays.sync_ns, 50 * MS);
    for (index, groups) in [(1, 1), (4, 2)] {
        let entries = [0, 1, 2].map(|more| Entry::put(index + more, 1, b"key", b"value"));
        let _ = engine.apply_entries(&entries).unwrap();
        engine.advance(MS);
        engine.run_until_idle();
        let stats = engine.stats();
        let times = &stats.times;
        assert_eq!(shown(&times.log_write), (groups, 3 * MS * u32_of(groups)));
        assert_eq!(shown(&times.log_sync), (groups, 50 * MS * u32_of(groups)));
        assert_eq!(shown(&times.submit_to_durable), (groups, 54 * MS * u32_of(groups)));
        assert_eq!((times.group_entries.count(), times.group_entries.sum()), (groups, 3 * groups));
        assert_eq!(times.group_bytes.sum(), stats.log_writer.bytes);
        let counted = [times.group_bytes.count(), times.log_sync.count()];
        assert_eq!(counted, [stats.log_writer.groups, stats.log_writer.syncs]);
    }
    let sync = engine.stats().times.log_sync;
    assert_eq!(sync.percentile(50.0), Some(50 * MS));
    let bucket = sync.buckets().find(|(_, count)| *count > 0).unwrap();
    assert_eq!(bucket, (Some(Duration::from_micros(1 << 16)), 2));
    engine.reset_latency();
    assert_eq!(engine.stats().times.log_sync, sync, "it only grows");
}

fn u32_of(count: u64) -> u32 {
    u32::try_from(count).unwrap()
}

#[test]
fn what_is_synced_by_time_is_durable_as_late_as_its_oldest_entry() {
    let config = persistent().durability(Durability::Periodic(Duration::from_secs(1)));
    let (engine, delays) = on_slow_disk(config);
    Delays::set(&delays.sync_ns, 50 * MS);
    for index in 1..=3 {
        let _ = engine.apply_entries(&[Entry::noop(index, 1)]).unwrap();
        engine.run_until_idle();
        engine.advance(100 * MS);
    }
    let times = engine.stats().times;
    assert_eq!((times.log_write.count(), shown(&times.log_sync)), (3, (0, Duration::ZERO)));
    assert_eq!(times.submit_to_durable.count(), 0);
    engine.advance(700 * MS);
    engine.run_until_idle();
    let stats = engine.stats();
    assert_eq!(stats.durable, Some(3));
    assert_eq!(shown(&stats.times.log_sync), (1, 50 * MS));
    assert_eq!(shown(&stats.times.submit_to_durable), (1, 1050 * MS));
}

#[test]
fn an_entry_is_durable_no_later_than_its_call_returns() {
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    // The log is older than the engine, whose clock both use.
    std::thread::sleep(20 * MS);
    let manager = manage(machine, apply_config(1));
    let began = Instant::now();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    manager.flush_pending(LONG).unwrap();
    let call = began.elapsed();
    let times = manager.stats().times;
    for histogram in [times.submit_to_durable, times.submit_to_applied] {
        assert_eq!(histogram.count(), 1);
        assert!(histogram.max() <= call, "{histogram:?} in a call of {call:?}");
    }
}

/// A machine whose entries and snapshots take time of the engine's clock.
#[derive(Default)]
struct SlowMachine {
    own: Own,
    clock: HandClock,
}

impl StateMachine for SlowMachine {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        let before = self.own.0.load(Ordering::Relaxed);
        self.own.apply(range, partition, replies)?;
        let applied = self.own.0.load(Ordering::Relaxed) - before;
        self.clock.advance(7 * MS * u32_of(applied));
        Ok(())
    }

    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        self.own.footprint(payload)
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        if self.own.0.load(Ordering::Relaxed) < 2 {
            return Err(SnapshotError::Unsupported { what: "so few entries" });
        }
        self.clock.advance(11 * MS);
        self.own.snapshot(out)
    }
}

#[test]
fn a_slow_machine_shows_in_the_times_of_its_ranges() {
    let machine = SlowMachine::default();
    let clock = machine.clock.clone();
    let engine = Stepped::with_clock(machine, one_worker(), clock).unwrap();
    let mut first = 1;
    for ranges in 1..=3 {
        // The entries are of one partition, so that they are one range.
        let entry = |index| Entry::new(LogId::new(index, 1), Payload::Opaque(b"a"));
        let entries: Vec<_> = (first..first + 5).map(entry).collect();
        let _ = engine.apply_entries(&entries).unwrap();
        engine.advance(2 * MS);
        engine.run_until_idle();
        let times = engine.stats().times;
        assert_eq!(shown(&times.apply_range), (ranges, 35 * MS * u32_of(ranges)));
        assert_eq!(shown(&times.submit_to_applied), (ranges, 37 * MS * u32_of(ranges)));
        first += 5;
    }
    assert_eq!(engine.stats().times.log_write.count(), 0, "it has no log");
}

#[test]
fn of_fast_ranges_the_first_is_timed_and_then_one_in_64_entries() {
    let engine = Stepped::new(memory(), one_worker()).unwrap();
    let mut apply = |index| {
        let _ = engine.apply_entries(&[Entry::put(index, 1, b"k", b"v")]).unwrap();
        engine.run_until_idle();
        let times = engine.stats().times;
        (times.apply_range.count(), times.submit_to_applied.count())
    };
    let counts: Vec<_> = (1..=129).map(&mut apply).collect();
    assert!(counts.iter().all(|(_, submissions)| *submissions == 1), "time stands still");
    let ranges = counts.iter().map(|(ranges, _)| *ranges);
    assert!(ranges.eq((0..129).map(|before| before / 64 + 1)));
    engine.advance(Duration::from_micros(64));
    assert_eq!(apply(130), (3, 2));
}

#[test]
fn snapshots_and_compactions_take_what_the_machine_takes() {
    let machine = SlowMachine::default();
    let clock = machine.clock.clone();
    let disk = SimDisk::new(1).open(true).unwrap();
    let machine = Journaled::open_on_disk(disk, persistent(), machine).unwrap();
    let engine = Stepped::with_clock(machine, one_worker(), clock).unwrap();
    let _ = engine.apply_entries(&[opaque(1)]).unwrap();
    engine.run_until_idle();
    engine.snapshots().compact().unwrap_err();
    let taken = || {
        let times = engine.stats().times;
        (shown(&times.snapshot), shown(&times.compaction))
    };
    assert_eq!(taken(), ((0, Duration::ZERO), (0, Duration::ZERO)), "one that fails has no time");
    let _ = engine.apply_entries(&[opaque(2)]).unwrap();
    engine.run_until_idle();
    engine.snapshots().write().unwrap();
    assert_eq!(taken(), ((1, 11 * MS), (0, Duration::ZERO)));
    engine.snapshots().write_to(&mut Vec::new()).unwrap();
    assert_eq!(taken(), ((2, 22 * MS), (0, Duration::ZERO)));
    engine.snapshots().compact().unwrap();
    assert_eq!(taken(), ((3, 33 * MS), (1, 11 * MS)));
}

#[test]
fn the_log_writer_waits_for_a_segment_that_is_not_ready() {
    let (engine, delays) = on_slow_disk(persistent());
    Delays::set(&delays.create_ns, 9 * MS);
    let mut index = 0;
    let mut fill_a_segment = |is_prepared: bool| {
        let begun = engine.stats().times.segment_wait.count();
        // At most 16 of them fill a segment of 64 KiB.
        for _ in 0..16 {
            if engine.stats().times.segment_wait.count() > begun {
                break;
            }
            index += 1;
            let _ = engine.apply_entries(&[Entry::put(index, 1, b"key", &[7; 4096])]).unwrap();
            while is_prepared && engine.step_background() {}
            while engine.step_log_writer() | engine.step_worker(0) {}
        }
        shown(&engine.stats().times.segment_wait)
    };
    assert_eq!(fill_a_segment(false), (1, 9 * MS));
    assert_eq!(fill_a_segment(true), (2, 9 * MS), "the background made it ready");
    assert_eq!(fill_a_segment(false), (3, 18 * MS));
}

#[test]
fn a_slow_storage_shows_in_the_times_of_its_commits_and_syncs() {
    let on_storage = |sync_writes| {
        let delays = Arc::new(Delays::default());
        let clock = delays.clock.clone();
        let storage = SlowStorage { storage: MemoryStorage::new(), delays: Arc::clone(&delays) };
        let config = StorageConfig::new().sync_writes(sync_writes);
        let machine = PersistentStateMachine::with_storage(storage, config).unwrap();
        let engine = Stepped::with_clock(machine, one_worker(), clock).unwrap();
        Delays::set(&delays.write_ns, 3 * MS);
        Delays::set(&delays.sync_ns, 50 * MS);
        let entries = [1, 2, 3].map(|index| Entry::put(index, 1, b"key", b"value"));
        let _ = engine.apply_entries(&entries).unwrap();
        engine.advance(MS);
        engine.run_until_idle();
        engine
    };
    let times = on_storage(true).stats().times;
    assert_eq!(shown(&times.storage_commit), (1, 53 * MS));
    assert_eq!(shown(&times.submit_to_applied), (1, 54 * MS), "applied is committed");
    assert_eq!(times.storage_sync.count(), 0);
    let engine = on_storage(false);
    assert_eq!(shown(&engine.stats().times.storage_commit), (1, 3 * MS));
    engine.flush_pending(LONG).unwrap();
    let times = engine.stats().times;
    assert_eq!((shown(&times.storage_sync), times.log_sync.count()), ((1, 50 * MS), 0));
}

#[test]
fn opening_a_directory_takes_what_its_disk_takes() {
    let delays = Arc::new(Delays::default());
    Delays::set(&delays.list_ns, 5 * MS);
    let disk = SimDisk::new(1).open(true).unwrap();
    let disk = Arc::new(SlowDisk { disk, delays });
    let machine = PersistentStateMachine::open_on_disk(disk, persistent()).unwrap();
    let recovery = Stepped::new(machine, one_worker()).unwrap().stats().times.recovery;
    assert_eq!(recovery.count(), 1);
    assert!(recovery.sum() >= 5 * MS, "{recovery:?}");
    let in_memory = manage(memory(), apply_config(1));
    assert_eq!(in_memory.stats().times.recovery.count(), 0);
}
