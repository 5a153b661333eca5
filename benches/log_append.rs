//! Durable groups of 1, 16, 128 and 1,024 puts, one group at a time. The engine is compared with a
//! bare `pwrite` and `fdatasync` of as many bytes in a preallocated file of the same directory.
//!
//! Both sync every group. The directory is below `target/`, so the bench measures that disk.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUPS: [u64; 4] = [1, 16, 128, 1024];
/// Bytes of an encoded put with 16 and 100 bytes; a frame header, once for 128 entries, is not
/// included.
const ENTRY_BYTES: u64 = 8 + 16 + 100;
const FRAME_HEADER_BYTES: u64 = 128;
const FRAME_ENTRIES: u64 = 128;
const FILE_BYTES: u64 = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);

fn group_bytes(entries: u64) -> u64 {
    let frames = entries.div_ceil(FRAME_ENTRIES);
    (frames * FRAME_HEADER_BYTES + entries * ENTRY_BYTES).next_multiple_of(64)
}

/// Files made as the engine makes its segments: reserved, then synced.
struct Raw<'a> {
    directory: &'a Path,
    file: File,
    made: u32,
    offset: u64,
}

impl<'a> Raw<'a> {
    fn new(directory: &'a Path) -> Self {
        Self { directory, file: Self::make(directory, 0), made: 0, offset: 0 }
    }

    fn make(directory: &Path, number: u32) -> File {
        let file = File::create_new(directory.join(format!("raw-{number}"))).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES).unwrap();
        file.sync_all().unwrap();
        file
    }

    fn make_room(&mut self, bytes: u64) {
        if self.offset + bytes > FILE_BYTES {
            self.made += 1;
            self.file = Self::make(self.directory, self.made);
            self.offset = 0;
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.offset).unwrap();
        self.file.sync_data().unwrap();
        self.offset += bytes.len() as u64;
    }
}

fn engine(directory: &Path) -> ApplyManager<PersistentStateMachine> {
    let config = PersistentConfig::new(directory.join("engine")).expected_keys(1_000_000);
    let machine = PersistentStateMachine::open(config).unwrap();
    ApplyManager::new(machine, ApplyConfig::new()).unwrap()
}

fn durable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable");
    for entries in GROUPS {
        group.throughput(Throughput::Elements(entries));
        let parent = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut raw = Raw::new(parent.path());
        let bytes = vec![7; usize::try_from(group_bytes(entries)).unwrap()];
        group.bench_function(BenchmarkId::new("bare pwrite + fdatasync", entries), |bencher| {
            bencher.iter_custom(|groups| {
                let mut took = Duration::ZERO;
                for _ in 0..groups {
                    raw.make_room(bytes.len() as u64);
                    let started = Instant::now();
                    raw.append(&bytes);
                    took += started.elapsed();
                }
                took
            });
        });
        let manager = engine(parent.path());
        let keys: Vec<_> = (0..entries).map(|number| u128::from(number).to_be_bytes()).collect();
        let (value, mut next) = ([7; 100], 1);
        let mut replies = Vec::with_capacity(keys.len());
        group.bench_function(BenchmarkId::new("apply_entries_sync", entries), |bencher| {
            bencher.iter_custom(|groups| {
                let mut took = Duration::ZERO;
                for _ in 0..groups {
                    let puts: Vec<_> = (next..)
                        .zip(&keys)
                        .map(|(index, key)| Entry::put(index, 1, key, &value))
                        .collect();
                    let started = Instant::now();
                    manager.apply_entries_sync(&puts, TIMEOUT, &mut replies).unwrap();
                    took += started.elapsed();
                    next += entries;
                }
                took
            });
        });
        let stats = manager.stats();
        assert!(stats.log_writer.syncs >= stats.log_writer.groups, "every group is synced");
        assert_eq!(stats.durable, Some(next - 1));
        manager.close(TIMEOUT).unwrap();
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = durable
}
criterion_main!(benches);
