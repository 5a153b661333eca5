//! Endless overwrites of the same keys, with automatic compaction: disk space, and whether the rate
//! falls.
//!
//! `cargo bench --bench compaction -- MILLIONS KEYS` (default 50 and 100,000; values of 100 bytes,
//! keys of 16).

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, missing_docs, reason = "a bench")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sprag::error::SubmitError;
use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LONG: Duration = Duration::from_secs(60);
const VALUE_BYTES: usize = 100;
const ENTRY_BYTES: u64 = 16 + VALUE_BYTES as u64;
const BATCH: u64 = 128;
const PARTS: u64 = 10;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let entries = numbers.first().copied().unwrap_or(50) * 1_000_000;
    let keys = numbers.get(1).copied().unwrap_or(100_000);
    let directory = tempfile::tempdir_in(".").unwrap();
    let config = PersistentConfig::new(directory.path().join("data"))
        .expected_keys(usize::try_from(keys).unwrap());
    let machine = PersistentStateMachine::open(config).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(disk_bytes(directory.path()), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let part = entries / PARTS / BATCH * BATCH;
        for number in 0..PARTS {
            let began = Instant::now();
            overwrite(&manager, number * part + 1, part, keys);
            let rate = part as f64 / began.elapsed().as_secs_f64();
            let most = most.swap(0, Ordering::Relaxed);
            let stats = manager.stats();
            println!(
                "{:4} M entries: {rate:10.0} entries/s, at most {:6} MiB on disk, {} compactions, longest copy {} us",
                (number + 1) * part / 1_000_000,
                most >> 20,
                stats.compaction.done,
                stats.machine.longest_copy_cpu_ns / 1000,
            );
        }
        done.store(true, Ordering::Relaxed);
        let stats = manager.stats();
        let put = (entries * ENTRY_BYTES) as f64;
        let snapshots =
            manager.snapshots().newest().unwrap().map_or(0, |snapshot| snapshot.bytes());
        let written = stats.log_writer.bytes + snapshots * stats.compaction.done;
        println!(
            "live {} MiB; written {:.2} of what was put in (log {:.2}); compactions failed: {}",
            (keys * ENTRY_BYTES) >> 20,
            written as f64 / put,
            stats.log_writer.bytes as f64 / put,
            stats.compaction.failed,
        );
    });
    manager.close(LONG).unwrap();
}

fn overwrite(manager: &ApplyManager<PersistentStateMachine>, first: u64, count: u64, keys: u64) {
    let value = [7; VALUE_BYTES];
    let mut index = first;
    while index < first + count {
        let keys: Vec<[u8; 16]> = (index..index + BATCH)
            .map(|index| u128::from(index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys).to_be_bytes())
            .collect();
        let entries: Vec<Entry<'_>> = (index..index + BATCH)
            .zip(&keys)
            .map(|(index, key)| Entry::put(index, 1, key, &value))
            .collect();
        loop {
            match manager.apply_entries(&entries) {
                Ok(_) => break,
                Err(SubmitError::Full { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        index += BATCH;
    }
    manager.wait_for_apply(index - 1, LONG).unwrap();
}

/// Bytes that the files of a directory take, according to the file system.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(files) = fs::read_dir(directory.join("data")) else { return 0 };
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.blocks() * 512));
    sizes.sum()
}
