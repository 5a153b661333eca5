//! Random gets and overwrites over a million keys of 16 bytes with values of 100. A bare, presized
//! `hashbrown::HashTable` does the same with the same kind of hash, so the difference is the cost
//! of locks, commands and replies.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::quality::FixedState;
use hashbrown::HashTable;
use sprag::entry::Entry;
use sprag::machine::probe::{Frame, Probe};
use sprag::testing::Random;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const FRAME_ENTRIES: u64 = 128;
/// Number of frames, so many that they do not fit a cache either.
const FRAMES: u64 = 2_000;

type Key = [u8; 16];

fn key(number: u64) -> Key {
    let mut key = *b"key-....-0123456";
    key[4..12].copy_from_slice(&number.to_le_bytes());
    key
}

/// Returns a key in an order that no prefetcher can predict.
fn random_key(random: &mut Random) -> Key {
    key(random.next_u64() % KEYS)
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(7).build_hasher();
    hasher.write(key);
    hasher.finish()
}

fn bare() -> HashTable<(Key, Box<[u8]>)> {
    let mut table = HashTable::with_capacity(1_000_000);
    for number in 0..KEYS {
        let key = key(number);
        table.insert_unique(hash(&key), (key, vec![1; 100].into()), |(key, _)| hash(key));
    }
    table
}

fn frames(probe: &Probe, mut next_key: impl FnMut() -> Key, frames: u64) -> Vec<Frame> {
    let mut value = [1u8; 100];
    (0..frames)
        .map(|number| {
            value[0] = value[0].wrapping_add(1);
            let keys: Vec<Key> = (0..FRAME_ENTRIES).map(|_| next_key()).collect();
            let first = number * FRAME_ENTRIES;
            let entries: Vec<_> = (first..)
                .zip(&keys)
                .map(|(index, key)| Entry::put(index, 1, key, &value))
                .collect();
            probe.frame(&entries).unwrap()
        })
        .collect()
}

fn filled() -> Probe {
    let probe = Probe::new(1_000_000);
    let mut number = 0;
    let in_order = || {
        number += 1;
        key((number - 1) % KEYS)
    };
    for frame in frames(&probe, in_order, KEYS.div_ceil(FRAME_ENTRIES)) {
        probe.apply(&frame).unwrap();
    }
    probe
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let (probe, table) = (filled(), bare());
    let mut random = Random::new(1);
    group.bench_function("store, copied out", |bencher| {
        let mut out = Vec::with_capacity(100);
        bencher.iter(|| {
            assert!(probe.get_into(&random_key(&mut random), &mut out).unwrap());
            black_box(out.as_ptr());
        });
    });
    group.bench_function("store, as a Value", |bencher| {
        bencher.iter(|| {
            probe.get_with(&random_key(&mut random), |value| black_box(value[99])).unwrap()
        });
    });
    group.bench_function("bare table, copied out", |bencher| {
        let mut out = Vec::with_capacity(100);
        bencher.iter(|| {
            let key = random_key(&mut random);
            let (_, value) = table.find(hash(&key), |(known, _)| *known == key).unwrap();
            out.clear();
            out.extend_from_slice(value);
            black_box(out.as_ptr());
        });
    });
}

fn overwrite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("overwrite");
    group.throughput(Throughput::Elements(FRAME_ENTRIES));
    let (probe, mut table) = (filled(), bare());
    let mut random = Random::new(1);
    let frames = frames(&probe, || random_key(&mut random), FRAMES);
    let mut next = frames.iter().cycle();
    group.bench_function("store, a frame of 128 puts", |bencher| {
        bencher.iter(|| probe.apply(next.next().unwrap()).unwrap());
    });
    group.bench_function("bare table, 128 puts", |bencher| {
        let value = [2; 100];
        bencher.iter(|| {
            for _ in 0..FRAME_ENTRIES {
                let key = random_key(&mut random);
                let (_, old) = table.find_mut(hash(&key), |(known, _)| *known == key).unwrap();
                old.copy_from_slice(black_box(&value));
            }
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = get, overwrite
}
criterion_main!(benches);
