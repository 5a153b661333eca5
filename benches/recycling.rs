//! One durable put at a time, by turns, in segments with new files and with recycled ones. Beside
//! them stands a bare `pwrite` and `fdatasync` of as many bytes, in a reserved file and in one that
//! was written before.
//!
//! `cargo bench --bench recycling -- ROUNDS VALUE_BYTES` (default 3,000 and 100; keys of 16 bytes).

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LONG: Duration = Duration::from_secs(60);
const SEGMENT_BYTES: usize = 64 << 20;
/// Bytes of a frame header and of a put without its value.
const FRAME_BYTES: usize = 128 + 8 + 16;
const KEYS: u64 = 10_000;

/// An engine, and its next entry.
struct Engine {
    manager: ApplyManager<PersistentStateMachine>,
    next: u64,
    value: Vec<u8>,
}

impl Engine {
    fn open(directory: &Path, spares: usize, value_bytes: usize) -> Self {
        let config = PersistentConfig::new(directory)
            .segment_bytes(SEGMENT_BYTES)
            .spare_segments(spares)
            .compaction(None);
        let machine = PersistentStateMachine::open(config).unwrap();
        let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
        Self { manager, next: 1, value: vec![7; value_bytes] }
    }

    fn put(&mut self) -> Duration {
        let key = u128::from(self.next % KEYS).to_be_bytes();
        let began = Instant::now();
        self.manager.apply(&Entry::put(self.next, 1, &key, &self.value), LONG).unwrap();
        self.next += 1;
        began.elapsed()
    }

    /// Fills a segment, and gives up the log so far.
    fn fill_and_compact(&mut self) {
        let (first, count) = (self.next, (SEGMENT_BYTES / (self.value.len() + 60)) as u64);
        let keys: Vec<[u8; 16]> = (0..KEYS).map(|key| u128::from(key).to_be_bytes()).collect();
        let entries = (first..first + count)
            .map(|index| Entry::put(index, 1, &keys[(index % KEYS) as usize], &self.value));
        self.manager.apply_batch(entries, LONG, |_, _| ()).unwrap();
        self.next += count;
        self.manager.snapshots().compact().unwrap();
    }

    fn recycled(&self) -> u64 {
        self.manager.stats().log_writer.recycled_segments
    }
}

/// A bare file, written front to back.
struct Bare {
    file: File,
    offset: u64,
}

impl Bare {
    fn make(path: &Path, written: bool) -> Self {
        let file = File::create_new(path).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT_BYTES as u64)
            .unwrap();
        if written {
            file.write_all_at(&vec![1; SEGMENT_BYTES], 0).unwrap();
        }
        file.sync_all().unwrap();
        Self { file, offset: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        self.file.write_all_at(bytes, self.offset).unwrap();
        self.file.sync_data().unwrap();
        self.offset += bytes.len().next_multiple_of(64) as u64;
        began.elapsed()
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(3000);
    let value_bytes = numbers.get(1).copied().unwrap_or(100);
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut fresh = Engine::open(&path("fresh"), 0, value_bytes);
    let mut recycling = Engine::open(&path("recycling"), 4, value_bytes);
    for _ in 0..4 {
        fresh.fill_and_compact();
        recycling.fill_and_compact();
    }
    assert!(fresh.recycled() == 0 && recycling.recycled() >= 2);
    let mut reserved = Bare::make(&path("reserved"), false);
    let mut written = Bare::make(&path("written"), true);
    let bytes = vec![7; FRAME_BYTES + value_bytes];
    let mut took: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        took[0].push(reserved.put(&bytes));
        took[1].push(fresh.put());
        took[2].push(written.put(&bytes));
        took[3].push(recycling.put());
    }
    for (name, took) in
        ["bare, reserved", "engine, new files", "bare, written before", "engine, recycled"]
            .iter()
            .zip(&mut took)
    {
        took.sort_unstable();
        let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)].as_micros();
        println!("{name:22} p50 {:5} us  p90 {:5} us  p99 {:6} us", at(500), at(900), at(990));
    }
    let [bare_new, new, bare_old, old] = took.map(|took| took[took.len() / 2].as_secs_f64());
    println!("engine to bare, p50: {:.3} new, {:.3} recycled", new / bare_new, old / bare_old);
    println!("recycled to new, p50: {:.3} engine, {:.3} bare", old / new, bare_old / bare_new);
    fresh.manager.close(LONG).unwrap();
    recycling.manager.close(LONG).unwrap();
}
