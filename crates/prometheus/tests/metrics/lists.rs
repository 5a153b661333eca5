//! Tests of the three lists of figures that a state machine and an apply manager promise: each
//! figure is in a scrape.

use sprag::testing::{SimDisk, Stepped};
use sprag::{
    ApplyConfig, ApplyManager, ApplyStats, Entry, PersistentConfig, PersistentStateMachine,
    StateMachine,
};
use sprag_prometheus::SpragCollector;

use crate::scrape::Scrape;
use crate::{Cached, LONG, memory, persistent, registry, registry_of, stored};

/// A figure: its name in the list, where a scrape has it, and its expected value.
type Figure = (&'static str, fn(&Scrape) -> Option<f64>, fn(&ApplyStats) -> Option<f64>);

/// The statistics of a persistent state machine.
const MACHINE: &[Figure] = &[
    (
        "applied_count",
        |scrape| scrape.sum("sprag_machine_applied_entries_total", &[]),
        |stats| Some(stats.machine.applied_count as f64),
    ),
    (
        "last_applied",
        |scrape| scrape.sum("sprag_log_index", &[("mark", "applied")]),
        |stats| stats.machine.last_applied.map(|index| index as f64),
    ),
    (
        "last_snapshot",
        |scrape| scrape.sum("sprag_log_index", &[("mark", "snapshot")]),
        |stats| stats.machine.last_snapshot.map(|index| index as f64),
    ),
    (
        "queue_size",
        |scrape| scrape.sum("sprag_pipeline_entries", &[("waiting_for", "applied")]),
        |stats| Some(stats.pipeline_size as f64),
    ),
];

/// The statistics of the machine's read cache, where it has one.
const CACHE: &[Figure] = &[
    (
        "cache_size",
        |scrape| scrape.sum("sprag_cache_entries", &[]),
        |stats| stats.machine.cache_size.map(|size| size as f64),
    ),
    (
        "cache_hits",
        |scrape| scrape.sum("sprag_cache_gets_total", &[("result", "hit")]),
        |stats| stats.machine.cache_hits.map(|hits| hits as f64),
    ),
    (
        "cache_misses",
        |scrape| scrape.sum("sprag_cache_gets_total", &[("result", "miss")]),
        |stats| stats.machine.cache_misses.map(|misses| misses as f64),
    ),
    (
        "cache_hit_rate",
        |scrape| scrape.sum("sprag_cache_hit_ratio", &[]).map(|ratio| ratio * 100.0),
        |stats| stats.machine.cache_hit_rate,
    ),
];

/// The statistics of an apply manager.
const MANAGER: &[Figure] = &[
    (
        "total_applied",
        |scrape| scrape.sum("sprag_applied_entries_total", &[]),
        |stats| Some(stats.total_applied as f64),
    ),
    (
        "total_failed",
        |scrape| scrape.sum("sprag_rejected_entries_total", &[]),
        |stats| Some(stats.total_failed as f64),
    ),
    (
        "average_latency_ms",
        |scrape| {
            let mean = &[("statistic", "mean")];
            scrape.sum("sprag_acknowledge_latency_seconds", mean).map(|mean| mean * 1000.0)
        },
        |stats| Some(stats.average_latency_ms),
    ),
    (
        "pending_count",
        |scrape| scrape.sum("sprag_pipeline_entries", &[("waiting_for", "acknowledged")]),
        |stats| Some(stats.pending_count as f64),
    ),
    (
        "pipeline_size",
        |scrape| scrape.sum("sprag_pipeline_entries", &[("waiting_for", "applied")]),
        |stats| Some(stats.pipeline_size as f64),
    ),
    (
        "pipeline_capacity",
        |scrape| scrape.sum("sprag_pipeline_capacity_entries", &[]),
        |stats| Some(stats.pipeline_capacity as f64),
    ),
    (
        "worker_count",
        |scrape| scrape.sum("sprag_workers", &[]),
        |stats| Some(stats.worker_count as f64),
    ),
    (
        "success_rate",
        |scrape| scrape.sum("sprag_success_ratio", &[]).map(|ratio| ratio * 100.0),
        |stats| Some(stats.success_rate),
    ),
];

/// The calls that observe the manager's pipeline.
const CALLS: &[Figure] = &[
    (
        "pipeline_utilization",
        |scrape| scrape.sum("sprag_pipeline_utilization_ratio", &[]),
        |stats| Some(stats.pending_count as f64 / stats.pipeline_capacity as f64),
    ),
    ("is_pipeline_full", |scrape| scrape.sum("sprag_pipeline_full", &[]), |_| Some(0.0)),
    (
        "pending_count",
        |scrape| scrape.sum("sprag_pipeline_entries", &[("waiting_for", "acknowledged")]),
        |stats| Some(stats.pending_count as f64),
    ),
];

fn check<M: StateMachine>(manager: &ApplyManager<M>, lists: &[&[Figure]]) {
    let scrape = Scrape::of(&registry_of(manager));
    let stats = manager.stats();
    for (name, in_scrape, must) in lists.iter().copied().flatten() {
        let shown = in_scrape(&scrape).unwrap_or_else(|| panic!("{name} is not in a scrape"));
        let must = must(&stats).unwrap_or_else(|| panic!("{name} is not in the figures"));
        assert!((shown - must).abs() <= must.abs() * 1e-9, "{name}: {shown}, must be {must}");
    }
}

#[test]
fn every_figure_of_the_three_lists_is_found_in_a_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let manager = persistent(&dir);
    for index in 1..=30 {
        manager.apply(&Entry::put(index, 1, &index.to_le_bytes(), b"value"), LONG).unwrap();
    }
    // Make one rejection: an increment of a value that is no number.
    manager.apply(&Entry::increment(31, 1, &1u64.to_le_bytes(), 1), LONG).unwrap();
    manager.snapshots().write().unwrap();
    let stats = manager.stats();
    assert_eq!((stats.total_applied, stats.total_failed), (31, 1));
    assert_eq!(stats.machine.last_snapshot, Some(31));
    check(&manager, &[MACHINE, MANAGER, CALLS]);
    manager.close(LONG).unwrap();
    let cached = ApplyManager::new(Cached, ApplyConfig::new()).unwrap();
    assert_eq!(cached.stats().machine.cache_hit_rate, Some(75.0));
    check(&cached, &[CACHE]);
    let scrape = Scrape::of(&registry_of(&cached));
    assert_eq!(scrape.sum("sprag_memory_bytes", &[("kind", "machine")]), Some(4096.0));
    assert_eq!(scrape.sum("sprag_disk_bytes", &[("kind", "machine")]), Some(8192.0));
}

#[test]
fn a_machine_over_a_storage_has_the_times_of_the_storage_and_none_of_a_log() {
    let manager = stored();
    let (scrape, times) = (Scrape::of(&registry_of(&manager)), manager.stats().times);
    let commits = scrape.sum("sprag_storage_commit_seconds_count", &[]);
    assert_eq!(commits, Some(times.storage_commit.count() as f64));
    assert_eq!(scrape.sum("sprag_storage_sync_seconds_count", &[]), Some(0.0));
    assert_eq!(scrape.sum("sprag_log_write_seconds_count", &[]), None);
    // The storage's own figure of its memory.
    let bytes = scrape.sum("sprag_memory_bytes", &[("kind", "machine")]);
    assert_eq!(bytes, manager.stats().machine.memory_bytes.map(|bytes| bytes as f64));
    assert!(bytes > Some(0.0));
    let dir = tempfile::tempdir().unwrap();
    let scrape = Scrape::of(&registry_of(&persistent(&dir)));
    assert_eq!(scrape.sum("sprag_storage_commit_seconds_count", &[]), None);
}

#[test]
fn a_histogram_is_cumulative_and_has_the_sum_and_count_of_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let manager = persistent(&dir);
    for index in 1..=20 {
        manager.apply(&Entry::put(index, 1, b"k", b"v"), LONG).unwrap();
    }
    let (scrape, stats) = (Scrape::of(&registry_of(&manager)), manager.stats());
    let times = &stats.times;
    for (name, count, sum) in [
        ("sprag_log_write_seconds", times.log_write.count(), times.log_write.sum().as_secs_f64()),
        ("sprag_log_sync_seconds", times.log_sync.count(), times.log_sync.sum().as_secs_f64()),
        ("sprag_log_group_entries", times.group_entries.count(), 20.0),
        ("sprag_log_group_bytes", times.group_bytes.count(), times.group_bytes.sum() as f64),
        ("sprag_recovery_seconds", 1, times.recovery.sum().as_secs_f64()),
    ] {
        assert!(count > 0, "{name}");
        let of_it = |suffix| scrape.sum(&format!("{name}{suffix}"), &[]).unwrap();
        assert_eq!((of_it("_count"), of_it("_sum")), (count as f64, sum), "{name}");
        let bucket = format!("{name}_bucket");
        let buckets: Vec<_> =
            scrape.samples.iter().filter(|sample| sample.name == bucket).collect();
        assert!(buckets.is_sorted_by(|a, b| a.value <= b.value), "{name}");
        let bounds = buckets.iter().map(|sample| sample.labels["le"].parse::<f64>().unwrap());
        assert!(bounds.is_sorted_by(|a, b| a < b), "{name}");
        let last = buckets.last().unwrap();
        assert_eq!((&*last.labels["le"], last.value), ("+Inf", count as f64), "{name}");
    }
    manager.close(LONG).unwrap();
}

#[test]
fn what_waits_is_found_in_a_scrape_while_it_waits() {
    let disk = SimDisk::new(1);
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    let engine = Stepped::new(machine, ApplyConfig::new().pipeline_depth(7)).unwrap();
    let entries: Vec<_> = (1..=7).map(|index| Entry::put(index, 1, b"k", b"v")).collect();
    let _ = engine.apply_entries(&entries).unwrap();
    let collector = SpragCollector::new();
    collector.add("stepped", engine.stats_reader()).unwrap();
    let registry = registry(&collector);
    let shown = || {
        let scrape = Scrape::of(&registry);
        [
            scrape.sum("sprag_pipeline_entries", &[("waiting_for", "acknowledged")]).unwrap(),
            scrape.sum("sprag_pipeline_entries", &[("waiting_for", "applied")]).unwrap(),
            scrape.sum("sprag_pipeline_full", &[]).unwrap(),
            scrape.sum("sprag_pipeline_utilization_ratio", &[]).unwrap(),
            scrape.sum("sprag_log_index", &[("mark", "submitted")]).unwrap(),
            scrape.sum("sprag_log_index", &[("mark", "durable")]).unwrap(),
        ]
    };
    assert_eq!(shown(), [7.0, 7.0, 1.0, 1.0, 7.0, 0.0]);
    for worker in 0..engine.workers() {
        while engine.step_worker(worker) {}
    }
    assert_eq!(shown(), [7.0, 0.0, 1.0, 1.0, 7.0, 0.0]);
    engine.run_until_idle();
    assert_eq!(shown(), [0.0, 0.0, 0.0, 0.0, 7.0, 7.0]);
}

#[test]
fn a_machine_without_a_log_has_no_series_of_one() {
    let manager = memory();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    let scrape = Scrape::of(&registry_of(&manager));
    for mark in ["submitted", "committed", "applied", "acknowledged"] {
        assert_eq!(scrape.sum("sprag_log_index", &[("mark", mark)]), Some(1.0), "{mark}");
    }
    for mark in ["written", "durable", "snapshot", "purged"] {
        assert_eq!(scrape.sum("sprag_log_index", &[("mark", mark)]), None, "{mark}");
    }
    assert_eq!(scrape.sum("sprag_log_syncs_total", &[]), None);
    assert_eq!(scrape.sum("sprag_disk_bytes", &[]), None);
    assert!(!scrape.types.contains_key("sprag_log_syncs_total"), "without a sample, no metric");
    manager.close(LONG).unwrap();
}
