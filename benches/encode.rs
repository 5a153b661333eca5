//! Measures encoding 128 puts of 16-byte keys and 100-byte values into a frame, with each key's
//! hash and the checksum of the whole. A bare copy and checksum of the same bytes runs beside it. A
//! second benchmark measures the whole way, into a memory machine.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sprag::error::SubmitError;
use sprag::machine::probe::Probe;
use sprag::{ApplyConfig, ApplyManager, Entry, MemoryConfig, MemoryStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u64 = 128;
const KEYS: u64 = 1_000_000;

fn keys(seed: u64) -> Vec<[u8; 16]> {
    let mut random = seed;
    let mut key = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut key = *b"key-....-0123456";
        key[4..12].copy_from_slice(&((random >> 33) % KEYS).to_le_bytes());
        key
    };
    (0..ENTRIES).map(|_| key()).collect()
}

fn puts<'a>(first: u64, keys: &'a [[u8; 16]], value: &'a [u8]) -> Vec<Entry<'a>> {
    (first..).zip(keys).map(|(index, key)| Entry::put(index, 1, key, value)).collect()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(ENTRIES));
    let (keys, value) = (keys(1), [7; 100]);
    let entries = puts(1, &keys, &value);
    let probe = Probe::new(1024);
    let mut frame = probe.frame(&entries).unwrap();
    let same_bytes = frame.bytes().to_vec();
    group.bench_function("encode, hash and checksum", |bencher| {
        bencher.iter(|| {
            probe.refill(&mut frame, black_box(&entries)).unwrap();
            crc32c::crc32c(frame.bytes())
        });
    });
    group.bench_function("encode and hash", |bencher| {
        bencher.iter(|| probe.refill(&mut frame, black_box(&entries)).unwrap());
    });
    group.bench_function("bare: copy and checksum of the same bytes", |bencher| {
        let mut copy = vec![0; same_bytes.len()];
        bencher.iter(|| {
            copy.copy_from_slice(black_box(&same_bytes));
            crc32c::crc32c(black_box(&copy))
        });
    });
    group.finish();
}

/// Submission to state, one call of 128 entries after another, as fast as the pipeline takes them.
fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory machine");
    group.throughput(Throughput::Elements(ENTRIES));
    let config = MemoryConfig::new().expected_keys(1_000_000);
    let machine = MemoryStateMachine::new(config).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    let (value, mut next) = ([7; 100], 1);
    let sets: Vec<_> = (0..1_000).map(keys).collect();
    group.bench_function("apply_entries, 128 a call", |bencher| {
        bencher.iter_custom(|calls| {
            let started = std::time::Instant::now();
            for call in 0..calls {
                let keys = &sets[usize::try_from(call).unwrap() % sets.len()];
                let entries = puts(next, keys, &value);
                while let Err(error) = manager.apply_entries(&entries) {
                    assert!(matches!(error, SubmitError::Full { .. }), "{error}");
                    std::thread::yield_now();
                }
                next += ENTRIES;
            }
            manager.wait_for_apply(next - 1, Duration::from_secs(60)).unwrap();
            started.elapsed()
        });
    });
    group.finish();
    manager.close(Duration::from_secs(60)).unwrap();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = encode, apply
}
criterion_main!(benches);
