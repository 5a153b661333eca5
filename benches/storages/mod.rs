//! The cost of a machine over a storage, beside a bare loop over the same storage, and figures of a
//! storage alone. The crates of storages include this file.
//!
//! The first argument names the measurement:
//!
//! - `batches`: writing batches of 100 and 1,000, beside a loop that does the same. Each round runs
//!   all in turn; the median of 7 rounds counts.
//! - `cache KEYS`: gets and batches over this many keys, with the read cache and without it.
//! - `sizes KEYS`: a state of this many keys. It measures batches, gets that hit and miss, a scan,
//!   disk and memory, opening again, and opening after a kill.

mod cache;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sprag::machine::storage::{Storage, StorageMachine};
use sprag::testing::Random;
use sprag::{
    ApplyConfig, ApplyManager, Entry, PersistentStateMachine, Stage, StateMachine, StorageConfig,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PATIENT: Duration = Duration::from_secs(600);
const ROUNDS: usize = 7;
/// Number of keys in the storage before a comparison begins.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;

pub type Pair = ([u8; 16], Vec<u8>);

/// The loop that a program would write without a machine.
pub trait Bare {
    /// Gets each key if `gets`, then writes all pairs and the log id in one batch.
    fn batch(&mut self, pairs: &[Pair], log_id: u64, gets: bool, sync: bool);
    /// Puts everything on stable storage.
    fn sync(&mut self);
}

/// A machine whose figures at several sizes are measured.
pub trait Measured {
    type Machine: StateMachine;
    /// Opens the state in `directory`, for batches of `batch` entries, each synced if `sync`.
    fn open(&self, directory: &Path, batch: usize, sync: bool) -> Self::Machine;
    /// Whether the machine has the key.
    fn contains(machine: &Self::Machine, key: &[u8]) -> bool;
}

impl<T: Target> Measured for T {
    type Machine = StorageMachine<T::Storage>;

    fn open(&self, directory: &Path, batch: usize, sync: bool) -> Self::Machine {
        let config = StorageConfig::new().batch_size(batch).sync_writes(sync);
        PersistentStateMachine::with_storage(self.storage(directory), config).unwrap()
    }

    fn contains(machine: &Self::Machine, key: &[u8]) -> bool {
        machine.contains(key).unwrap()
    }
}

/// A storage and the bare loop over it, each of which can open a directory.
pub trait Target {
    type Storage: Storage;
    type Bare: Bare;
    fn storage(&self, directory: &Path) -> Self::Storage;
    fn bare(&self, directory: &Path) -> Self::Bare;
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    // Spread the numbers, so that neighbours in a batch are not neighbours in the tree.
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn pairs(random: &mut Random, len: usize) -> Vec<Pair> {
    let number = |random: &mut Random| random.next_u64() % KEYS;
    (0..len).map(|_| (key(number(random)), random.bytes(VALUE_BYTES))).collect()
}

struct Machine<M: StateMachine> {
    manager: ApplyManager<M>,
    next: u64,
}

impl<S: Storage> Machine<StorageMachine<S>> {
    fn new(storage: S, batch: usize, sync: bool) -> Self {
        Self::with(storage, StorageConfig::new().batch_size(batch).sync_writes(sync))
    }

    fn with(storage: S, config: StorageConfig) -> Self {
        Self::over(PersistentStateMachine::with_storage(storage, config).unwrap())
    }
}

impl<M: StateMachine> Machine<M> {
    fn over(machine: M) -> Self {
        let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
        let next = manager.applied().map_or(1, |last| last.index + 1);
        Self { manager, next }
    }

    /// Submits the batches, a few ahead of apply, and waits for the last one.
    fn run(&mut self, batches: &[Vec<Pair>]) {
        let mut lasts = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let entries: Vec<_> = batch
                .iter()
                .zip(self.next..)
                .map(|((key, value), index)| Entry::put(index, 1, key, value))
                .collect();
            self.next += batch.len() as u64;
            let _ = self.manager.apply_entries(&entries).unwrap();
            lasts.push(self.next - 1);
            if number >= 3 {
                self.manager.wait_until(lasts[number - 3], Stage::Applied, PATIENT).unwrap();
            }
        }
        self.manager.wait_for_apply(self.next - 1, PATIENT).unwrap();
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Microseconds for each entry.
fn each(time: Duration, entries: usize) -> f64 {
    time.as_secs_f64() * 1e6 / entries as f64
}

pub fn batches(target: &impl Target) {
    println!(
        "| batch | sync | machine us/entry | bare us/entry | ratio | bare without gets | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (batch, sync, count) in
        [(100, false, 500), (1000, false, 50), (100, true, 100), (1000, true, 20)]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let mut machine = Machine::new(target.storage(&path("machine")), batch, sync);
        let mut bare = target.bare(&path("bare"));
        let mut blind = target.bare(&path("blind"));
        let mut random = Random::new(1);
        let mut log_id = 0;
        for first in (0..KEYS).step_by(1000) {
            let fill: Vec<Pair> =
                (first..first + 1000).map(|n| (key(n), random.bytes(VALUE_BYTES))).collect();
            for bare in [&mut bare, &mut blind] {
                bare.batch(&fill, first, true, false);
            }
            machine.run(&[fill]);
        }
        machine.manager.flush_pending(PATIENT).unwrap();
        bare.sync();
        blind.sync();
        let (mut through, mut plain, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let work: Vec<_> = (0..count).map(|_| pairs(&mut random, batch)).collect();
            through.push(timed(|| {
                machine.run(&work);
                machine.manager.flush_pending(PATIENT).unwrap();
            }));
            for (times, bare, gets) in
                [(&mut plain, &mut bare, true), (&mut unread, &mut blind, false)]
            {
                times.push(timed(|| {
                    for batch in &work {
                        log_id += 1;
                        bare.batch(batch, log_id, gets, sync);
                    }
                    bare.sync();
                }));
            }
        }
        let [through, plain, unread] =
            [through, plain, unread].map(|mut times| each(median(&mut times), batch * count));
        println!(
            "| {batch} | {sync} | {through:.2} | {plain:.2} | {:.2} | {unread:.2} | {:.2} |",
            through / plain,
            through / unread,
        );
    }
}

/// Peak of the process's resident memory, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Bytes that the files below a directory take on disk.
fn disk_bytes(directory: &Path) -> u64 {
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * 512 }
    };
    std::fs::read_dir(directory).unwrap().map(of).sum()
}

/// Fills a directory and prints the time and space. The process ends without closing anything, as
/// after a kill.
fn fill<T: Measured>(target: &T, directory: &Path, keys: u64) {
    let mut machine = Machine::over(target.open(directory, 1000, false));
    let mut random = Random::new(2);
    let time = timed(|| {
        for first in (0..keys).step_by(50_000) {
            let work: Vec<Vec<Pair>> = (first..(first + 50_000).min(keys))
                .step_by(1000)
                .map(|first| {
                    let last = (first + 1000).min(keys);
                    (first..last).map(|n| (key(n), random.bytes(VALUE_BYTES))).collect()
                })
                .collect();
            machine.run(&work);
        }
        machine.manager.flush_pending(PATIENT).unwrap();
    });
    println!("| fill, us/entry, batches of 1,000 | {:.2} |", each(time, keys as usize));
    for (batch, count) in [(100, 100), (1000, 10)] {
        let work: Vec<Vec<Pair>> = (0..count)
            .map(|_| {
                let number = |random: &mut Random| random.next_u64() % keys;
                (0..batch).map(|_| (key(number(&mut random)), vec![7; VALUE_BYTES])).collect()
            })
            .collect();
        let time = timed(|| machine.run(&work));
        println!("| overwrite, us/entry, batches of {batch} | {:.2} |", each(time, batch * count));
    }
    let reader = machine.manager.machine();
    let gets = 100_000;
    for (name, first) in [("a get that hits, us", 0), ("a get that misses, us", keys)] {
        let mut found = 0;
        let time = timed(|| {
            for _ in 0..gets {
                let number = first + random.next_u64() % keys;
                found += usize::from(T::contains(reader, &key(number)));
            }
        });
        assert_eq!(found, if first == 0 { gets } else { 0 });
        println!("| {name} | {:.2} |", each(time, gets));
    }
    let stats = machine.manager.stats().machine;
    let memory = stats.memory_bytes.unwrap();
    println!("| bytes of keys and values, MiB | {} |", (keys * (16 + VALUE_BYTES as u64)) >> 20);
    println!("| disk, MiB | {} |", disk_bytes(directory) >> 20);
    println!("| memory by its own account, MiB | {} |", memory >> 20);
    println!("| peak resident memory of the process, MiB | {} |", peak_mib());
    machine.run(&[pairs(&mut random, 10)]);
    // Exit without closing anything, as a kill does.
    std::process::exit(0);
}

/// Applies a few batches, each synced, and ends as `fill` does.
fn overwrite(target: &impl Measured, directory: &Path) {
    for (batch, count) in [(100, 30), (1000, 10)] {
        let mut machine = Machine::over(target.open(directory, batch, true));
        let mut random = Random::new(3);
        let work: Vec<_> = (0..count).map(|_| pairs(&mut random, batch)).collect();
        let time = timed(|| machine.run(&work));
        println!(
            "| overwrite with syncs, us/entry, batches of {batch} | {:.2} |",
            each(time, batch * count)
        );
        if batch == 1000 {
            std::process::exit(0);
        }
    }
}

pub fn sizes(target: &impl Measured, keys: u64) {
    if let Some(directory) = std::env::var_os("SPRAG_BENCH_FILL") {
        fill(target, Path::new(&directory), keys);
    }
    if let Some(directory) = std::env::var_os("SPRAG_BENCH_OVERWRITE") {
        overwrite(target, Path::new(&directory));
    }
    println!("| {keys} keys | |");
    println!("|---|---|");
    let directory = tempfile::tempdir().unwrap();
    for (stage, after) in [("FILL", "unsynced batches"), ("OVERWRITE", "synced batches")] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(std::env::args().skip(1))
            .env(format!("SPRAG_BENCH_{stage}"), directory.path())
            .status()
            .unwrap();
        assert!(child.success());
        for end in [&format!("a kill amid {after}"), "a close"] {
            let mut machine = None;
            let time = timed(|| {
                machine = Some(Machine::over(target.open(directory.path(), 1000, false)));
            });
            println!("| open after {end}, ms | {:.1} |", time.as_secs_f64() * 1e3);
            machine.unwrap().manager.close(PATIENT).unwrap();
        }
    }
}

pub fn main(target: &impl Target) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["batches", ..] => batches(target),
        ["cache", keys, ..] => cache::measure(target, keys.parse().unwrap()),
        ["sizes", keys, ..] => sizes(target, keys.parse().unwrap()),
        // `cargo test --benches` runs this with other arguments.
        _ => println!("say `batches`, `cache KEYS` or `sizes KEYS`"),
    }
}
