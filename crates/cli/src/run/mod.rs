//! The `run` command: the main job.
//!
//! The steps in order: [`workload`] makes the entries, [`submit`] times them (while [`ack_file`]
//! follows), and [`reads`] times gets. Then this module checks the result, and [`report`] prints
//! it.

mod ack_file;
mod digest;
mod reads;
pub(crate) mod report;
mod submit;
mod times;
pub(crate) mod workload;
pub(crate) mod zipf;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sprag::{
    ApplyConfig, ApplyManager, ApplyStats, Durability, IoBackend, LogId, MemoryConfig,
    MemoryStateMachine, PersistentConfig, PersistentStateMachine, Profile, Reader, StateMachine,
    Storage, StorageConfig, StorageMachine,
};

use crate::args::{AckOn, Io, Kept, Machine, RunOptions};
use crate::disk::bytes_on_disk;
use crate::error::{Failure, Outcome, about, one_line, opening};
use crate::memory;
use crate::metrics::Server;
use crate::output::{Output, TemporaryDirectory, temporary_directory};
use crate::progress::Progress;
use crate::recovered::say_recovered;
use crate::stored;
use digest::Digest;
use reads::{GetFigures, Readable};
use report::{Report, three_digits};
use submit::{Submitted, Submitter, TIMEOUT};
use times::Times;
use workload::{KEY_BYTES, Workload};
use zipf::mix;

/// Interval of the kernel's syncs under `--durability periodic`.
const SYNC_EVERY: Duration = Duration::from_millis(100);

pub(crate) fn run(options: &RunOptions, json: bool, out: &mut dyn Write) -> Outcome {
    check_usage(options)?;
    let decide = |path| ack_file::decide(path, options.dir.as_deref(), options.force);
    let acks = options.ack_file.as_deref().map(decide).transpose()?;
    let progress = Progress::new(json);
    let metrics = options.metrics.map(Server::start).transpose()?;
    let (acks, metrics) = (acks.as_ref(), metrics.as_ref());
    let config = || storage_config_of(options);
    let report = match (options.machine, options.storage) {
        (Machine::Memory, _) => run_memory(options, acks, metrics, progress)?,
        (Machine::Persistent, Kept::Log) => run_persistent(options, acks, metrics, progress)?,
        (Machine::Persistent, Kept::Fjall) => {
            let open = |dir: &Path| stored::open_fjall(dir, config());
            run_stored(options, acks, metrics, progress, open)?
        }
        (Machine::Persistent, Kept::Redb) => {
            let open = |dir: &Path| stored::open_redb(dir, config());
            run_stored(options, acks, metrics, progress, open)?
        }
    };
    report.print(json, out)?;
    match report.complaint() {
        None => Ok(()),
        Some(complaint) => Err(format!("not verified: {complaint}").into()),
    }
}

/// Checks the rules between options that the parser cannot check.
fn check_usage(options: &RunOptions) -> Outcome {
    if options.pipeline.is_some_and(|pipeline| pipeline < options.batch) {
        let what = "--pipeline must be at least --batch: a submission is taken whole or not at all";
        return Err(Failure::usage(what));
    }
    if options.machine == Machine::Memory && options.dir.is_some() {
        return Err(Failure::usage(
            "--machine memory keeps nothing on disk: it goes without --dir",
        ));
    }
    if options.storage != Kept::Log {
        if options.machine == Machine::Memory {
            return Err(Failure::usage(
                "--machine memory keeps nothing: it goes without --storage",
            ));
        }
        if options.segment_bytes.is_some() || options.io.is_some() {
            let what = "--segment-bytes and --io are about the log: they go without --storage";
            return Err(Failure::usage(what));
        }
    }
    // Memory for all entries, the model and, for the memory machine, the values.
    let record_bytes = (KEY_BYTES + options.value_bytes) as u64;
    let entry_bytes = record_bytes + size_of::<sprag::Entry<'_>>() as u64;
    let values = if options.machine == Machine::Memory { record_bytes } else { 0 };
    // More bytes than a u64 counts are more than any memory.
    let bytes = options.entries.saturating_mul(entry_bytes);
    let keys = u64::from(options.keys).saturating_mul(memory::KEY_BYTES + values);
    // As above.
    memory::check(bytes.saturating_add(keys), "--entries, --keys and --value-bytes")
}

fn run_memory(
    options: &RunOptions,
    acks: Option<&Output>,
    metrics: Option<&Server>,
    progress: Progress,
) -> Outcome<Report> {
    let config = MemoryConfig::new().expected_keys(options.keys as usize);
    let started = Instant::now();
    let machine = MemoryStateMachine::new(config).map_err(about("memory machine"))?;
    let open_time = started.elapsed();
    let (job, reader) = Job::run(machine, options, acks, metrics, progress)?;
    let _spinner = progress.spinner("checking");
    // A memory machine cannot be opened again, so the state of the closed machine is checked once
    // more.
    let after = Checked::of(&*reader, job.stats.applied)?;
    Ok(job.report(options, open_time, &after, None))
}

fn run_persistent(
    options: &RunOptions,
    acks: Option<&Output>,
    metrics: Option<&Server>,
    progress: Progress,
) -> Outcome<Report> {
    let (dir, _temporary) = directory(options)?;
    let config = config_of(&dir, options);
    let machine = {
        let _spinner = progress.spinner("opening");
        PersistentStateMachine::open(config.clone()).map_err(opening(&dir))?
    };
    say_recovered(&dir, machine.recovery());
    let (job, reader) = Job::run(machine, options, acks, metrics, progress).map_err(|error| {
        Failure::about(format!("{}: {}", dir.display(), one_line(&*error)), &*error)
    })?;
    // The reader keeps the directory locked.
    drop(reader);
    let _spinner = progress.spinner("opening again and checking");
    let started = Instant::now();
    let machine = PersistentStateMachine::open(config).map_err(opening(&dir))?;
    let open_time = started.elapsed();
    let recovery = machine.recovery();
    let last = recovery.last.map(|last| last.index);
    let whole = recovery.applied == last && recovery.cut.is_none();
    let after = Checked::of(&machine, last.filter(|_| whole))?;
    drop(machine);
    Ok(job.report(options, open_time, &after, Some(&dir)))
}

/// Runs as [`run_persistent`] does, with a machine over another storage.
fn run_stored<S: Storage>(
    options: &RunOptions,
    acks: Option<&Output>,
    metrics: Option<&Server>,
    progress: Progress,
    open: impl Fn(&Path) -> Outcome<StorageMachine<S>>,
) -> Outcome<Report> {
    let (dir, _temporary) = directory(options)?;
    let machine = {
        let _spinner = progress.spinner("opening");
        open(&dir)?
    };
    let (job, reader) = Job::run(machine, options, acks, metrics, progress).map_err(|error| {
        Failure::about(format!("{}: {}", dir.display(), one_line(&*error)), &*error)
    })?;
    drop(reader);
    let _spinner = progress.spinner("opening again and checking");
    let started = Instant::now();
    let machine = open(&dir)?;
    let open_time = started.elapsed();
    let after = Checked::of(&machine, machine.applied().map(|last| last.index))?;
    drop(machine);
    Ok(job.report(options, open_time, &after, Some(&dir)))
}

/// The directory of a run, and the guard that removes a temporary one. It must not belong to
/// another storage.
fn directory(options: &RunOptions) -> Outcome<(PathBuf, Option<TemporaryDirectory>)> {
    let Some(dir) = &options.dir else {
        let made = temporary_directory("sprag-run-", None)?;
        return Ok((made.path().join("data"), Some(made)));
    };
    let found = stored::kept_in(dir)?;
    let is_there = dir.read_dir().is_ok_and(|mut names| names.next().is_some());
    if is_there && found != options.storage {
        let (dir, found) = (dir.display(), found.name());
        let message = format!("{dir}: its state is in {found}; run it with --storage {found}");
        return Err(message.into());
    }
    Ok((dir.clone(), None))
}

fn storage_config_of(options: &RunOptions) -> StorageConfig {
    let config = options.profile.map_or_else(StorageConfig::default, Profile::storage_config);
    match options.durability {
        Some(durability) => config.sync_writes(durability == AckOn::Sync),
        None => config,
    }
}

/// The profile's options, or the defaults, with the given options over them.
fn config_of(dir: &Path, options: &RunOptions) -> PersistentConfig {
    let config = match options.profile {
        Some(profile) => profile.persistent_config(dir),
        None => PersistentConfig::new(dir),
    };
    let mut config = config.expected_keys(options.keys as usize);
    if let Some(durability) = options.durability {
        config = config.durability(match durability {
            AckOn::Sync => Durability::Sync,
            AckOn::Periodic => Durability::Periodic(SYNC_EVERY),
            AckOn::Os => Durability::Os,
        });
    }
    if let Some(io) = options.io {
        config = config.io(match io {
            Io::Auto => IoBackend::Auto,
            Io::Uring => IoBackend::Uring,
            Io::Pwrite => IoBackend::Pwrite,
        });
    }
    match options.segment_bytes {
        Some(bytes) => config.segment_bytes(bytes),
        None => config,
    }
}

fn apply_config_of(options: &RunOptions) -> ApplyConfig {
    let mut config = options.profile.map_or_else(ApplyConfig::new, Profile::apply_config);
    if let Some(workers) = options.workers {
        config = config.worker_count(workers);
    }
    match options.pipeline {
        Some(pipeline) => config.pipeline_depth(pipeline.get()),
        None => config,
    }
}

/// The parts of a state that are compared.
struct Checked {
    index: Option<u64>,
    len: usize,
    digest: String,
}

impl Checked {
    fn of(machine: &impl Readable, index: Option<u64>) -> Outcome<Self> {
        let state = machine.scan_sorted()?;
        let digest = Digest::of(&state).to_string();
        Ok(Self { index, len: machine.len()?, digest })
    }
}

/// Results of a run up to the close.
struct Job {
    submitted: Submitted,
    gets: GetFigures,
    stats: ApplyStats,
    before: Checked,
    model: (Digest, usize),
    close_time: Duration,
}

impl Job {
    fn run<M: Readable>(
        machine: M,
        options: &RunOptions,
        acks: Option<&Output>,
        metrics: Option<&Server>,
        progress: Progress,
    ) -> Outcome<(Self, Reader<M>)> {
        let last = machine.applied();
        // A run that continues in a directory writes other values than the run before.
        let seed = mix(options.seed).wrapping_add(last.map_or(0, |last| last.index + 1));
        let mut workload = Workload::new(options.keys, options.value_bytes, seed);
        let others = others(&machine, &workload)?;
        let manager = ApplyManager::new(machine, apply_config_of(options))?;
        if let Some(metrics) = metrics {
            metrics.add("run", manager.stats_reader())?;
        }
        let submitted = watched(&manager, last, options, acks, |mark| {
            let batch = options.batch.get();
            let submitter = Submitter { manager: &manager, batch, mark, progress };
            let next = last.map_or(LogId::new(1, 1), |last| last.at(last.index + 1));
            let next = submitter.preload(&workload, next)?;
            let writes = {
                let mut bar = progress.entries("generating entries", options.entries);
                workload.updates(usize::try_from(options.entries)?, |made| bar.at(made))
            };
            submitter.timed(&writes.entries(next.index, next.term))
        })?;
        let stats = manager.stats();
        let gets = {
            let _spinner = progress.spinner("reading");
            reads::gets(manager.machine(), options.keys, options.gets, seed)?
        };
        let _spinner = progress.spinner("checking");
        let before = Checked::of(manager.machine(), stats.applied)?;
        let model = workload.model(&others);
        let reader = manager.reader();
        let started = Instant::now();
        manager.close(TIMEOUT).map_err(about("closing"))?;
        let close_time = started.elapsed();
        Ok((Self { submitted, gets, stats, before, model, close_time }, reader))
    }

    #[allow(clippy::cast_precision_loss, reason = "rates and times")]
    fn report(
        self,
        options: &RunOptions,
        open_time: Duration,
        after: &Checked,
        dir: Option<&Path>,
    ) -> Report {
        let Self { submitted, gets, stats, before, model, close_time } = self;
        let acknowledged = stats
            .acknowledged
            // Entries before the first of this run are not its own.
            .map_or(0, |index| (index + 1).saturating_sub(submitted.first).min(options.entries));
        let seconds = submitted.took.as_secs_f64();
        let microseconds = |ns: u64| three_digits(ns as f64 / 1e3);
        let milliseconds = |time: Duration| three_digits(time.as_secs_f64() * 1e3);
        let log = stats.log_writer;
        let mut report = Report {
            machine: if dir.is_some() { "persistent" } else { "memory" },
            storage: dir.map(|_| options.storage.name()),
            dir: dir.map(|dir| dir.display().to_string()),
            profile: options.profile.map(Profile::name),
            durability: stats.durability.map(|durability| match durability {
                Durability::Sync => "sync",
                Durability::Periodic(_) => "periodic",
                _ => "os",
            }),
            io_backend: stats.io_backend,
            workers: stats.worker_count,
            workers_pinned: stats.workers_pinned,
            batch: options.batch.get(),
            pipeline: stats.pipeline_capacity,
            keys: options.keys,
            key_bytes: KEY_BYTES,
            value_bytes: options.value_bytes,
            entries: options.entries,
            acknowledged,
            first_index: submitted.first,
            applied_index: stats.applied,
            durable_index: stats.durable,
            seconds,
            entries_per_second: options.entries as f64 / seconds,
            fulls: submitted.fulls,
            ack_p50_us: microseconds(stats.latency.p50_ns),
            ack_p90_us: microseconds(stats.latency.p90_ns),
            ack_p99_us: microseconds(stats.latency.p99_ns),
            ack_p999_us: microseconds(stats.latency.p999_ns),
            ack_max_us: microseconds(stats.latency.max_ns),
            gets: gets.count,
            gets_per_second: gets.per_second,
            get_p50_ns: gets.p50_ns,
            get_p90_ns: gets.p90_ns,
            get_p99_ns: gets.p99_ns,
            get_p999_ns: gets.p999_ns,
            get_max_ns: gets.max_ns,
            allocations: submitted.allocations,
            allocations_per_entry: three_digits(
                submitted.allocations as f64 / options.entries as f64,
            ),
            log_writes: log.groups - submitted.log_before.groups,
            log_syncs: log.syncs - submitted.log_before.syncs,
            log_bytes: log.bytes - submitted.log_before.bytes,
            disk_bytes: dir.map_or(0, bytes_on_disk),
            memory_bytes: stats.memory_bytes,
            close_ms: milliseconds(close_time),
            open_ms: milliseconds(open_time),
            index_after: after.index,
            len_before: before.len,
            len_after: after.len,
            len_model: model.1,
            digest_before: before.digest,
            digest_after: after.digest.clone(),
            digest_model: model.0.to_string(),
            times: Times::between(&submitted.times_before, &stats.times),
            verified: false,
        };
        report.verified = report.complaint().is_none();
        report
    }
}

/// Keys of the machine that the workload does not write, and their values.
fn others(machine: &impl Readable, workload: &Workload) -> Outcome<BTreeMap<Vec<u8>, Vec<u8>>> {
    let state = machine.scan_sorted()?;
    let others = state.iter().filter(|(key, _)| !workload.has(key));
    Ok(others.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

/// Does `work` while the acknowledged index is written to the file asked for, if there is one.
fn watched<M: Readable>(
    manager: &ApplyManager<M>,
    last: Option<LogId>,
    options: &RunOptions,
    acks: Option<&Output>,
    work: impl FnOnce(&AtomicU64) -> Outcome<Submitted>,
) -> Outcome<Submitted> {
    // The entries of an empty directory begin with index 1, so no entry 0 can be acknowledged.
    let known = last.map_or(1, |last| last.index + 1);
    let (mark, stop) = (AtomicU64::new(known), AtomicBool::new(false));
    let Some((acks, path)) = acks.zip(options.ack_file.as_ref()) else { return work(&mark) };
    let failed = |error| about::<std::io::Error>(path.display())(error);
    let file = acks.append().map_err(failed)?;
    thread::scope(|scope| {
        let follow = || ack_file::follow(file, known, &mark, || manager.pending_count(), &stop);
        let follower = scope.spawn(follow);
        let outcome = {
            // The guard also runs when `work` panics; otherwise the scope would wait for the
            // follower forever.
            let _stop = StopOnDrop(&stop);
            work(&mark)
        };
        let followed = follower.join().unwrap_or_else(|_| Err(std::io::Error::other("panicked")));
        let submitted = outcome?;
        followed.map_err(failed)?;
        Ok(submitted)
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
