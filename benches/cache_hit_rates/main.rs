//! Hit rates of the read cache, beside a plain LRU and the best that any cache could do, and the
//! cost of a hit.
//!
//! `cargo bench --bench cache_hit_rates -- [--svg FILE] [--write-trace FILE] [TRACE...]`. Each
//! TRACE is a file in the format of the ARC traces. Without one, the workloads are made from fixed
//! seeds, so every run gives the same figures within the cache's random hashing.
//!
//! - `--svg FILE` draws the curves; `docs/images/cache-hit-rates.svg` is such a file.
//! - `--write-trace FILE` writes the last workload as such a trace.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a bench"
)]

mod cost;
mod plot;
mod rivals;
mod workloads;

use std::fs;

use sprag::Value;
use sprag::testing::internals::{CacheLimits, ReadCache};

use workloads::Workload;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sizes of the cache, in percent of the keys that a workload reads.
const SIZES: [f64; 9] = [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0];

/// Hit rates of one workload at each of the sizes, in percent.
struct Curves {
    name: String,
    ours: Vec<f64>,
    lru: Vec<f64>,
    best: Vec<f64>,
}

/// Number of hits of the read cache; its values are empty.
fn hits_of_ours(gets: &[u32], entries: usize) -> usize {
    let cache = ReadCache::new(CacheLimits::new().entries(entries).bytes(1 << 30));
    let mut hits = 0;
    let empty = Value::from(&b""[..]);
    for get in gets {
        let key = get.to_le_bytes();
        match cache.look_up(&key) {
            Ok(_) => hits += 1,
            Err(fill) => fill.keep(&key, &empty),
        }
    }
    assert!(cache.stats().entries <= entries as u64);
    hits
}

fn curves(workload: &Workload) -> Curves {
    let Workload { name, gets } = workload;
    let keys = workloads::distinct(gets);
    let sizes = SIZES.map(|percent| ((keys as f64 * percent / 100.0).round() as usize).max(1));
    let percent = |hits: usize| 100.0 * hits as f64 / gets.len() as f64;
    let next = rivals::next_uses(gets);
    let lru = rivals::hits_of_lru(gets, &sizes);
    println!("\n{name}: {} gets of {keys} keys", gets.len());
    println!("{:>8} {:>9} {:>9} {:>9} {:>9}", "size", "entries", "cache", "LRU", "best");
    let mut made = Curves { name: name.clone(), ours: vec![], lru: vec![], best: vec![] };
    for (at, size) in sizes.into_iter().enumerate() {
        let ours = percent(hits_of_ours(gets, size));
        let (lru, best) = (percent(lru[at]), percent(rivals::hits_of_best(&next, size)));
        println!("{:>7}% {size:>9} {ours:>8.1}% {lru:>8.1}% {best:>8.1}%", SIZES[at]);
        made.ours.push(ours);
        made.lru.push(lru);
        made.best.push(best);
    }
    made
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut svg, mut write, mut workloads) = (None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--svg" => svg = Some(arguments.next().unwrap()),
            "--write-trace" => write = Some(arguments.next().unwrap()),
            file => {
                let text = fs::read_to_string(file).unwrap();
                let gets = workloads::read_trace(&text).unwrap();
                workloads.push(Workload { name: file.to_owned(), gets });
            }
        }
    }
    if workloads.is_empty() {
        workloads = workloads::made_up();
    }
    if let (Some(file), Some(last)) = (write, workloads.last()) {
        fs::write(file, workloads::write_trace(&last.gets)).unwrap();
    }
    cost::print_memory();
    let all: Vec<_> = workloads.iter().map(curves).collect();
    if let Some(file) = svg {
        fs::write(file, plot::draw(&all, &SIZES)).unwrap();
    }
    cost::print();
}
