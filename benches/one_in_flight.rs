//! The latency of one entry in flight at a memory machine: applied inline by the caller, and by a
//! worker's thread.
//!
//! `cargo bench --bench one_in_flight -- ROUNDS` (default 8, the first of which is dropped). The
//! two take turns, 100,000 calls each. The bench prints the median of the rounds and, in brackets,
//! the least and the greatest.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, reason = "a bench")]

use std::time::{Duration, Instant};

use sprag::{ApplyConfig, ApplyManager, Entry, MemoryConfig, MemoryStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LONG: Duration = Duration::from_secs(60);
const CALLS: u64 = 100_000;
const KEYS: u64 = 10_000;

struct Engine {
    name: &'static str,
    manager: ApplyManager<MemoryStateMachine>,
    next: u64,
    /// p50, p99, p99.9 and maximum of each round, in nanoseconds.
    rounds: Vec<[u64; 4]>,
}

impl Engine {
    fn new(name: &'static str, inline: bool) -> Self {
        let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
        let config = ApplyConfig::new().inline_apply(inline);
        let manager = ApplyManager::new(machine, config).unwrap();
        Self { name, manager, next: 1, rounds: Vec::new() }
    }

    fn round(&mut self) {
        let mut took = Vec::with_capacity(CALLS as usize);
        for _call in 0..CALLS {
            let key =
                u128::from(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS).to_be_bytes();
            let entry = Entry::put(self.next, 1, &key, &[7; 100]);
            let began = Instant::now();
            self.manager.apply(&entry, LONG).unwrap();
            took.push(began.elapsed().as_nanos() as u64);
            self.next += 1;
        }
        took.sort_unstable();
        let at = |per_mille: usize| took[took.len() * per_mille / 1000];
        self.rounds.push([at(500), at(990), at(999), took[took.len() - 1]]);
    }
}

fn main() {
    let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let rounds: u32 = given.unwrap_or(8);
    let mut engines = [Engine::new("inline", true), Engine::new("threaded", false)];
    for _round in 0..rounds {
        engines.iter_mut().for_each(Engine::round);
    }
    for engine in &engines {
        print!("{:<9}", engine.name);
        for (at, name) in ["p50", "p99", "p99.9", "max"].into_iter().enumerate() {
            let mut figures: Vec<u64> =
                engine.rounds.iter().skip(1).map(|round| round[at]).collect();
            figures.sort_unstable();
            let (Some(least), Some(most)) = (figures.first(), figures.last()) else { continue };
            let median = figures[figures.len() / 2];
            print!("  {name} {median} ns ({least}-{most})");
        }
        println!();
    }
}
