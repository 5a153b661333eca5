//! The table of metrics: the name of each, and the figure that it reads. A test compares
//! `docs/operating.md` with it.

use std::fmt;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use sprag::error::Poison;
use sprag::{ApplyStats, Durability, PinOutcome};

use crate::samples::Samples;

/// One metric.
pub(crate) struct Family {
    /// Name without the suffix of its unit, and without `_total` or `_info`.
    pub(crate) name: &'static str,
    pub(crate) unit: Option<Unit>,
    pub(crate) kind: MetricType,
    /// The labels of each sample beside `engine`, in order.
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
    pub(crate) read: fn(&ApplyStats, &mut Samples<'_>) -> fmt::Result,
}

/// A metric as a scrape shows it, for the test of the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Full name of the family.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Labels of the family beside `engine`.
    pub labels: &'static [&'static str],
    /// Help text of the family.
    pub help: &'static str,
}

/// Returns every metric.
#[must_use]
pub fn described() -> Vec<Described> {
    let described = |family: &Family| {
        let unit = family.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        let (suffix, kind) = match family.kind {
            MetricType::Counter => ("_total", "counter"),
            MetricType::Info => ("_info", "gauge"),
            MetricType::Histogram => ("", "histogram"),
            _ => ("", "gauge"),
        };
        let name = format!("{}{unit}{suffix}", family.name);
        Described { name, kind, labels: family.labels, help: family.help }
    };
    FAMILIES.iter().map(described).collect()
}

const SECONDS: Option<Unit> = Some(Unit::Seconds);
const BYTES: Option<Unit> = Some(Unit::Bytes);

macro_rules! families {
    ($($kind:ident $name:literal $(in $unit:ident)?, [$($label:literal),*], $help:literal:
        $read:expr;)*) => {
        /// Every metric, in the order of a scrape.
        pub(crate) static FAMILIES: &[Family] = &[$(Family {
            name: $name,
            unit: families!(@unit $($unit)?),
            kind: MetricType::$kind,
            labels: &[$($label),*],
            help: $help,
            read: $read,
        }),*];
    };
    (@unit) => { None };
    (@unit $unit:ident) => { $unit };
}

families! {
    // Indexes of the log.
    Gauge "sprag_log_index", ["mark"],
        "Last index that a mark has reached, 0 before the first; the lag between two is their difference":
        marks;
    Counter "sprag_applied_entries", [],
        "Entries applied since the manager was made, those of an installed snapshot apart":
        |stats, out| out.whole(&[], stats.total_applied);
    Counter "sprag_rejected_entries", [], "Applied entries whose reply was a rejection":
        |stats, out| out.whole(&[], stats.total_failed);
    Gauge "sprag_success_ratio", [],
        "Applied entries that were not rejected, of all applied, from 0 to 1":
        |stats, out| out.real(&[], stats.success_rate / 100.0);
    Gauge "sprag_pipeline_entries", ["waiting_for"],
        "Entries submitted that are not acknowledged, or not applied":
        |stats, out| {
            out.whole(&[("waiting_for", "acknowledged")], stats.pending_count)?;
            out.whole(&[("waiting_for", "applied")], stats.pipeline_size)
        };
    Gauge "sprag_pipeline_capacity_entries", [],
        "Most entries that may wait to be acknowledged":
        |stats, out| out.whole(&[], stats.pipeline_capacity);
    Gauge "sprag_pipeline_utilization_ratio", [],
        "Entries that wait to be acknowledged, of the most that may, from 0 to 1":
        |stats, out| out.real(&[], utilization(stats));
    Gauge "sprag_pipeline_full", [],
        "1 if a submission of one entry would be refused as full":
        |stats, out| out.flag(&[], stats.pending_count >= stats.pipeline_capacity);
    Gauge "sprag_acknowledge_latency" in SECONDS, ["statistic"],
        "Time from submission to acknowledgement over all entries since the manager was made":
        latency;
    Counter "sprag_acknowledge_latency_entries", ["measured"],
        "Entries acknowledged, by whether their latency was measured":
        |stats, out| {
            out.whole(&[("measured", "true")], stats.latency.count)?;
            out.whole(&[("measured", "false")], stats.latency.unmeasured)
        };

    // Threads.
    Gauge "sprag_workers", ["pinned"],
        "Threads that apply entries, by whether they are pinned to a core":
        |stats, out| {
            let pinned = stats.workers_pinned;
            out.whole(&[("pinned", "true")], pinned)?;
            // At most every worker is pinned.
            out.whole(&[("pinned", "false")], (stats.worker_count as u64).saturating_sub(pinned))
        };
    Gauge "sprag_thread_pinned", ["thread", "core"],
        "1 for a thread that is pinned to this core, 0 for one that was to be":
        pinned_threads;
    Gauge "sprag_waker_longest" in SECONDS, [],
        "Longest call of a waker since the manager was made; it holds up the thread that moves a mark":
        |stats, out| out.real(&[], stats.waker_longest.as_secs_f64());
    Counter "sprag_waker_panics", [], "Calls of a waker that panicked":
        |stats, out| out.whole(&[], stats.wakers_panicked);

    // The log.
    Counter "sprag_log_writes", [], "Writes to the log; each is a group of frames":
        |stats, out| of_log(stats, |out| out.whole(&[], stats.log_writer.groups), out);
    Counter "sprag_log_written" in BYTES, [], "Bytes written to the log":
        |stats, out| of_log(stats, |out| out.whole(&[], stats.log_writer.bytes), out);
    Counter "sprag_log_syncs", [], "Syncs of the log":
        |stats, out| of_log(stats, |out| out.whole(&[], stats.log_writer.syncs), out);
    Gauge "sprag_log_durable_frame", [], "Sequence of the last frame that is on stable storage":
        |stats, out| of_log(stats, |out| out.whole(&[], stats.log_writer.durable_sequence), out);
    Counter "sprag_log_recycled_segments", [], "Segments begun in files that other segments had":
        |stats, out| of_log(stats, |out| out.whole(&[], stats.log_writer.recycled_segments), out);
    Gauge "sprag_log_segments", [], "Segments of the log":
        |stats, out| of_log(stats, |out| out.whole(&[], stats.disk.segments), out);
    Info "sprag_io", ["backend", "durability", "fallback"],
        "How the log is written, when an entry is acknowledged, and why the backend is not the one asked for":
        |stats, out| {
            let durability = stats.durability.map_or("none", durability);
            let fallback = stats.io_fallback.as_deref().unwrap_or_default();
            let backend = ("backend", stats.io_backend);
            out.info(&[backend, ("durability", durability), ("fallback", fallback)])
        };

    // Times.
    Histogram "sprag_log_write" in SECONDS, [],
        "Time of a write of a group of frames to the log; one that is written and synced in one request counts as a sync":
        |stats, out| of_log(stats, |out| out.times(&stats.times.log_write), out);
    Histogram "sprag_log_sync" in SECONDS, [], "Time of a sync of the log, from the write before it":
        |stats, out| of_log(stats, |out| out.times(&stats.times.log_sync), out);
    Histogram "sprag_log_group_entries", [], "Entries of a group, which one write of the log takes":
        |stats, out| of_log(stats, |out| out.sizes(&stats.times.group_entries), out);
    Histogram "sprag_log_group" in BYTES, [], "Bytes of a group":
        |stats, out| of_log(stats, |out| out.sizes(&stats.times.group_bytes), out);
    Histogram "sprag_segment_wait" in SECONDS, [],
        "Time that the log writer waited for the file of the next segment":
        |stats, out| of_log(stats, |out| out.times(&stats.times.segment_wait), out);
    Histogram "sprag_submit_to_durable" in SECONDS, [],
        "Time from a submission until it is durable; of the one that waited longest for a sync":
        |stats, out| of_log(stats, |out| out.times(&stats.times.submit_to_durable), out);
    Histogram "sprag_submit_to_applied" in SECONDS, [],
        "Time from a submission until its last entry is in the state; a sample of the submissions":
        |stats, out| out.times(&stats.times.submit_to_applied);
    Histogram "sprag_apply_range" in SECONDS, [],
        "Time that a worker takes for its part of a range of entries; short ones are sampled":
        |stats, out| out.times(&stats.times.apply_range);
    Histogram "sprag_snapshot" in SECONDS, [], "Time of writing a snapshot that succeeded":
        |stats, out| out.times(&stats.times.snapshot);
    Histogram "sprag_compaction" in SECONDS, [], "Time of a compaction that succeeded":
        |stats, out| of_log(stats, |out| out.times(&stats.times.compaction), out);
    Histogram "sprag_storage_commit" in SECONDS, [],
        "Time of a commit of a batch by a storage that is not the log, with the sync that goes with it":
        |stats, out| of_storage(stats, |out| out.times(&stats.times.storage_commit), out);
    Histogram "sprag_storage_sync" in SECONDS, [],
        "Time of a sync of such a storage apart from a commit":
        |stats, out| of_storage(stats, |out| out.times(&stats.times.storage_sync), out);
    Histogram "sprag_recovery" in SECONDS, [], "Time of opening the directory":
        |stats, out| of_log(stats, |out| out.times(&stats.times.recovery), out);

    // Failures.
    Gauge "sprag_poisoned", ["reason"],
        "1 for the kind of the first failure, after which the engine begins no step":
        |stats, out| {
            let reason = stats.poison.as_ref().map(Poison::reason);
            let mut reasons = Poison::REASONS.iter();
            reasons.try_for_each(|kind| out.flag(&[("reason", kind)], reason == Some(kind)))
        };

    // Snapshots and compaction.
    Counter "sprag_compactions", ["outcome"],
        "Compactions that ended, by what came of them":
        |stats, out| {
            let compaction = &stats.compaction;
            let (full, failed) = (compaction.failed_disk_full, compaction.failed);
            of_log(stats, |out| {
                out.whole(&[("outcome", "done")], compaction.done)?;
                out.whole(&[("outcome", "disk_full")], full)?;
                // The two figures are read one after the other; a failure may come between.
                out.whole(&[("outcome", "failed")], failed.saturating_sub(full))
            }, out)
        };
    Gauge "sprag_compaction_failing", [], "1 if the last compaction failed":
        |stats, out| {
            of_log(stats, |out| out.flag(&[], stats.compaction.last_error.is_some()), out)
        };

    // Memory and disk.
    Gauge "sprag_memory" in BYTES, ["kind"],
        "Memory by what it is for; keys and values in memory are not counted":
        memory;
    Gauge "sprag_disk" in BYTES, ["kind"], "Files by what they are for": disk;

    // Recovery at opening.
    Gauge "sprag_recovery_index", ["mark"],
        "Last index that opening found in the log, replayed, found in the snapshot, or purged; 0 for none":
        recovery_marks;
    Gauge "sprag_recovery_frames", [], "Frames of the log that opening read":
        |stats, out| recovered(stats, out, |found| found.frames);
    Gauge "sprag_recovery_cut" in BYTES, [], "Bytes of the torn end of the log that opening cut":
        |stats, out| recovered(stats, out, |found| found.cut.as_ref().map_or(0, |cut| cut.bytes));
    Gauge "sprag_recovery_cut_entries", [], "Whole entries among the bytes that opening cut":
        |stats, out| recovered(stats, out, |found| {
            let indexes = found.cut.as_ref().and_then(|cut| cut.indexes);
            // A range of indexes has `first` at or below `last`.
            indexes.map_or(0, |(first, last)| (last + 1).saturating_sub(first))
        });
    Gauge "sprag_recovery_meta_slot_damaged", [], "1 if one of the two slots of META did not read back":
        |stats, out| recovered(stats, out, |found| u64::from(found.meta_slot_damaged));
    Gauge "sprag_recovery_damaged_snapshots", [], "Snapshots that opening passed over as damaged":
        |stats, out| recovered(stats, out, |found| found.damaged_snapshots.len() as u64);
    Gauge "sprag_recovery_foreign_files", [], "Files in the directory that are not of the engine":
        |stats, out| recovered(stats, out, |found| found.foreign.count);
    Gauge "sprag_recovery_directory_unlocked", [],
        "1 if the directory itself, beside its lock file, could not be locked":
        |stats, out| recovered(stats, out, |found| {
            u64::from(found.directory_lock_refused.is_some())
        });

    // The state machine.
    Counter "sprag_machine_applied_entries", [],
        "Entries applied since the machine was opened, replayed ones included":
        |stats, out| out.whole(&[], stats.machine.applied_count);
    Gauge "sprag_machine_keys", [], "Keys in the state":
        |stats, out| out.whole(&[], stats.machine.keys);
    Gauge "sprag_machine_unfilled_chunks", [],
        "Chunks of the snapshot opened from that are not in the store yet":
        |stats, out| out.whole(&[], stats.machine.unfilled_chunks);
    Gauge "sprag_machine_copy" in SECONDS, ["clock", "statistic"],
        "Time for which a worker stopped to copy a shard for a view":
        |stats, out| {
            let machine = &stats.machine;
            for (clock, statistic, ns) in [
                ("cpu", "p999", machine.copy_p999_cpu_ns),
                ("cpu", "max", machine.longest_copy_cpu_ns),
                ("wall", "p999", machine.copy_p999_ns),
                ("wall", "max", machine.longest_copy_ns),
            ] {
                out.real(&[("clock", clock), ("statistic", statistic)], seconds(ns))?;
            }
            Ok(())
        };
    Gauge "sprag_cache_entries", [], "Entries in the read cache":
        |stats, out| maybe(stats.machine.cache_size, |size| out.whole(&[], size));
    Gauge "sprag_cache" in BYTES, [], "Keys and values in the read cache":
        |stats, out| maybe(stats.machine.cache_bytes, |bytes| out.whole(&[], bytes));
    Counter "sprag_cache_evictions", [], "Entries that the read cache let go to make room":
        |stats, out| maybe(stats.machine.cache_evictions, |evicted| out.whole(&[], evicted));
    Counter "sprag_cache_gets", ["result"], "Gets, by whether the read cache answered":
        |stats, out| {
            maybe(stats.machine.cache_hits, |hits| out.whole(&[("result", "hit")], hits))?;
            maybe(stats.machine.cache_misses, |misses| out.whole(&[("result", "miss")], misses))
        };
    Gauge "sprag_cache_hit_ratio", [], "Gets that the read cache answered, of all gets, from 0 to 1":
        |stats, out| maybe(stats.machine.cache_hit_rate, |rate| out.real(&[], rate / 100.0));

    Info "sprag_build", ["version"], "The version of sprag":
        |_, out| out.info(&[("version", env!("CARGO_PKG_VERSION"))]);
}

fn marks(stats: &ApplyStats, out: &mut Samples<'_>) -> fmt::Result {
    let mut put = |mark, index: Option<u64>| out.whole(&[("mark", mark)], index.unwrap_or(0));
    put("submitted", stats.submitted)?;
    put("committed", stats.committed)?;
    put("applied", stats.applied)?;
    put("acknowledged", stats.acknowledged)?;
    if stats.durability.is_some() {
        put("written", stats.written)?;
        put("durable", stats.durable)?;
        put("snapshot", stats.snapshot)?;
        put("purged", stats.purged)?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a ratio")]
fn utilization(stats: &ApplyStats) -> f64 {
    (stats.pending_count as f64 / stats.pipeline_capacity.max(1) as f64).min(1.0)
}

#[allow(clippy::cast_precision_loss, reason = "seconds of nanoseconds")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn latency(stats: &ApplyStats, out: &mut Samples<'_>) -> fmt::Result {
    let latency = &stats.latency;
    for (statistic, ns) in [
        ("mean", latency.mean_ns),
        ("p50", latency.p50_ns),
        ("p90", latency.p90_ns),
        ("p99", latency.p99_ns),
        ("p999", latency.p999_ns),
        ("max", latency.max_ns),
    ] {
        out.real(&[("statistic", statistic)], seconds(ns))?;
    }
    Ok(())
}

fn pinned_threads(stats: &ApplyStats, out: &mut Samples<'_>) -> fmt::Result {
    stats.pinned_threads.iter().try_for_each(|pinned| {
        let core = pinned.core.map_or(String::new(), |core| core.to_string());
        let is_pinned = pinned.outcome == PinOutcome::Pinned;
        out.flag(&[("thread", &pinned.thread), ("core", &core)], is_pinned)
    })
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Periodic(_) => "periodic",
        Durability::Os => "os",
        _ => "other",
    }
}

/// Writes a figure of the log; writes nothing for a machine without a log.
fn of_log(
    stats: &ApplyStats,
    put: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    out: &mut Samples<'_>,
) -> fmt::Result {
    if stats.recovery.is_some() { put(out) } else { Ok(()) }
}

/// Writes a figure of a storage that is not the log, from its first commit on.
fn of_storage(
    stats: &ApplyStats,
    put: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    out: &mut Samples<'_>,
) -> fmt::Result {
    if stats.times.storage_commit.count() > 0 { put(out) } else { Ok(()) }
}

/// Writes a value if there is one.
fn maybe<T>(value: Option<T>, put: impl FnOnce(T) -> fmt::Result) -> fmt::Result {
    value.map_or(Ok(()), put)
}

fn memory(stats: &ApplyStats, out: &mut Samples<'_>) -> fmt::Result {
    let memory = &stats.memory;
    for (kind, bytes) in [
        ("images", memory.images),
        ("log_queue", memory.log_queue),
        ("in_flight", memory.in_flight),
        ("rings", memory.rings),
        ("stamps", memory.stamps),
    ] {
        out.whole(&[("kind", kind)], bytes as u64)?;
    }
    maybe(stats.machine.memory_bytes, |bytes| out.whole(&[("kind", "machine")], bytes))
}

fn disk(stats: &ApplyStats, out: &mut Samples<'_>) -> fmt::Result {
    if stats.recovery.is_some() {
        out.whole(&[("kind", "segments")], stats.disk.segment_bytes)?;
        out.whole(&[("kind", "spare_segments")], stats.disk.spare_bytes)?;
        out.whole(&[("kind", "snapshot")], stats.disk.snapshot_bytes)?;
    }
    maybe(stats.machine.disk_bytes, |bytes| out.whole(&[("kind", "machine")], bytes))
}

fn recovery_marks(stats: &ApplyStats, out: &mut Samples<'_>) -> fmt::Result {
    maybe(stats.recovery.as_ref(), |found| {
        let mut put = |mark, index: Option<u64>| out.whole(&[("mark", mark)], index.unwrap_or(0));
        put("last", found.last.map(|last| last.index))?;
        put("applied", found.applied)?;
        put("snapshot", found.snapshot.map(|last| last.index))?;
        put("purged", found.purged.map(|last| last.index))
    })
}

fn recovered(
    stats: &ApplyStats,
    out: &mut Samples<'_>,
    figure: impl FnOnce(&sprag::RecoveryReport) -> u64,
) -> fmt::Result {
    maybe(stats.recovery.as_ref(), |found| out.whole(&[], figure(found)))
}
