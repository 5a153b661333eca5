//! Measures what scraping costs an engine that applies flat out. In pairs of rounds on the same
//! engine, one is scraped every 100 ms, and one is not. Prints each pair and the median ratio of
//! the times.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use sprag::{
    ApplyConfig, ApplyManager, Durability, Entry, PersistentConfig, PersistentStateMachine,
};
use sprag_prometheus::SpragCollector;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PATIENT: Duration = Duration::from_secs(600);
const PAIRS: usize = 15;
const KEYS: u64 = 100_000;
const ENTRIES_A_CALL: usize = 128;
/// Entries that may wait, half of what the pipeline takes.
const AHEAD: u64 = 32_768;
/// Entries of one round: some seconds.
const ENTRIES: u64 = 20_000_000;

struct Writer {
    manager: ApplyManager<PersistentStateMachine>,
    keys: Vec<[u8; 16]>,
    next: u64,
}

impl Writer {
    /// Puts `count` entries, and waits until all are acknowledged.
    fn run(&mut self, count: u64) -> Duration {
        let start = Instant::now();
        let end = self.next + count;
        let mut entries = Vec::with_capacity(ENTRIES_A_CALL);
        while self.next < end {
            if let Some(index) = self.next.checked_sub(AHEAD).filter(|index| *index > 0) {
                self.manager.wait_for_apply(index, PATIENT).unwrap();
            }
            let last = (self.next + ENTRIES_A_CALL as u64).min(end);
            entries.extend((self.next..last).map(|index| {
                let key = &self.keys[(index % KEYS) as usize];
                Entry::put(index, 1, &key[..], &[7; 100][..])
            }));
            let _ = self.manager.apply_entries(&entries).unwrap();
            entries.clear();
            self.next = last;
        }
        self.manager.wait_for_apply(end - 1, PATIENT).unwrap();
        start.elapsed()
    }
}

fn main() {
    // `cargo test --benches` runs it without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = PersistentConfig::new(directory.path().join("state")).durability(Durability::Os);
    let machine = PersistentStateMachine::open(config).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    let collector = SpragCollector::new();
    collector.add("measured", manager.stats_reader()).unwrap();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let keys = (0..KEYS).map(|n| u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    let mut writer = Writer { manager, keys: keys.collect(), next: 1 };
    writer.run(ENTRIES);
    let mut ratios = Vec::new();
    for pair in 0..PAIRS {
        let mut times = [Duration::ZERO; 2];
        let mut scrapes = 0;
        // Which of the two comes first changes from pair to pair.
        for turn in [pair % 2, (pair + 1) % 2] {
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let scraper = (turn == 1).then(|| {
                    scope.spawn(|| {
                        let mut count = 0;
                        while !is_over.load(Ordering::Acquire) {
                            let mut scrape = String::new();
                            text::encode(&mut scrape, &registry).unwrap();
                            assert!(scrape.contains("sprag_log_index"));
                            count += 1;
                            std::thread::park_timeout(Duration::from_millis(100));
                        }
                        count
                    })
                });
                times[turn] = writer.run(ENTRIES);
                is_over.store(true, Ordering::Release);
                if let Some(scraper) = scraper {
                    scraper.thread().unpark();
                    scrapes = scraper.join().unwrap();
                }
            });
        }
        let [without, with] = times.map(|time| time.as_secs_f64());
        println!("{without:.3} s, {with:.3} s with {scrapes} scrapes, ratio {:.3}", with / without);
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "median of {PAIRS} pairs: {:.3} ({:.3} to {:.3})",
        ratios[PAIRS / 2],
        ratios[0],
        ratios[PAIRS - 1]
    );
}
