//! Tests that move every figure of `stats()` by a known amount.
#![allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp, reason = "tests")]

mod disk;
mod latency;
mod reader;
mod sizing;
mod slow;
mod times;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{LONG, Scratch, apply_config, manage};
use sprag::error::SnapshotError;
use sprag::testing::{SimDisk, Stepped};
use sprag::{
    ApplyConfig, ApplyManager, ApplyStats, CommitMode, Contiguity, Durability, Entry, EntryRange,
    Fatal, Footprint, IoBackend, Journaled, LogId, MemoryConfig, MemoryStateMachine, MemoryStats,
    Partition, Payload, PayloadRef, PersistentConfig, PersistentStateMachine, Rejection, Replies,
    Reply, SnapshotSink, SnapshotSource, StateMachine,
};

/// Each figure, and its test here. A figure that is missing here fails
/// [`every_figure_has_a_test_that_moves_it`].
const FIGURES: &[(&str, &str)] = &[
    ("ApplyStats.total_applied", "applied_entries_are_counted_once_for_every_machine"),
    ("ApplyStats.total_failed", "rejected_entries_are_counted_and_lower_the_success_rate"),
    ("ApplyStats.success_rate", "rejected_entries_are_counted_and_lower_the_success_rate"),
    ("ApplyStats.latency", "latency_counts_every_entry_with_the_time_it_took"),
    ("ApplyStats.average_latency_ms", "latency_counts_every_entry_with_the_time_it_took"),
    ("ApplyStats.pending_count", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.pipeline_size", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.pipeline_capacity", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.worker_count", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.workers_pinned", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.pinned_threads", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.submitted", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.written", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.durable", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.committed", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.applied", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.acknowledged", "marks_and_queues_move_with_each_step"),
    ("ApplyStats.snapshot", "snapshots_and_compactions_are_counted"),
    ("ApplyStats.purged", "snapshots_and_compactions_are_counted"),
    ("ApplyStats.io_backend", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.io_fallback", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.durability", "configured_figures_are_those_of_the_configuration"),
    ("ApplyStats.log_writer", "the_log_writer_counts_what_it_wrote_and_synced"),
    ("ApplyStats.times", "a_slow_disk_shows_in_the_times_of_the_log"),
    ("ApplyStats.recovery", "recovery_says_what_opening_found"),
    ("ApplyStats.waker_longest", "wakers_are_timed_and_their_panics_counted"),
    ("ApplyStats.wakers_panicked", "wakers_are_timed_and_their_panics_counted"),
    ("ApplyStats.compaction", "snapshots_and_compactions_are_counted"),
    ("ApplyStats.memory_bytes", "memory_grows_by_what_is_configured"),
    ("ApplyStats.memory", "memory_is_told_by_what_it_is_for"),
    ("ApplyStats.disk", "the_disk_is_told_by_what_takes_it"),
    ("ApplyStats.poison", "the_first_failure_is_among_the_figures_with_a_word_for_its_kind"),
    ("ApplyStats.machine", "applied_entries_are_counted_once_for_every_machine"),
    ("LatencyStats.count", "latency_counts_every_entry_with_the_time_it_took"),
    ("LatencyStats.unmeasured", "submissions_beyond_the_stamps_are_counted_as_unmeasured"),
    ("LatencyStats.mean_ns", "latency_counts_every_entry_with_the_time_it_took"),
    ("LatencyStats.p50_ns", "latency_counts_every_entry_with_the_time_it_took"),
    ("LatencyStats.p90_ns", "latency_counts_every_entry_with_the_time_it_took"),
    ("LatencyStats.p99_ns", "latency_counts_every_entry_with_the_time_it_took"),
    ("LatencyStats.p999_ns", "latency_counts_every_entry_with_the_time_it_took"),
    ("LatencyStats.max_ns", "latency_counts_every_entry_with_the_time_it_took"),
    ("LogWriterStats.groups", "the_log_writer_counts_what_it_wrote_and_synced"),
    ("LogWriterStats.syncs", "the_log_writer_counts_what_it_wrote_and_synced"),
    ("LogWriterStats.bytes", "the_log_writer_counts_what_it_wrote_and_synced"),
    ("LogWriterStats.durable_sequence", "the_log_writer_counts_what_it_wrote_and_synced"),
    ("LogWriterStats.recycled_segments", "snapshots_and_compactions_are_counted"),
    ("TimeStats.log_write", "a_slow_disk_shows_in_the_times_of_the_log"),
    ("TimeStats.log_sync", "a_slow_disk_shows_in_the_times_of_the_log"),
    ("TimeStats.group_entries", "a_slow_disk_shows_in_the_times_of_the_log"),
    ("TimeStats.group_bytes", "a_slow_disk_shows_in_the_times_of_the_log"),
    ("TimeStats.submit_to_durable", "a_slow_disk_shows_in_the_times_of_the_log"),
    ("TimeStats.submit_to_applied", "a_slow_machine_shows_in_the_times_of_its_ranges"),
    ("TimeStats.apply_range", "a_slow_machine_shows_in_the_times_of_its_ranges"),
    ("TimeStats.snapshot", "snapshots_and_compactions_take_what_the_machine_takes"),
    ("TimeStats.compaction", "snapshots_and_compactions_take_what_the_machine_takes"),
    ("TimeStats.segment_wait", "the_log_writer_waits_for_a_segment_that_is_not_ready"),
    ("TimeStats.storage_commit", "a_slow_storage_shows_in_the_times_of_its_commits_and_syncs"),
    ("TimeStats.storage_sync", "a_slow_storage_shows_in_the_times_of_its_commits_and_syncs"),
    ("TimeStats.recovery", "opening_a_directory_takes_what_its_disk_takes"),
    ("CompactionStats.done", "snapshots_and_compactions_are_counted"),
    ("CompactionStats.failed", "a_compaction_that_fails_is_counted_until_one_is_done"),
    ("CompactionStats.failed_disk_full", "a_compaction_without_room_is_counted_as_such"),
    ("CompactionStats.last_error", "a_compaction_that_fails_is_counted_until_one_is_done"),
    ("StateMachineStats.applied_count", "applied_entries_are_counted_once_for_every_machine"),
    ("StateMachineStats.last_applied", "applied_entries_are_counted_once_for_every_machine"),
    ("StateMachineStats.last_snapshot", "snapshots_and_compactions_are_counted"),
    ("StateMachineStats.keys", "keys_are_those_with_a_value"),
    ("StateMachineStats.unfilled_chunks", "unfilled_chunks_go_down_one_by_one"),
    ("StateMachineStats.longest_copy_cpu_ns", "copies_for_a_view_take_time"),
    ("StateMachineStats.longest_copy_ns", "copies_for_a_view_take_time"),
    ("StateMachineStats.copy_p999_cpu_ns", "copies_for_a_view_take_time"),
    ("StateMachineStats.copy_p999_ns", "copies_for_a_view_take_time"),
    ("StateMachineStats.memory_bytes", "memory_is_told_by_what_it_is_for"),
    ("StateMachineStats.disk_bytes", "memory_is_told_by_what_it_is_for"),
    ("StateMachineStats.cache_size", "cache_figures_are_none_without_a_cache"),
    ("StateMachineStats.cache_bytes", "cache_figures_are_none_without_a_cache"),
    ("StateMachineStats.cache_hits", "cache_figures_are_none_without_a_cache"),
    ("StateMachineStats.cache_misses", "cache_figures_are_none_without_a_cache"),
    ("StateMachineStats.cache_hit_rate", "cache_figures_are_none_without_a_cache"),
    ("StateMachineStats.cache_evictions", "cache_figures_are_none_without_a_cache"),
    ("MemoryStats.images", "memory_is_told_by_what_it_is_for"),
    ("MemoryStats.log_queue", "memory_is_told_by_what_it_is_for"),
    ("MemoryStats.in_flight", "memory_is_told_by_what_it_is_for"),
    ("MemoryStats.rings", "memory_is_told_by_what_it_is_for"),
    ("MemoryStats.stamps", "memory_is_told_by_what_it_is_for"),
    ("DiskStats.segments", "the_disk_is_told_by_what_takes_it"),
    ("DiskStats.segment_bytes", "the_disk_is_told_by_what_takes_it"),
    ("DiskStats.spare_bytes", "the_disk_is_told_by_what_takes_it"),
    ("DiskStats.snapshot_bytes", "the_disk_is_told_by_what_takes_it"),
    ("RecoveryReport.last", "recovery_says_what_opening_found"),
    ("RecoveryReport.applied", "recovery_says_what_opening_found"),
    ("RecoveryReport.frames", "recovery_says_what_opening_found"),
    ("RecoveryReport.cut", "recovery_says_what_is_damaged"),
    ("RecoveryReport.meta_slot_damaged", "recovery_says_what_is_damaged"),
    ("RecoveryReport.unreadable", "recovery_says_what_is_damaged"),
    ("RecoveryReport.snapshot", "recovery_says_what_opening_found"),
    ("RecoveryReport.purged", "recovery_says_what_opening_found"),
    ("RecoveryReport.damaged_snapshots", "recovery_says_what_is_damaged"),
    ("RecoveryReport.beside_a_writer", "recovery_says_what_opening_found"),
    ("RecoveryReport.directory_lock_refused", "recovery_says_what_opening_found"),
    ("RecoveryReport.foreign", "recovery_says_what_opening_found"),
];

/// The fields of a struct, from its `{:#?}`, as `Struct.field`.
fn fields(value: &impl Debug) -> BTreeSet<String> {
    let text = format!("{value:#?}");
    let (name, body) = text.split_once(" {").unwrap();
    let own = body.lines().filter_map(|line| line.strip_prefix("    "));
    let own = own.filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    own.map(|line| format!("{name}.{}", line.split_once(':').unwrap().0)).collect()
}

#[test]
fn every_figure_has_a_test_that_moves_it() {
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let stats = manage(machine, apply_config(1)).stats();
    let mut shown = fields(&stats);
    shown.extend(fields(&stats.latency));
    shown.extend(fields(&stats.log_writer));
    shown.extend(fields(&stats.times));
    shown.extend(fields(&stats.compaction));
    shown.extend(fields(&stats.memory));
    shown.extend(fields(&stats.disk));
    shown.extend(fields(&stats.machine));
    shown.extend(fields(stats.recovery.as_ref().unwrap()));
    let listed: BTreeSet<_> = FIGURES.iter().map(|(figure, _)| (*figure).to_owned()).collect();
    let untested: Vec<_> = shown.difference(&listed).collect();
    assert!(untested.is_empty(), "write a test that moves them, and list it: {untested:?}");
    let gone: Vec<_> = listed.difference(&shown).collect();
    assert!(gone.is_empty(), "no figures any more: {gone:?}");
    let sources = [include_str!("mod.rs"), include_str!("disk.rs"), include_str!("latency.rs")];
    let source =
        [&sources[..], &[include_str!("reader.rs"), include_str!("times.rs")]].concat().concat();
    for (figure, test) in FIGURES {
        let head = format!("#[test]\nfn {test}()");
        assert!(source.contains(&head), "{figure}: there is no test {test}");
    }
}

/// An embedder's machine that keeps no count, rejects payloads that begin with `!`, and has
/// snapshots.
#[derive(Default)]
struct Own(AtomicU64);

impl StateMachine for Own {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Opaque([b'a'..=b'z', ..]) => Footprint::key(b"one"),
            PayloadRef::Opaque([b'0'..=b'9', ..]) => Footprint::key(b"another"),
            _ => Footprint::All,
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            self.0.fetch_add(1, Ordering::Relaxed);
            if matches!(entry.payload, PayloadRef::Opaque([b'!', ..])) {
                replies.set(&entry, Reply::Rejected(Rejection::Custom(1)));
            }
        }
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        out.write(&self.0.load(Ordering::Relaxed).to_le_bytes()).unwrap();
        Ok(())
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let mut bytes = [0; 8];
        assert_eq!(source.read(&mut bytes).unwrap(), 8);
        self.0.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

/// Entries for both partitions, barriers, and one in ten rejected.
fn opaque(index: u64) -> Entry<'static> {
    let bytes: &[u8] = match index % 10 {
        0 => b"!",
        1 => b"?",
        odd if odd % 2 == 1 => b"a",
        _ => b"0",
    };
    Entry::new(LogId::new(index, 1), Payload::Opaque(bytes))
}

fn memory() -> MemoryStateMachine {
    MemoryStateMachine::new(MemoryConfig::new()).unwrap()
}

/// Applies one entry by `apply`, some by `apply_entries`, and the rest by `apply_batch`.
fn run<M: StateMachine>(manager: &ApplyManager<M>, first: u64, count: u64) {
    manager.apply(&opaque(first), LONG).unwrap();
    let some: Vec<_> = (first + 1..first + count / 2).map(opaque).collect();
    let _ = manager.apply_entries(&some).unwrap();
    manager.apply_batch((first + count / 2..first + count).map(opaque), LONG, |_, _| {}).unwrap();
    manager.flush_pending(LONG).unwrap();
}

#[test]
fn applied_entries_are_counted_once_for_every_machine() {
    let counted = |stats: &ApplyStats| {
        (stats.total_applied, stats.machine.applied_count, stats.machine.last_applied)
    };
    for workers in 1..=3 {
        let own = manage(Own::default(), apply_config(workers));
        run(&own, 1, 100);
        assert_eq!(counted(&own.stats()), (100, 100, Some(100)));
        let from_zero = manage(Own::default(), apply_config(workers));
        run(&from_zero, 0, 40);
        assert_eq!(counted(&from_zero.stats()), (40, 40, Some(39)));
        let built_in = manage(memory(), apply_config(workers));
        run(&built_in, 1, 100);
        assert_eq!(counted(&built_in.stats()), (100, 100, Some(100)));
        assert_eq!(built_in.machine().stats().applied_count, 100);

        let scratch = Scratch::new();
        let open = || {
            let machine = Journaled::open(scratch.config(), Own::default()).unwrap();
            manage(machine, apply_config(workers))
        };
        let manager = open();
        run(&manager, 1, 60);
        assert_eq!(counted(&manager.stats()), (60, 60, Some(60)));
        manager.close(LONG).unwrap();
        let manager = open();
        assert_eq!(counted(&manager.stats()), (0, 60, Some(60)), "replayed, not applied anew");
        run(&manager, 61, 20);
        assert_eq!(counted(&manager.stats()), (20, 80, Some(80)));
        assert_eq!(manager.machine().stats().applied_count, 80);
    }
}

#[test]
fn entries_of_an_installed_snapshot_are_not_counted_as_applied() {
    let scratch = Scratch::new();
    let source = manage(Own::default(), apply_config(2));
    run(&source, 1, 500);
    let mut bytes = Vec::new();
    source.snapshots().write_to(&mut bytes).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let file = beside.path().join("a.snap");
    std::fs::write(&file, bytes).unwrap();
    let snapshot = sprag::Snapshot::open(&file).unwrap();

    let in_memory = manage(Own::default(), apply_config(2));
    run(&in_memory, 1, 10);
    in_memory.snapshots().restore(&snapshot, LONG).unwrap();
    run(&in_memory, 501, 30);
    let stats = in_memory.stats();
    assert_eq!((stats.total_applied, stats.machine.applied_count), (40, 40));
    assert_eq!((stats.applied, stats.machine.last_applied), (Some(530), Some(530)));
    assert_eq!(stats.latency.count, 40);

    let machine = Journaled::open(scratch.config(), Own::default()).unwrap();
    let on_disk = manage(machine, apply_config(2));
    on_disk.snapshots().restore(&snapshot, LONG).unwrap();
    assert_eq!((on_disk.stats().total_applied, on_disk.stats().total_failed), (0, 0));
    run(&on_disk, 501, 30);
    let stats = on_disk.stats();
    assert_eq!((stats.total_applied, stats.machine.applied_count), (30, 30));
    assert_eq!((stats.applied, stats.snapshot), (Some(530), Some(500)));
}

#[test]
fn records_that_jump_over_indexes_count_only_the_entries_they_have() {
    let scratch = Scratch::new();
    let config = scratch.config().commit_mode(CommitMode::ByCommit);
    let machine = Journaled::open(config.contiguity(Contiguity::Monotone), Own::default()).unwrap();
    let manager = manage(machine, apply_config(2));
    let _ = manager.consensus().unwrap().append(&[opaque(3), opaque(4)]).unwrap();
    manager.consensus().unwrap().commit(3).unwrap();
    manager.wait_for_apply(3, LONG).unwrap();
    assert_eq!(manager.stats().total_applied, 1);
    let mut replies = Vec::new();
    manager
        .consensus()
        .unwrap()
        .apply_only(&[opaque(20), opaque(40), opaque(41)], LONG, &mut replies)
        .unwrap();
    let stats = manager.stats();
    assert_eq!((stats.total_applied, stats.machine.applied_count), (4, 4));
    assert_eq!((stats.applied, stats.total_failed), (Some(41), 2));
}

#[test]
fn rejected_entries_are_counted_and_lower_the_success_rate() {
    for workers in 1..=3 {
        let manager = manage(Own::default(), apply_config(workers));
        assert_eq!((manager.stats().total_failed, manager.stats().success_rate), (0, 100.0));
        run(&manager, 1, 100);
        let stats = manager.stats();
        assert_eq!((stats.total_failed, stats.success_rate), (10, 90.0));
        run(&manager, 101, 100);
        assert_eq!(manager.stats().total_failed, 20);
    }
}

fn stepped(disk: &SimDisk, config: ApplyConfig) -> Stepped<PersistentStateMachine> {
    stepped_with(disk, config, |config| config)
}

fn stepped_with(
    disk: &SimDisk,
    config: ApplyConfig,
    with: impl Fn(PersistentConfig) -> PersistentConfig,
) -> Stepped<PersistentStateMachine> {
    let persistent = with(PersistentConfig::new("simulated").segment_bytes(64 << 10));
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), persistent);
    Stepped::new(machine.unwrap(), config).unwrap()
}

fn one_worker() -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::MIN)
}

#[test]
fn marks_and_queues_move_with_each_step() {
    let engine = stepped_with(&SimDisk::new(1), one_worker(), |config| {
        config.commit_mode(CommitMode::ByCommit)
    });
    let shown = || {
        let stats = engine.stats();
        let marks = [
            stats.submitted,
            stats.written,
            stats.durable,
            stats.committed,
            stats.applied,
            stats.acknowledged,
        ];
        (marks.map(|mark| mark.unwrap_or(0)), stats.pipeline_size, stats.pending_count)
    };
    assert_eq!(shown(), ([0; 6], 0, 0));
    let entries: Vec<_> = (1..=7).map(|index| Entry::noop(index, 1)).collect();
    let _ = engine.consensus().unwrap().append(&entries).unwrap();
    assert_eq!(shown(), ([7, 0, 0, 0, 0, 0], 7, 7));
    engine.consensus().unwrap().commit(5).unwrap();
    assert_eq!(shown(), ([7, 0, 0, 5, 0, 0], 7, 7));
    while engine.step_worker(0) {}
    assert_eq!(shown(), ([7, 0, 0, 5, 5, 0], 2, 7));
    while engine.step_log_writer() {}
    assert_eq!(shown(), ([7, 7, 7, 5, 5, 5], 2, 2));
    engine.consensus().unwrap().commit(7).unwrap();
    engine.run_until_idle();
    assert_eq!(shown(), ([7; 6], 0, 0));

    let engine =
        stepped_with(&SimDisk::new(1), one_worker(), |config| config.durability(Durability::Os));
    let _ = engine.apply_entries(&entries).unwrap();
    engine.run_until_idle();
    let stats = engine.stats();
    assert_eq!((stats.written, stats.durable, stats.acknowledged), (Some(7), None, Some(7)));
}

#[test]
fn configured_figures_are_those_of_the_configuration() {
    for (workers, depth) in [(1, 100), (3, 5000)] {
        let config = apply_config(workers).pipeline_depth(depth);
        let manager = manage(memory(), config.clone());
        let stats = manager.stats();
        assert_eq!((stats.worker_count, stats.pipeline_capacity), (workers, depth as u64));
        assert_eq!((stats.io_backend, stats.io_fallback, stats.durability), ("memory", None, None));
        manager.close(LONG).unwrap();
        let pinned = |pin| {
            let manager = manage(memory(), config.clone().pin_workers(pin).inline_apply(false));
            manager.apply(&Entry::noop(1, 1), LONG).unwrap();
            let stats = manager.stats();
            (stats.workers_pinned, stats.pinned_threads.len())
        };
        assert_eq!(pinned(false), (0, 0));
        let (pinned, to_pin) = pinned(true);
        assert!(pinned <= workers as u64 && to_pin == workers);
    }
    let scratch = Scratch::new();
    let interval = Durability::Periodic(Duration::from_secs(9));
    let config = scratch.config().durability(interval).io(IoBackend::Uring).io_uring_refused(true);
    let machine = PersistentStateMachine::open(config).unwrap();
    let stats = ApplyManager::new(machine, apply_config(1)).unwrap().stats();
    assert_eq!((stats.io_backend, stats.durability), ("pwrite", Some(interval)));
    assert!(stats.io_fallback.is_some());
}

/// Puts of a kilobyte.
fn fill<M: StateMachine>(manager: &ApplyManager<M>, first: u64, count: u64) {
    let value = [7; 1024];
    let keys: Vec<_> = (first..first + count).map(u64::to_le_bytes).collect();
    let puts = (first..).zip(&keys).map(|(index, key)| Entry::put(index, 1, key, &value));
    manager.apply_batch(puts, LONG, |_, _| {}).unwrap();
}

/// Proves OPS-3.
#[test]
fn memory_grows_by_what_is_configured() {
    let bytes = |depth, workers| {
        let manager = manage(Own::default(), apply_config(workers).pipeline_depth(depth));
        assert_eq!(manager.stats().memory_bytes, manager.memory_bytes());
        manager.memory_bytes()
    };
    // An entry has twice 32 bytes in the in-flight ring, and a stamp of 24. A ring of a worker has
    // 40 bytes for each range, at most 4,096 ranges.
    assert_eq!(bytes(8192, 1) - bytes(4096, 1), 4096 * (64 + 24));
    assert_eq!(bytes(4096, 2) - bytes(4096, 1), 4096 * 40);
    let scratch = Scratch::new();
    let open = |images| {
        let config = scratch.config().segment_bytes(64 << 10).segment_images(images);
        manage(PersistentStateMachine::open(config).unwrap(), apply_config(1)).memory_bytes()
    };
    assert_eq!(open(4) - open(3), 64 << 10);
}

#[test]
fn memory_is_told_by_what_it_is_for() {
    let scratch = Scratch::new();
    let stats = |depth, workers, images| {
        let config = scratch.config().segment_bytes(64 << 10).segment_images(images);
        let machine = PersistentStateMachine::open(config).unwrap();
        let stats = manage(machine, apply_config(workers).pipeline_depth(depth)).stats();
        let MemoryStats { images, log_queue, in_flight, rings, stamps, .. } = stats.memory;
        assert_eq!(images + log_queue + in_flight + rings + stamps, stats.memory_bytes);
        // Only the key's place in a table counts.
        assert!(stats.machine.memory_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(stats.machine.disk_bytes, None, "the log has everything");
        stats.memory
    };
    let one = stats(4096, 1, 3);
    assert!(one.log_queue > 0);
    assert_eq!(stats(4096, 1, 4).images - one.images, 64 << 10);
    assert_eq!(stats(4096, 2, 3).rings, one.rings * 2);
    let deep = stats(8192, 1, 3);
    assert_eq!((deep.in_flight - one.in_flight, deep.stamps - one.stamps), (4096 * 64, 4096 * 24));
}

#[test]
fn keys_are_those_with_a_value() {
    let scratch = Scratch::new();
    let on_disk = PersistentStateMachine::open(scratch.config()).unwrap();
    let (on_disk, in_memory) =
        (manage(on_disk, apply_config(2)), manage(memory(), apply_config(2)));
    let mut index = 0;
    let mut next = || {
        index += 1;
        index
    };
    let entries = [
        (Entry::put(next(), 1, b"a", b"1"), 1),
        (Entry::put(next(), 1, b"a", b"2"), 1),
        (Entry::increment(next(), 1, b"n", 1), 2),
        (Entry::delete(next(), 1, b"missing"), 2),
        (Entry::delete(next(), 1, b"a"), 1),
        (Entry::noop(next(), 1), 1),
    ];
    for (entry, keys) in entries {
        on_disk.apply(&entry, LONG).unwrap();
        in_memory.apply(&entry, LONG).unwrap();
        assert_eq!(on_disk.stats().machine.keys, keys, "{entry:?}");
        assert_eq!(in_memory.stats().machine.keys, keys, "{entry:?}");
    }
}

#[test]
fn unfilled_chunks_go_down_one_by_one() {
    let disk = SimDisk::new(1);
    let small = |config: PersistentConfig| config.snapshot_chunk_bytes(1024);
    let engine = stepped_with(&disk, one_worker(), small);
    for index in 1..=60 {
        let _ =
            engine.apply_entries(&[Entry::put(index, 1, &index.to_le_bytes(), &[7; 100])]).unwrap();
    }
    engine.run_until_idle();
    engine.snapshots().compact().unwrap();
    drop(engine);
    let engine = stepped_with(&disk, one_worker(), small);
    let chunks = engine.stats().machine.unfilled_chunks;
    // There are 60 records of more than a hundred bytes, at most ten to a chunk.
    assert!((6..=20).contains(&chunks), "{chunks}");
    for left in (0..chunks).rev() {
        assert_eq!(engine.stats().machine.unfilled_chunks, left + 1);
        assert!(engine.step_fill());
    }
    assert_eq!((engine.stats().machine.unfilled_chunks, engine.step_fill()), (0, false));
    assert_eq!(engine.stats().machine.keys, 60);
}

#[test]
fn copies_for_a_view_take_time() {
    let manager = manage(memory(), apply_config(1).inline_apply(false));
    fill(&manager, 1, 2000);
    let shown = || {
        let machine = manager.stats().machine;
        let cpu = [machine.longest_copy_cpu_ns, machine.copy_p999_cpu_ns];
        (cpu, [machine.longest_copy_ns, machine.copy_p999_ns])
    };
    assert_eq!(shown(), ([0; 2], [0; 2]));
    // A worker copies a shard before it writes to it after the token: wait until one does, or the
    // sweep was faster.
    let mut index = 2000;
    while shown().1 == [0; 2] {
        std::thread::scope(|scope| {
            let view = scope.spawn(|| manager.snapshots().view().unwrap());
            for _ in 0..200 {
                index += 1;
                manager.apply(&Entry::put(index, 1, &index.to_le_bytes(), b"v"), LONG).unwrap();
            }
            drop(view.join().unwrap());
        });
    }
    let (_cpu, [longest, p999]) = shown();
    assert!(longest > 0 && p999 > 0 && p999 <= longest, "{longest} {p999}");
}

#[test]
fn cache_figures_are_none_without_a_cache() {
    let manager = manage(memory(), apply_config(1));
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    assert_eq!(manager.machine().get(b"k").unwrap().unwrap(), *b"v");
    let machine = manager.stats().machine;
    assert_eq!((machine.cache_size, machine.cache_hits, machine.cache_misses), (None, None, None));
    assert_eq!(machine.cache_hit_rate, None);
    assert_eq!((machine.cache_bytes, machine.cache_evictions), (None, None));
}
