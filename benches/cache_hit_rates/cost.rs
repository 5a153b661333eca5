//! Costs of a hit, of a miss with its fill, of a commit through the cache, and of an entry's
//! memory.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use sprag::machine::storage::{StorageBatch, Table};
use sprag::testing::internals::{CacheLimits, ReadCache};

use sprag::testing::Random;

use super::workloads::Zipf;

const KEYS: u32 = 10_000;
const ROUNDS: usize = 1_000_000;

fn filled(value_len: usize) -> ReadCache {
    let cache = ReadCache::new(CacheLimits::new().entries(2 * KEYS as usize).bytes(1 << 30));
    let value = sprag::Value::from(&vec![7; value_len][..]);
    for key in 0..KEYS {
        let key = key.to_le_bytes();
        if let Err(fill) = cache.look_up(&key) {
            fill.keep(&key, &value);
        }
    }
    cache
}

/// Nanoseconds for each call, the best of five rounds.
fn best_ns(count: usize, mut run: impl FnMut()) -> f64 {
    let round = |()| {
        let start = Instant::now();
        run();
        start.elapsed().as_nanos() as f64 / count as f64
    };
    [(); 5].map(round).into_iter().fold(f64::INFINITY, f64::min)
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4_096
}

/// Prints the memory of an entry beside its key and value, after a cache has evicted twice as many
/// entries as it holds.
pub(crate) fn print_memory() {
    // Keep every cache: the next one would reuse its memory.
    let mut caches = Vec::new();
    for value_len in [0, 16, 100, 1_000] {
        let entries = 80_000;
        let value = sprag::Value::from(&vec![7; value_len][..]);
        let before = resident_bytes();
        let cache = ReadCache::new(CacheLimits::new().entries(entries).bytes(1 << 30));
        for key in 0..4 * entries as u64 {
            let key = key.to_le_bytes();
            if let Err(fill) = cache.look_up(&key) {
                // Copy the value, as a storage does.
                fill.keep(&key, &sprag::Value::from(&*value));
            }
        }
        let taken = (resident_bytes() - before) as f64 / cache.stats().entries as f64;
        let beside = taken - (8 + value_len) as f64;
        println!(
            "{:<44} {beside:>8.0}",
            format!("bytes an entry takes beside 8 B and {value_len} B")
        );
        caches.push(cache);
    }
}

pub(crate) fn print() {
    let (zipf, mut random) = (Zipf::new(KEYS, 0.99), Random::new(1));
    let keys: Vec<_> = (0..ROUNDS).map(|_| zipf.next(&mut random).to_le_bytes()).collect();
    println!("\n{:<44} {:>8}", "cost, of 10,000 keys, zipf 0.99", "ns each");
    for len in [16, 128, 1_024] {
        let cache = filled(len);
        let get = || keys.iter().for_each(|key| drop(black_box(cache.look_up(key))));
        println!("{:<44} {:>8.0}", format!("hit, {len} B"), best_ns(ROUNDS, get));
        let both = || {
            thread::scope(|scope| {
                scope.spawn(get);
                scope.spawn(get);
            });
        };
        println!("{:<44} {:>8.0}", format!("hit, {len} B, two threads"), best_ns(ROUNDS, both));
    }
    let cache = ReadCache::new(CacheLimits::new().entries(1_000).bytes(1 << 30));
    let value = sprag::Value::from(&[7; 100][..]);
    let mut number = 0_u32;
    let miss = || {
        for _ in 0..ROUNDS {
            number += 1;
            let key = number.to_le_bytes();
            cache.look_up(&key).unwrap_err().keep(&key, &value);
        }
    };
    println!("{:<44} {:>8.0}", "miss, fill and eviction, 100 B", best_ns(ROUNDS, miss));
    for (what, first) in [("that are in the cache", 0), ("that are not", KEYS)] {
        let (cache, mut batch) = (filled(100), StorageBatch::new());
        for key in first..first + 1_000 {
            batch.put(Table::State(1), &key.to_le_bytes(), &[8; 100]);
        }
        let commit = || cache.during_commit(&batch, Table::State(1), || Ok::<_, ()>(())).unwrap();
        let name = format!("beside a commit of 1,000 keys {what}, a key");
        println!("{name:<44} {:>8.0}", best_ns(batch.len(), commit));
    }
}
