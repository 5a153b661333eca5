//! The `bench` command: the cost of snapshots, beside their lower bound.
//!
//! [`limit`] measures the lower bound, [`load`] makes the entries, and [`open`] times an open in a
//! separate process.

mod limit;
mod load;
mod open;
mod report;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sprag::{ApplyConfig, ApplyManager, PersistentConfig, PersistentStateMachine};

use crate::args::{Bench, BenchSnapshot, BenchWhat};
use crate::error::{Outcome, about, opening};
use crate::memory;
use crate::output::temporary_directory;
use crate::progress::Progress;
use crate::run::workload::KEY_BYTES;
use limit::Limit;
use load::{Load, Pace};
use open::Opened;
use report::{Report, median, milliseconds, ratio};

type Manager = ApplyManager<PersistentStateMachine>;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Time that the load runs without a snapshot, for comparison.
const ALONE: Duration = Duration::from_secs(1);

pub(crate) fn bench(bench: &Bench, json: bool, out: &mut dyn Write) -> Outcome {
    match &bench.what {
        BenchWhat::Snapshot(options) => snapshot(options, json)?.print(json, out),
        BenchWhat::Open(dir) => open::open(&dir.dir)?.print(json, out),
    }
}

fn snapshot(options: &BenchSnapshot, json: bool) -> Outcome<Report> {
    // Memory for the engine, and twice for the bytes that the limit sorts, gathers and writes.
    let record_bytes = (KEY_BYTES + options.value_bytes) as u64;
    // More bytes than a u64 counts are more than any memory.
    let bytes = u64::from(options.entries).saturating_mul(memory::KEY_BYTES + 2 * record_bytes);
    memory::check(bytes, "--entries and --value-bytes")?;
    let progress = Progress::new(json);
    let parent = temporary_directory("sprag-bench-", options.dir.as_deref())?;
    let dir = parent.path().join("data");
    let keys = options.entries;
    let config = PersistentConfig::new(&dir).expected_keys(keys as usize).compaction(None);
    let machine = PersistentStateMachine::open(config).map_err(opening(&dir))?;
    let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    let mut load = Load::new(keys, options.value_bytes);
    let load_time = {
        let _spinner = progress.spinner("loading");
        let began = Instant::now();
        load.every_key(&manager)?;
        manager.flush_pending(TIMEOUT)?;
        began.elapsed()
    };
    let (mut idle, mut limits) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    {
        let _spinner = progress.spinner("taking snapshots of an idle engine");
        let limit = Limit::new(keys, options.value_bytes);
        for _ in 0..options.rounds {
            let report = manager.snapshots().write().map_err(about(dir.display()))?;
            idle.push(report.elapsed);
            bytes = report.bytes;
            limits.push(limit.run(&parent.path().join("limit"), bytes)?);
        }
    }
    let mut during = Vec::new();
    let mut flat_out = Vec::new();
    {
        let _spinner = progress.spinner("taking snapshots under load");
        for _ in 0..options.rounds {
            during.push(under_load(&manager, &mut load, Pace::PerSecond(options.rate))?);
            flat_out.push(under_load(&manager, &mut load, Pace::FlatOut)?);
        }
    }
    let stats = manager.stats().machine;
    let table_bytes = manager.machine().memory_bytes();
    let compacted = {
        let _spinner = progress.spinner("compacting");
        manager.snapshots().compact().map_err(about(dir.display()))?
    };
    manager.close(TIMEOUT)?;
    let mut opened = Vec::new();
    for _ in 0..options.rounds {
        let _spinner = progress.spinner("opening");
        opened.push(open_apart(&dir)?);
    }
    let empty = parent.path().join("empty");
    drop(PersistentStateMachine::open(PersistentConfig::new(&empty)).map_err(opening(&empty))?);
    let fixed = open_apart(&empty)?.rss_anon_bytes;
    let (idle, limit) = (median(idle), median(limits));
    let per_entry = |bytes: u64| ratio(bytes, u64::from(keys));
    let open_of = |pick: fn(&Opened) -> f64| report::median_of(opened.iter().map(pick).collect());
    let under =
        |pick: fn(&Under) -> f64, of: &[Under]| report::median_of(of.iter().map(pick).collect());
    Ok(Report {
        entries: keys,
        value_bytes: options.value_bytes,
        rounds: options.rounds,
        snapshot_idle_ms: milliseconds(idle),
        limit_ms: milliseconds(limit),
        idle_to_limit: report::three_digits(idle.as_secs_f64() / limit.as_secs_f64()),
        longest_stall_us: report::three_digits(ratio(stats.longest_copy_cpu_ns, 1000)),
        longest_stall_wall_us: report::three_digits(ratio(stats.longest_copy_ns, 1000)),
        stall_p999_us: report::three_digits(ratio(stats.copy_p999_cpu_ns, 1000)),
        stall_wall_p999_us: report::three_digits(ratio(stats.copy_p999_ns, 1000)),
        apply_ratio_during: under(Under::apply_ratio, &during),
        apply_rate: options.rate,
        snapshot_during_ms: under(|one| milliseconds(one.snapshot), &during),
        apply_ratio_during_flat_out: under(Under::apply_ratio, &flat_out),
        apply_rate_flat_out: under(|one| one.alone.round(), &flat_out),
        snapshot_during_flat_out_ms: under(|one| milliseconds(one.snapshot), &flat_out),
        open_first_read_ms: open_of(|one| one.first_read_ms),
        open_complete_ms: open_of(|one| one.complete_ms),
        compact_ms: milliseconds(compacted.elapsed),
        compact_segments: compacted.segments,
        load_seconds: report::three_digits(load_time.as_secs_f64()),
        snapshot_bytes: bytes,
        bytes_per_entry: report::three_digits(per_entry(bytes)),
        resident_bytes_per_entry: report::three_digits(per_entry(table_bytes as u64)),
        rss_anon_bytes_per_entry: report::three_digits(
            (open_of(|one| one.rss_anon_bytes) - fixed) / f64::from(keys),
        ),
    })
}

/// Figures of a snapshot under load.
struct Under {
    /// Entries applied a second without a snapshot, and during one.
    alone: f64,
    during: f64,
    snapshot: Duration,
}

impl Under {
    fn apply_ratio(&self) -> f64 {
        report::three_digits(self.during / self.alone)
    }
}

/// Runs the load for [`ALONE`], and then for as long as a snapshot takes.
fn under_load(manager: &Manager, load: &mut Load, pace: Pace) -> Outcome<Under> {
    let began = Instant::now();
    let alone = load.overwrite(manager, pace, &|| began.elapsed() < ALONE)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let report = manager.snapshots().write();
            done.store(true, Ordering::Release);
            report
        });
        let during = load.overwrite(manager, pace, &|| !done.load(Ordering::Acquire));
        let report = taker.join().map_err(|_panic| "taking a snapshot panicked")?;
        let snapshot = report.map_err(about("taking a snapshot"))?.elapsed;
        Ok(Under { alone, during: during?, snapshot })
    })
}

/// Opens the directory in a new process, so that this process's memory is not in the figures.
fn open_apart(dir: &Path) -> Outcome<Opened> {
    let program = std::env::current_exe().map_err(about("finding this program"))?;
    let output = Command::new(program).args(["--json", "bench", "open"]).arg(dir).output();
    let output = output.map_err(about("starting this program again"))?;
    if !output.status.success() {
        let failure = serde_json::from_slice::<serde_json::Value>(&output.stderr);
        // Output that is no JSON says nothing; then the exit status does.
        let said = failure.ok().and_then(|failure| Some(failure["error"].as_str()?.to_owned()));
        return Err(said.unwrap_or_else(|| format!("opening it again: {}", output.status)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
