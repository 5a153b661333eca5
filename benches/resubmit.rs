//! A million puts that the log already has, submitted again in calls of 1,000 and as one call: the
//! engine compares them with the log.
//!
//! Beside it are the same calls on a machine whose log has given the entries up, so nothing is
//! compared.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u64 = 1_000_000;
const LONG: Duration = Duration::from_secs(60);
const VALUE: [u8; 100] = [7; 100];

type Manager = ApplyManager<PersistentStateMachine>;

fn submit_all(manager: &Manager, entries: &[Entry<'_>], size: usize) -> (u64, u64) {
    let (mut same, mut gone) = (0, 0);
    for part in entries.chunks(size) {
        let taken = manager.apply_entries(part).unwrap();
        assert_eq!(taken.new, 0);
        same += taken.known_same;
        gone += taken.unverifiable;
    }
    (same, gone)
}

fn resubmit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
    let directory = directory.unwrap();
    let config = PersistentConfig::new(directory.path().join("data")).compaction(None);
    let manager =
        ApplyManager::new(PersistentStateMachine::open(config).unwrap(), ApplyConfig::new());
    let manager = manager.unwrap();
    let keys: Vec<[u8; 16]> =
        (1..=ENTRIES).map(|index| u128::from(index % 100_000).to_be_bytes()).collect();
    let entries: Vec<Entry<'_>> =
        (1..).zip(&keys).map(|(index, key)| Entry::put(index, 1, key, &VALUE)).collect();
    manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap();

    let mut group = criterion.benchmark_group("resubmit");
    group.throughput(Throughput::Elements(ENTRIES)).sample_size(10);
    for (name, size) in [("calls of 1,000", 1000), ("one call", entries.len())] {
        group.bench_function(format!("in the log, {name}"), |bencher| {
            bencher.iter(|| assert_eq!(submit_all(&manager, &entries, size), (ENTRIES, 0)));
        });
    }
    let began = Instant::now();
    manager.snapshots().compact().unwrap();
    println!("compacted in {:?}", began.elapsed());
    let purged = manager.log().unwrap().state().unwrap().purged.unwrap();
    assert!(purged >= ENTRIES / 2, "{purged}");
    let known = usize::try_from(purged).unwrap();
    group.throughput(Throughput::Elements(purged));
    group.bench_function("given up, one call", |bencher| {
        bencher.iter(|| assert_eq!(submit_all(&manager, &entries[..known], known), (0, purged)));
    });
    group.finish();
    manager.close(LONG).unwrap();
}

criterion_group!(benches, resubmit);
criterion_main!(benches);
